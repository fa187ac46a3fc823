//! What servers are doing: sweeps stored, shown and pushed. The sweeping itself is the `monitor` crate's.

mod charts;
mod fleet;
pub mod model;
pub mod prometheus;
pub mod service;
mod store;

pub use charts::Charts;
pub use fleet::{look, watch};
pub use store::insert_samples;
pub(crate) use store::notify_sampled;
