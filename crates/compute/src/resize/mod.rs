//! Changing a server's size: to another tariff, or its cores, memory and disk one by one.

mod feature;
pub mod model;
mod routes;
pub mod service;
mod store;
mod wire;
pub mod workflow;

pub use feature::Resizes;
