//! Operating systems to choose from: images, and where each host has them.

pub mod model;
mod routes;
pub mod service;
pub mod store;

pub(crate) use routes::routes;
pub(crate) use service::watch;
