//! Queueing mails.

use sqlx::PgConnection;

use super::store;
use super::templates::ServerReady;
use crate::error::Result;

/// Queues "your server is ready" in the caller's transaction, so that the mail exists if and only if what it tells
/// about does. A second one for the same `event` is not queued.
pub async fn queue(tx: &mut PgConnection, event: &str, recipient: &str, mail: &ServerReady<'_>) -> Result<()> {
    let mail = mail.render()?;
    Ok(store::insert(tx, event, recipient, &mail).await?)
}
