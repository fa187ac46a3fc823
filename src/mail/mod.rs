//! Outgoing mail: queued in the database, sent by a task, never twice for one event.

mod outbox;
pub mod service;
mod store;
pub mod templates;
mod transport;

pub use outbox::send_queued;
