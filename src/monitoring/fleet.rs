//! The fleet as the sweeper sees it.

/// Sweeps every host until shutdown.
pub async fn watch(_app: &crate::app::App) {}
