//! What servers did: samples summed up and kept for two years, charts of any part of it, and the traffic of each month.

mod feature;
pub mod model;
mod routes;
pub mod service;
mod store;
pub mod traffic;

pub use feature::History;
