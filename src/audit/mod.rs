//! The audit log: every change, who tried it, from where, with which token, on what, and how it ended. Never what was
//! sent: that may hold secrets.
//!
//! Nobody has to think of it: a layer around the router sees every request that may change something, and the command
//! line passes every command through [`service::command`]. An entry is begun before the deed and ended after it, so
//! that a killed process leaves an open entry and not none.

mod feature;
mod layer;
pub mod model;
mod note;
mod routes;
pub mod service;
mod store;

pub use feature::Audit;
pub(crate) use layer::watch;
pub use note::{account, subject};
