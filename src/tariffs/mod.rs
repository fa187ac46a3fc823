//! What can be ordered: tariffs.

pub mod model;
mod routes;
pub mod service;
pub mod store;

pub use model::Kind;
pub(crate) use routes::routes;
