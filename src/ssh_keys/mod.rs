//! An account's SSH keys, to order servers with.

mod feature;
pub mod model;
mod routes;
pub mod service;
mod store;

pub use feature::SshKeys;
