//! Servers: what customers order, use and delete.

mod access;
pub mod changes;
mod feature;
pub mod labels;
pub mod mail;
pub mod model;
pub mod placement;
mod routes;
pub mod service;
pub mod store;
pub mod workflows;

use crate::ids::ServerId;
use kernel::events::Topic;

pub use access::ServerAccess;
pub use feature::Servers;

/// A server's status or owner changed, or it was suspended or deleted.
pub const SERVER_CHANGED: Topic<ServerId> = Topic::new("server_changed", |id| id.parse().ok());
