//! Users: accounts, sessions, tokens, and what each may do.

mod cache;
mod cookies;
mod feature;
mod locks;
pub mod mail;
pub mod members;
pub mod model;
mod pages;
mod routes;
pub mod service;
mod settings;
pub mod store;
mod topics;
pub mod users;

pub use feature::Accounts;
pub use members::Members;
pub use settings::AccountSettings;
pub use topics::{AUTH_CHANGED, AuthChanged};
pub use users::Users;
