//! Hosts: the hypervisors we drive, and the connections to them.

mod drivers;
mod feature;
pub mod kinds;
mod known;
pub mod model;
mod routes;
pub mod service;
pub mod settings;
pub mod store;

pub use drivers::{Drivers, build_driver};
pub use feature::{HostProblems, Hosts};
pub use known::GuestKeys;

use crate::ids::HostId;

/// The lane of a host's operations: what limits how many run on it at a time.
pub fn lane(host: HostId) -> String {
    format!("host:{host}")
}
