//! Changing a server's size: to another tariff's, or by parts.

pub mod model;
mod routes;
pub mod service;
mod store;
pub mod workflow;

pub(crate) use routes::routes;
