//! Users: accounts, sessions, tokens, and what each may do.

mod cache;
mod feature;
pub mod mail;
pub mod model;
mod pages;
mod routes;
pub mod service;
mod settings;
pub mod store;
mod topics;

pub use feature::Accounts;
pub use settings::AccountSettings;
pub use topics::{AUTH_CHANGED, AuthChanged};
