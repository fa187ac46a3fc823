//! Monitoring: sweep results are stored, shown and pushed. The sweeping itself is in the `monitor` crate.

mod charts;
mod feature;
pub mod model;
mod prometheus;
mod routes;
pub mod service;
mod settings;
mod store;
pub mod wire;

use crate::ids::HostId;
pub use feature::Monitoring;
use kernel::events::Topic;

pub use charts::Charts;
pub use settings::MonitoringSettings;
pub use store::insert_samples;
pub use store::notify_sampled;

/// A host was swept, and its samples are stored.
pub const SAMPLED: Topic<HostId> = Topic::new("sampled", |id| id.parse().ok());
