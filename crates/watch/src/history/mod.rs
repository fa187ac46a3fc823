//! Server history: samples aggregated and kept for two years, charts of any period, and monthly traffic.

mod feature;
pub mod model;
mod routes;
pub mod service;
mod store;
pub mod traffic;

pub use feature::History;
