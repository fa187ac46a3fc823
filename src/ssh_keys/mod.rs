//! An account's SSH keys, to order servers with.

pub mod model;
mod routes;
pub mod service;
mod store;

pub(crate) use routes::routes;
