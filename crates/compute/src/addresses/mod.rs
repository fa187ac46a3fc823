//! Address pools: the addresses that servers may get, and those in use.

mod feature;
pub mod model;
pub mod range;
pub mod reverse;
mod routes;
pub mod service;
mod settings;
pub mod store;

pub use feature::Addresses;
pub use settings::AddressSettings;
