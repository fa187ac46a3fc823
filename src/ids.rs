//! Typed ids, so that a tariff's id can't be passed where a server's is expected.

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
            sqlx::Type, utoipa::ToSchema,
        )]
        #[serde(transparent)]
        #[sqlx(transparent)]
        #[schema(value_type = i64, example = 1)]
        pub struct $name(pub i64);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                s.parse().map(Self)
            }
        }
    };
}

id!(
    /// A user's account.
    UserId
);
id!(
    /// A server.
    ServerId
);
id!(
    /// A tariff.
    TariffId
);
id!(
    /// An operating system image.
    ImageId
);
id!(
    /// A host.
    HostId
);
id!(
    /// An address pool.
    PoolId
);
id!(
    /// An SSH key of an account.
    SshKeyId
);
id!(
    /// An alert.
    AlertId
);
