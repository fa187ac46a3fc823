//! Address pools: which addresses servers may have, and which are in use.

pub mod model;
pub mod range;
mod routes;
pub mod service;
pub mod store;

pub(crate) use routes::routes;
