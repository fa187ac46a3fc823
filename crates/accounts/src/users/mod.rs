//! Users as the provider's staff manage them, and links for signing in as one.

mod access;
mod feature;
pub mod links;
pub mod model;
mod routes;
pub mod service;
mod store;

pub use feature::Users;
