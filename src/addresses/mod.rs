//! Address pools: which addresses servers may have, and which are in use.

pub mod model;
pub mod range;
pub mod reverse;
mod routes;
pub mod service;
pub mod store;

pub(crate) use routes::routes;
