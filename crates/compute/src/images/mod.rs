//! Operating system images, and where each host has them.

mod feature;
pub mod model;
mod routes;
pub mod service;
pub mod store;

pub use feature::{Images, ImagesOnNodes};
