//! Accounts and their members: who owns, who may act for it, what becomes of it.

mod access;
mod feature;
pub mod model;
mod routes;
pub mod service;
mod store;

pub use access::AccountAccess;
pub use feature::Members;
