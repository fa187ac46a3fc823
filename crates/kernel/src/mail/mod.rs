//! Outgoing email: queued in the database, sent by a background task, never twice for one event.

mod feature;
pub mod model;
mod outbox;
mod routes;
pub mod service;
mod store;
pub mod templates;
mod transport;

use crate::events::Topic;
pub use feature::Mails;

/// A mail waits to be sent.
pub const MAIL_DUE: Topic<()> = Topic::new("mail_due", |_| Some(()));
