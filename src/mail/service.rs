//! Queueing mails, sending them again, and forgetting them.

use lettre::message::Mailbox;
use lettre::{Address, Message};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::model::{ListMails, MailState, MailView};
use super::templates::Mail;
use super::{store, transport};
use crate::core::Core;
use crate::error::{Code, Error, Result};
use crate::http::page::{self, Page, PageQuery};
use crate::idempotency::{Begun, Once};

/// For so many days what was sent can be looked up.
const KEPT_DAYS: i32 = 90;

/// Queues a mail in the caller's transaction, so that it exists if and only if what it tells about does. A second one for the same `event` is not queued.
pub async fn queue(tx: &mut PgConnection, event: &str, recipient: &str, mail: &impl Mail) -> Result<()> {
    let mail = mail.render()?;
    Ok(store::insert(tx, event, recipient, &mail).await?)
}

/// Mails, newest first where nothing else is asked for.
pub async fn list(core: &Core, query: &ListMails) -> Result<Page<MailView>> {
    let page = PageQuery { page: query.page, limit: query.limit };
    page.check()?;
    let (mails, total) = store::list(&core.db, query, page).await.map_err(page::too_long)?;
    Ok(Page::new(mails, total, page))
}

/// Has a mail sent once more, or at once: it is tried as long as a new one is.
pub async fn retry(core: &Core, once: &Once, id: Uuid) -> Result<MailView> {
    let mut tx = match once.begin(core).await? {
        Begun::New(tx) => tx,
        Begun::Done(answer) => return Ok(answer),
    };
    let mail = store::lock(&mut tx, id).await?.ok_or_else(|| Error::not_found("mail"))?;
    match mail.state {
        MailState::Sent => return Err(Error::new(Code::Conflict, "This mail is out already.")),
        MailState::Sending => return Err(Error::new(Code::Conflict, "This mail is being sent at this moment.")),
        MailState::Queued | MailState::Failed | MailState::Unknown => {}
    }
    let queued = store::queue_again(&mut tx, id).await?;
    tx.finish(core, queued).await
}

/// Whether mails wait for somebody to mend something: the mail server is away, or takes none from us.
pub async fn is_held(db: impl PgExecutor<'_>) -> sqlx::Result<bool> {
    store::is_any_held(db).await
}

/// Sends nothing that is queued any more by itself: the database was restored, and it may be out already.
pub(crate) async fn hold_all(tx: &mut PgConnection) -> Result<()> {
    Ok(store::hold_all(tx).await?)
}

/// Whether a mail can be built for this address and handed to a mail server as its own.
pub fn can_be_written_to(address: &str) -> bool {
    let Ok(to) = address.parse::<Address>() else { return false };
    let mailbox = Mailbox::new(None, to.clone());
    let built = Message::builder().from(mailbox.clone()).to(mailbox).body(String::new());
    built.is_ok_and(|mail| mail.envelope().to() == [to])
}

/// Forgets mails of long ago: what was told, and to whom, is nobody's business for ever.
pub async fn purge(core: &Core) -> Result<()> {
    for id in store::purge(&core.db, KEPT_DAYS).await? {
        transport::forget(&core.config.data, id).await;
    }
    Ok(())
}
