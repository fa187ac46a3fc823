//! SQL for the outbox.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::model::{ListMails, MailState, MailView};
use super::templates::Rendered;
use crate::listing::{COUNTED, SortOrder, Window};

type Result<T> = sqlx::Result<T>;

/// Queues an email for an event and wakes the senders when the transaction commits; does nothing if the event has one.
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

/// An email that this process may send now, and no other.
#[derive(Debug)]
pub(super) struct QueuedMail {
    pub id: Uuid,
    pub recipient: String,
    pub subject: String,
    pub text_body: String,
    pub html_body: String,
    /// Attempts so far, including this one.
    pub attempts: i32,
    pub created_at: DateTime<Utc>,
    /// When the first of the attempts was due.
    pub queued_at: DateTime<Utc>,
}

/// Claims the email that has waited longest, but none while an earlier one to the same recipient is being sent or due:
/// the end of an alert must not arrive before its beginning. An email that is due hours from now was queued while the
/// clock was off. It is committed as `sending` before it is handed over. While it is being sent, `run_at` is the time
/// by which its sender must have died, and `attempts` tells its sender from a later one.
pub(super) async fn claim(db: &PgPool, claim_seconds: f64) -> Result<Option<QueuedMail>> {
    sqlx::query_as!(
        QueuedMail,
        r#"update mails set state = 'sending', attempts = attempts + 1, handed_over_at = null,
                  run_at = now() + make_interval(secs => $1)
           where id = (select id from mails m where state = 'queued'
                         and (run_at <= now() or run_at > now() + interval '2 hours')
                         and not exists (select from mails e where e.recipient = m.recipient and e.id < m.id
                                         and (e.state = 'sending' or (e.state = 'queued' and e.run_at <= now())))
                       order by run_at, id limit 1 for update of m skip locked)
           returning id, recipient, subject, text_body, html_body, attempts, created_at, queued_at"#,
        claim_seconds
    )
    .fetch_optional(db)
    .await
}

/// Records that the mail server is about to get the content: from now on the email may have been sent. False if the
/// claim has expired, and the email belongs to another process.
pub(super) async fn hand_over(db: &PgPool, mail: &QueuedMail) -> Result<bool> {
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

/// Records that an email was sent.
pub(super) async fn sent(db: &PgPool, id: Uuid) -> Result<()> {
    sqlx::query!("update mails set state = 'sent', sent_at = now(), last_error = null, held = false where id = $1", id)
        .execute(db)
        .await
        .map(drop)
}

/// Records that an email was certainly not sent, and is retried after `wait_seconds`. `held`: retried without a time
/// limit; `None` if it was not attempted, which leaves the flag unchanged.
pub(super) async fn retry(
    db: &PgPool,
    mail: &QueuedMail,
    wait_seconds: f64,
    error: &str,
    held: Option<bool>,
) -> Result<()> {
    sqlx::query!(
        "update mails set state = 'queued', run_at = now() + make_interval(secs => $3), last_error = $4,
         held = coalesce($5, held)
         where id = $1 and state = 'sending' and attempts = $2",
        mail.id,
        mail.attempts,
        wait_seconds,
        error,
        held
    )
    .execute(db)
    .await
    .map(drop)
}

/// Records another outcome: `failed` (certainly not sent) or `unknown` (possibly sent). Neither is retried
/// automatically.
pub(super) async fn give_up(db: &PgPool, mail: &QueuedMail, state: &str, error: &str) -> Result<()> {
    sqlx::query!(
        "update mails set state = $3, last_error = $4, held = false
         where id = $1 and state = 'sending' and attempts = $2",
        mail.id,
        mail.attempts,
        state,
        error
    )
    .execute(db)
    .await
    .map(drop)
}

/// An email whose sender died.
#[derive(Debug)]
pub(super) struct AbandonedMail {
    pub id: Uuid,
    /// It is queued again; otherwise it is `unknown`.
    pub again: bool,
}

/// Emails whose sender died: queued again if the content was certainly not handed over, or if handing it over twice
/// does no harm (`idempotent`); otherwise `unknown`.
pub(super) async fn abandoned(db: &PgPool, idempotent: bool) -> Result<Vec<AbandonedMail>> {
    sqlx::query_as!(
        AbandonedMail,
        r#"update mails set state = case when $1 or handed_over_at is null then 'queued' else 'unknown' end,
                  last_error = 'the sending process ended before it knew the outcome'
           where id in (select id from mails where state = 'sending'
                          and (run_at < now() or run_at > now() + interval '2 hours') for update skip locked)
           returning id, state = 'queued' as "again!""#,
        idempotent
    )
    .fetch_all(db)
    .await
}

/// Leaves the decision whether to send unsent emails to the provider.
pub(super) async fn hold_queued(tx: &mut PgConnection) -> Result<()> {
    sqlx::query!(
        "update mails set state = 'unknown', held = false,
             last_error = 'the database was restored while this waited to be sent; it may be out already'
         where state in ('queued', 'sending')"
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Whether emails are held until someone fixes a problem.
pub(super) async fn is_any_held(db: impl PgExecutor<'_>) -> Result<bool> {
    sqlx::query_scalar!(r#"select exists (select from mails where state in ('queued', 'sending') and held) as "any!""#)
        .fetch_one(db)
        .await
}

/// Filtered emails with the total count; the subject is the only content included.
pub(super) async fn list(db: &PgPool, query: &ListMails, window: Window) -> Result<(Vec<MailView>, i64)> {
    let mut tx = crate::db::begin_list_query(db).await?;
    macro_rules! mails {
        ($run:ident, $query:ident, ($($of:tt)*), $what:literal, $rest:literal $(, $more:expr)*) => {
            sqlx::$query!(
                $($of)*
                "select " + $what + r#" from mails
                   where ($1::text is null or state = $1) and ($2::bool is null or held = $2)
                     and ($3::text is null or lower(recipient) = lower($3))"# + $rest,
                query.state.map(MailState::as_str), query.held, query.recipient $(, $more)*
            )
            .$run(&mut *tx)
            .await?
        };
    }
    let rows = mails!(
        fetch_all,
        query_as,
        (MailView,),
        r#"id, recipient, subject, state as "state: MailState", held, attempts, last_error as error,
           case when state = 'queued' then run_at end as next_try_at, created_at, sent_at"#,
        r#" and ($7::timestamptz is null
                 or case when $4 then (created_at, id) > ($7, $8) else (created_at, id) < ($7, $8) end)
            order by case when $4 then created_at end, case when not $4 then created_at end desc,
                     case when $4 then id end, case when not $4 then id end desc
            limit $5 offset $6"#,
        query.order == Some(SortOrder::Asc),
        window.limit,
        window.offset,
        query.after.map(|place| place.at),
        query.after.map(|place| place.id)
    );
    let total =
        mails!(fetch_one, query_scalar, (), r#"count(*) as "n!" from (select 1"#, " limit $4) counted", COUNTED);
    Ok((rows, total))
}

/// Finds an email and locks it until the transaction ends.
pub(super) async fn lock(tx: &mut PgConnection, id: Uuid) -> Result<Option<MailView>> {
    sqlx::query_as!(
        MailView,
        r#"select id, recipient, subject, state as "state: MailState", held, attempts, last_error as error,
                  case when state = 'queued' then run_at end as next_try_at, created_at, sent_at
           from mails where id = $1 for update"#,
        id
    )
    .fetch_optional(tx)
    .await
}

/// Queues an email again, due at once, and wakes the senders when the transaction commits.
pub(super) async fn requeue(tx: &mut PgConnection, id: Uuid) -> Result<MailView> {
    sqlx::query!(r#"select pg_notify('mail_due', '') as "notified: ()""#).execute(&mut *tx).await?;
    sqlx::query_as!(
        MailView,
        r#"update mails set state = 'queued', run_at = now(), queued_at = now(), handed_over_at = null where id = $1
           returning id, recipient, subject, state as "state: MailState", held, attempts, last_error as error,
                     case when state = 'queued' then run_at end as next_try_at, created_at, sent_at"#,
        id
    )
    .fetch_one(tx)
    .await
}

/// Deletes emails that were finished and are older than `days`.
pub(super) async fn purge(db: &PgPool, days: i32) -> Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "delete from mails where state in ('sent', 'failed', 'unknown')
         and created_at < aged_to() - make_interval(days => $1)
         returning id",
        days
    )
    .fetch_all(db)
    .await
}
