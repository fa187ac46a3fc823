//! Servers: what customers order, use and give back.

mod access;
pub mod changes;
pub mod labels;
pub mod model;
pub(crate) mod placement;
mod routes;
pub mod service;
pub mod store;
pub mod workflows;

pub use access::ServerAccess;
pub(crate) use routes::routes;
