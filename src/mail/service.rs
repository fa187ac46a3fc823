//! Queueing mails.

use sqlx::PgConnection;

use super::store;
use super::templates::Mail;
use crate::error::Result;

/// Queues a mail in the caller's transaction, so that it exists if and only if what it tells about does. A second one for the same `event` is not queued.
pub async fn queue(tx: &mut PgConnection, event: &str, recipient: &str, mail: &impl Mail) -> Result<()> {
    let mail = mail.render()?;
    Ok(store::insert(tx, event, recipient, &mail).await?)
}
