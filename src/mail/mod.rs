//! Outgoing mail: queued in the database, sent by a task, never twice for one event.
pub mod service;
pub mod templates;
/// The mailer's task.
pub async fn send_queued(_app: &crate::app::App) {}
