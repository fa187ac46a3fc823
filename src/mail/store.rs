//! The SQL of the outbox.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::templates::Rendered;

type Result<T> = sqlx::Result<T>;

/// Queues one mail for an event and wakes the senders when the transaction commits; nothing, where there is one.
pub(super) async fn insert(db: &mut PgConnection, event: &str, recipient: &str, mail: &Rendered) -> Result<()> {
    let done = sqlx::query!(
        "insert into mails (id, event, recipient, subject, text_body, html_body) values ($1, $2, $3, $4, $5, $6)
         on conflict (event) do nothing",
        Uuid::now_v7(),
        event,
        recipient,
        mail.subject,
        mail.text,
        mail.html
    )
    .execute(&mut *db)
    .await?;
    if done.rows_affected() == 1 {
        sqlx::query!(r#"select pg_notify('mail_due', '') as "notified: ()""#).execute(db).await?;
    }
    Ok(())
}

/// A mail that this process may send now, and nobody else.
#[derive(Debug)]
pub(super) struct Mail {
    pub id: Uuid,
    pub recipient: String,
    pub subject: String,
    pub text_body: String,
    pub html_body: String,
    /// Tries so far, this one included.
    pub attempts: i32,
    pub created_at: DateTime<Utc>,
}

/// Takes the mail that waits longest: it is `sending`, committed, before anyone hands it over. While it is sending,
/// `run_at` says when its sender must have been dead, and `attempts` tells its sender from a later one.
pub(super) async fn claim(db: &PgPool, claim_seconds: f64) -> Result<Option<Mail>> {
    sqlx::query_as!(
        Mail,
        r#"update mails set state = 'sending', attempts = attempts + 1, handed_over_at = null,
                  run_at = now() + make_interval(secs => $1)
           where id = (select id from mails where state = 'queued' and run_at <= now()
                       order by run_at limit 1 for update skip locked)
           returning id, recipient, subject, text_body, html_body, attempts, created_at"#,
        claim_seconds
    )
    .fetch_optional(db)
    .await
}

/// Notes that the mail server is about to get the content: from here on it may be out. False where the claim has run
/// out, and the mail is somebody else's.
pub(super) async fn hand_over(db: &PgPool, mail: &Mail) -> Result<bool> {
    let done = sqlx::query!(
        "update mails set handed_over_at = now()
         where id = $1 and state = 'sending' and attempts = $2 and run_at > now()",
        mail.id,
        mail.attempts
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// It is out.
pub(super) async fn sent(db: &PgPool, id: Uuid) -> Result<()> {
    sqlx::query!("update mails set state = 'sent', sent_at = now(), last_error = null where id = $1", id)
        .execute(db)
        .await
        .map(drop)
}

/// It is certainly not out, and is tried again after `wait_seconds`.
pub(super) async fn retry(db: &PgPool, mail: &Mail, wait_seconds: f64, error: &str) -> Result<()> {
    sqlx::query!(
        "update mails set state = 'queued', run_at = now() + make_interval(secs => $3), last_error = $4
         where id = $1 and state = 'sending' and attempts = $2",
        mail.id,
        mail.attempts,
        wait_seconds,
        error
    )
    .execute(db)
    .await
    .map(drop)
}

/// It ended otherwise: `failed` (certainly not out) or `unknown` (perhaps out). Neither is sent again by itself.
pub(super) async fn give_up(db: &PgPool, mail: &Mail, state: &str, error: &str) -> Result<()> {
    sqlx::query!(
        "update mails set state = $3, last_error = $4 where id = $1 and state = 'sending' and attempts = $2",
        mail.id,
        mail.attempts,
        state,
        error
    )
    .execute(db)
    .await
    .map(drop)
}

/// A mail whose sender died.
#[derive(Debug)]
pub(super) struct Abandoned {
    pub id: Uuid,
    /// It is queued again; else it is `unknown`.
    pub again: bool,
}

/// Mails whose sender died: queued again where the content was certainly not handed over or (`idempotent`) handing over
/// twice is the same as once; else `unknown`.
pub(super) async fn abandoned(db: &PgPool, idempotent: bool) -> Result<Vec<Abandoned>> {
    sqlx::query_as!(
        Abandoned,
        r#"update mails set state = case when $1 or handed_over_at is null then 'queued' else 'unknown' end,
                  last_error = 'the sending process ended before it knew the outcome'
           where id in (select id from mails where state = 'sending' and run_at < now() for update skip locked)
           returning id, state = 'queued' as "again!""#,
        idempotent
    )
    .fetch_all(db)
    .await
}

/// Forgets mails that were done with so many days ago.
pub(super) async fn purge(db: &PgPool, days: i32) -> Result<()> {
    sqlx::query!(
        "delete from mails where state in ('sent', 'failed', 'unknown') and created_at < now() - make_interval(days => $1)",
        days
    )
    .execute(db)
    .await
    .map(drop)
}
