//! Queueing mails, and forgetting them.

use lettre::message::Mailbox;
use lettre::{Address, Message};
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

/// Whether a mail can be built for this address and handed to a mail server as its own.
pub fn can_be_written_to(address: &str) -> bool {
    let Ok(to) = address.parse::<Address>() else { return false };
    let mailbox = Mailbox::new(None, to.clone());
    let built = Message::builder().from(mailbox.clone()).to(mailbox).body(String::new());
    built.is_ok_and(|mail| mail.envelope().to() == [to])
}

/// Forgets mails of long ago: what was told, and to whom, is nobody's business for ever.
pub async fn purge(app: &App) -> Result<()> {
    Ok(store::purge(&app.db, KEPT_DAYS).await?)
}
