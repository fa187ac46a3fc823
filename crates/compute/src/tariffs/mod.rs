//! Tariffs: the server sizes that can be ordered, and their prices.

mod feature;
pub mod model;
mod routes;
pub mod service;
pub mod store;

pub use feature::Tariffs;
pub use model::ServerKind;
