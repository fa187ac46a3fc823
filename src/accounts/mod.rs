//! People: accounts, logins, tokens, and what each may do.

pub mod model;
mod routes;
mod scopes;
pub mod service;
pub mod store;

pub(crate) use routes::routes;
pub use scopes::{Level, Scope, Scopes};
