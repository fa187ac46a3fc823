//! The audit log: every change, who attempted it, from where, with which token, on what, and how it ended. Request
//! bodies are never recorded: they may hold secrets.
//!
//! Recording is automatic: a layer around the router sees every request that may change something, and the command line
//! runs every command through [`service::command`]. An entry is begun before the action and ended after it, so that a
//! killed process leaves an open entry instead of none.

mod feature;
mod layer;
pub mod model;
mod note;
mod routes;
pub mod service;
mod store;

pub use feature::Audit;
pub use layer::watch;
pub use note::{account, reason, subject};
