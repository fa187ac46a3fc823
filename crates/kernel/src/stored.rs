//! Enums stored as text in the database. A newer version running at the same time may write values that this one does
//! not know: they are read as `unknown`, so that a single such row does not break a list.

use serde::de::DeserializeOwned;
use serde::de::value::{Error, StrDeserializer};

/// Parses a stored value; none if this version does not know it.
pub fn parse_known<T: DeserializeOwned>(text: &str) -> Option<T> {
    T::deserialize(StrDeserializer::<Error>::new(text)).ok()
}

/// Decodes a type from a text column by its serde names, and any other value as `$unknown`.
#[macro_export]
macro_rules! stored_enum {
    ($name:ty, $unknown:expr) => {
        impl sqlx::Type<sqlx::Postgres> for $name {
            fn type_info() -> sqlx::postgres::PgTypeInfo {
                <str as sqlx::Type<sqlx::Postgres>>::type_info()
            }

            fn compatible(ty: &sqlx::postgres::PgTypeInfo) -> bool {
                <str as sqlx::Type<sqlx::Postgres>>::compatible(ty)
            }
        }

        impl<'r> sqlx::Decode<'r, sqlx::Postgres> for $name {
            fn decode(value: sqlx::postgres::PgValueRef<'r>) -> Result<Self, sqlx::error::BoxDynError> {
                let text = <&str as sqlx::Decode<sqlx::Postgres>>::decode(value)?;
                Ok($crate::stored::parse_known(text).unwrap_or($unknown))
            }
        }
    };
}
