//! Business logic for emails: queueing, retrying and deleting them.

use lettre::message::Mailbox;
use lettre::{Address, Message};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::model::{ListMails, MailState, MailView};
use super::templates::MailTemplate;
use super::{store, transport};
use crate::core::Core;
use crate::error::{Code, Error, Result};
use crate::idempotency::Once;
use crate::listing::{Window, list_error};

/// How many days emails are kept.
const KEPT_DAYS: i32 = 90;

/// Queues an email in the caller's transaction: it exists if and only if that transaction commits. At most one is
/// queued per `event`.
pub async fn queue(tx: &mut PgConnection, event: &str, recipient: &str, mail: &impl MailTemplate) -> Result<()> {
    let mail = mail.render()?;
    Ok(store::insert(tx, event, recipient, &mail).await?)
}

/// Lists emails, newest first by default.
pub async fn list(core: &Core, query: &ListMails, window: Window) -> Result<(Vec<MailView>, i64)> {
    window.check()?;
    store::list(&core.db, query, window).await.map_err(list_error)
}

/// Sends an email again, or at once: it is retried for as long as a new one.
pub async fn retry(core: &Core, once: &Once, id: Uuid) -> Result<MailView> {
    once.run(core, async |tx| {
        let mail = store::lock(tx, id).await?.ok_or_else(|| Error::not_found("email"))?;
        match mail.state {
            MailState::Sent => return Err(Error::new(Code::Conflict, "This email has already been sent.")),
            MailState::Sending => return Err(Error::new(Code::Conflict, "This email is being sent right now.")),
            MailState::Queued | MailState::Failed | MailState::Unknown => {}
        }
        Ok(store::requeue(tx, id).await?)
    })
    .await
}

/// Whether emails are held until someone fixes a problem: the mail server is unreachable, or rejects us.
pub async fn is_held(db: impl PgExecutor<'_>) -> sqlx::Result<bool> {
    store::is_any_held(db).await
}

/// Stops sending anything that is queued: the database was restored, so it may have been sent already.
pub async fn hold_queued(tx: &mut PgConnection) -> Result<()> {
    Ok(store::hold_queued(tx).await?)
}

/// Whether an email to this address can be built and handed to a mail server with exactly this recipient.
pub fn is_deliverable(address: &str) -> bool {
    let Ok(to) = address.parse::<Address>() else { return false };
    let mailbox = Mailbox::new(None, to.clone());
    let built = Message::builder().from(mailbox.clone()).to(mailbox).body(String::new());
    built.is_ok_and(|mail| mail.envelope().to() == [to])
}

/// Deletes emails after 90 days: recipients and bodies are personal data.
pub async fn purge(core: &Core) -> Result<()> {
    for id in store::purge(&core.db, KEPT_DAYS).await? {
        transport::forget(&core.config.data, id).await;
    }
    Ok(())
}
