//! Snapshots of servers. They are on the host; only the space that each of them takes is recorded, with its server.

mod feature;
pub mod model;
mod room;
mod routes;
pub mod service;
mod wire;
pub mod workflows;

pub use feature::Snapshots;
