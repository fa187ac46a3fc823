//! People: accounts, logins, tokens, and what each may do.

mod cache;
pub mod model;
mod routes;
mod scopes;
pub mod service;
pub mod store;

pub use cache::TokenCache;
pub(crate) use routes::routes;
pub use scopes::{Level, Scope, Scopes};
