//! Changing a server's size: to another tariff's, or by parts.

mod feature;
pub mod model;
mod routes;
pub mod service;
mod store;
pub mod workflow;

pub use feature::Resizing;
