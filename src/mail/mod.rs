//! Outgoing mail: queued in the database, sent by a task, never twice for one event.

pub mod model;
mod outbox;
mod routes;
pub mod service;
mod store;
pub mod templates;
mod transport;

pub use outbox::send_queued;
pub(crate) use routes::routes;
