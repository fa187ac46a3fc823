//! An account's SSH keys, for use in server orders.

mod feature;
pub mod model;
mod routes;
pub mod service;
mod store;

pub use feature::SshKeys;
