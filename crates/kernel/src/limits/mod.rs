//! Rate limits per minute: by token and account, and by address for requests without a valid token. A limit applies to
//! all processes together without a query per request: each process takes a share of the minute's allowance from the
//! database at a time. Requests that cost no query (pages, health checks) are counted by each process on its own. Also
//! limits the number of connections per address.

mod feature;
mod layer;
mod places;
mod service;
mod store;
mod turns;

pub use feature::RateLimiting;
pub use layer::{RateLimited, limit, log_refusal};
pub use places::{ConnectionSlot, ConnectionSlots};
pub use service::{Allowance, LimitKey, RateClass, RateLimits};
pub use turns::ListSlots;
