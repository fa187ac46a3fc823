//! Users as the provider's staff manage them, and links that open somebody's login.

mod access;
mod feature;
pub mod links;
pub mod model;
mod routes;
pub mod service;
mod store;

pub use feature::Users;
