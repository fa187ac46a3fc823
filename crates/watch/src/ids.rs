//! The ids of alerts, beside those of what alerts are about.

use kernel::typed_id;

pub use compute::ids::{AccountId, HostId, PoolId, ServerId, TariffId, UserId};

typed_id!(
    /// An alert.
    AlertId
);
