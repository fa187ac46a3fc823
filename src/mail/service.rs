//! Queueing mails, and forgetting them.

use sqlx::PgConnection;

use super::store;
use super::templates::Mail;
use crate::app::App;
use crate::error::Result;

/// For so many days what was sent can be looked up.
const KEPT_DAYS: i32 = 90;

/// Queues a mail in the caller's transaction, so that it exists if and only if what it tells about does. A second one for the same `event` is not queued.
pub async fn queue(tx: &mut PgConnection, event: &str, recipient: &str, mail: &impl Mail) -> Result<()> {
    let mail = mail.render()?;
    Ok(store::insert(tx, event, recipient, &mail).await?)
}

/// Forgets mails of long ago: what was told, and to whom, is nobody's business for ever.
pub async fn purge(app: &App) -> Result<()> {
    Ok(store::purge(&app.db, KEPT_DAYS).await?)
}
