//! Accounts and their members: who owns an account, who may act for it, and its whole life.

mod access;
mod feature;
pub mod model;
mod routes;
pub mod service;
mod store;

pub use access::AccountAccess;
pub use feature::Members;
