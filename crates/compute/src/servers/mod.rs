//! Servers: what customers order, use and delete.

mod access;
pub mod actions;
pub mod changes;
mod feature;
pub mod figures;
pub mod labels;
pub mod mail;
pub mod model;
mod order;
pub mod placement;
mod routes;
mod rules;
pub mod service;
mod settings;
pub mod size;
pub mod store;
pub mod subject;
mod submit;
pub mod suspension;
pub mod wire;
pub mod workflows;

use kernel::events::Topic;

use crate::ids::ServerId;

pub use access::ServerAccess;
pub use feature::{PinnedGuestKeys, Servers};
pub use figures::ServerFigures;
pub use settings::ServerSettings;

/// A server's status or owner changed, or it was suspended or deleted.
pub const SERVER_CHANGED: Topic<ServerId> = Topic::new("server_changed", |id| id.parse().ok());
