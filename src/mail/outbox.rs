//! Sending what is queued.

/// Sends queued mails until shutdown.
pub async fn send_queued(_app: &crate::app::App) {}
