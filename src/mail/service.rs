//! Queueing.
use super::templates::ServerReady;
use crate::error::Result;
use sqlx::PgConnection;
/// Queues "your server is ready" in the caller's transaction; a second one for the same `event` is not queued.
pub async fn queue(_tx: &mut PgConnection, _event: &str, _recipient: &str, _mail: &ServerReady<'_>) -> Result<()> {
    todo!()
}
