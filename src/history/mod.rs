//! What servers did: samples summed up and kept for two years, and charts of any part of it.

pub mod model;
mod routes;
pub mod service;
mod store;

pub(crate) use routes::routes;
pub use service::keep;
