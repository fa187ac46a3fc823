//! Snapshots of servers. The host has them; all that is kept here is the room that each takes.

mod feature;
pub mod model;
mod room;
mod routes;
pub mod service;
pub(crate) mod store;
pub mod workflows;

pub use feature::Snapshots;
