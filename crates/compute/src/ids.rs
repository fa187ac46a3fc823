//! The ids of hosts, servers and what servers are made from.

use kernel::typed_id;

pub use kernel::ids::{AccountId, UserId};

typed_id!(
    /// A server.
    ServerId
);
typed_id!(
    /// A tariff.
    TariffId
);
typed_id!(
    /// An operating system image.
    ImageId
);
typed_id!(
    /// A host.
    HostId
);
typed_id!(
    /// An address pool.
    PoolId
);
typed_id!(
    /// An SSH key of an account.
    SshKeyId
);
