//! What can be ordered: tariffs.

mod feature;
pub mod model;
mod routes;
pub mod service;
pub mod store;

pub use feature::Tariffs;
pub use model::Kind;
