//! What servers are doing: sweeps stored, shown and pushed. The sweeping itself is the `monitor` crate's.
pub mod model;
pub mod service;
/// Sweeps every host.
pub async fn watch(_app: &crate::app::App) {}
