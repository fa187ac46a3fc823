//! People: accounts, logins, tokens, and what each may do.

mod cache;
pub mod model;
mod pages;
mod routes;
mod scopes;
pub mod service;
pub mod store;

pub use cache::TokenCache;
pub(crate) use pages::pages;
pub(crate) use routes::routes;
pub use scopes::{Level, Scope, Scopes};
