//! Sends queued emails: each is claimed, offered to the mail server, recorded as handed over, handed over, and its
//! outcome recorded. Each of these is committed before the next.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::MAIL_DUE;
use super::store::{self, QueuedMail};
use super::transport::{PreparedMail, SendFailure, Transport};
use crate::core::Core;
use crate::error::is_database_away;
use crate::restores;

/// Emails that this process sends concurrently.
const AT_ONCE: usize = 4;
/// How long sending is retried before the email has failed or, if the trouble is not the recipient's, is held.
const PATIENCE: TimeDelta = TimeDelta::hours(24);
/// How long it may take to record that an email is handed over, while the mail server waits.
const NOTE: Duration = Duration::from_secs(10);
/// How often to poll without a notification.
const POLL: Duration = Duration::from_secs(15);

/// Sends queued emails until shutdown. Any number of processes may do so.
pub(super) async fn send_queued(core: &Core, transport: &Transport) {
    if !restores::service::wait_for_first_check(core).await {
        return;
    }
    let mut events = core.events.subscribe();
    let mut under_way = FuturesUnordered::new();
    let mut look = true;
    while !core.shutdown.is_cancelled() {
        let full = match claim_due(core, transport, look, AT_ONCE - under_way.len()).await {
            Ok(mails) => {
                under_way.extend(mails.into_iter().map(|mail| send(core, transport, mail)));
                under_way.len() >= AT_ONCE
            }
            Err(error) => {
                tracing::warn!(%error, "cannot read the email queue; retrying");
                false
            }
        };
        let wake = events.next_of(&MAIL_DUE);
        tokio::select! {
            Some(sent) = under_way.next() => {
                look = false;
                note(sent);
            }
            () = core.shutdown.cancelled() => {}
            _ = wake, if !full => look = true,
            () = tokio::time::sleep(POLL) => look = true,
        }
    }
    // Emails in progress are finished.
    while let Some(sent) = under_way.next().await {
        note(sent);
    }
}

fn note(sent: sqlx::Result<()>) {
    if let Err(error) = sent {
        tracing::warn!(%error, "cannot record the outcome of an email");
    }
}

/// Claims due emails, at most as many as there are free slots: a mail server that is slow with one email must not hold
/// up the others.
async fn claim_due(core: &Core, transport: &Transport, look: bool, room: usize) -> sqlx::Result<Vec<QueuedMail>> {
    if look {
        recover_abandoned(core, transport).await?;
    }
    let mut mails = vec![];
    while mails.len() < room {
        match store::claim(&core.db, transport.claim().as_secs_f64()).await {
            Ok(Some(mail)) => mails.push(mail),
            Err(error) if mails.is_empty() => return Err(error),
            // Emails that are already claimed are still sent.
            Ok(None) | Err(_) => break,
        }
    }
    Ok(mails)
}

async fn send(core: &Core, transport: &Transport, mail: QueuedMail) -> sqlx::Result<()> {
    let ready = tokio::select! {
        biased;
        // Not handed over yet: the next process to poll sends it.
        () = core.shutdown.cancelled() => {
            return store::retry(&core.db, &mail, 0.0, "the sending process shut down", None).await;
        }
        ready = offer(core, transport, &mail) => ready,
    };
    let outcome = match ready {
        Ok(ready) => ready.hand_over().await,
        Err(failure) => Err(failure),
    };
    store_outcome(core, transport, &mail, outcome).await
}

/// Everything short of the content, so that a failure anywhere in here leaves the email unsent.
async fn offer(core: &Core, transport: &Transport, mail: &QueuedMail) -> Result<PreparedMail, SendFailure> {
    let ready = transport.prepare(mail).await?;
    if transport.is_idempotent() {
        return Ok(ready);
    }
    match tokio::time::timeout(NOTE, store::hand_over(&core.db, mail)).await {
        Ok(Ok(true)) => Ok(ready),
        Ok(Ok(false)) => Err(SendFailure::Busy("the mail server was so slow that another process took over".into())),
        Ok(Err(error)) => Err(SendFailure::Busy(format!("the database was unreachable: {error}"))),
        Err(_) => Err(SendFailure::Busy("the database did not answer in time".into())),
    }
}

/// Records the outcome. It must not be lost because the database is unreachable for a moment: this is retried for as
/// long as the claim lasts.
async fn store_outcome(
    core: &Core,
    transport: &Transport,
    mail: &QueuedMail,
    outcome: Result<(), SendFailure>,
) -> sqlx::Result<()> {
    let until = tokio::time::Instant::now() + transport.claim();
    loop {
        match record(core, mail, &outcome).await {
            Err(error) if is_database_away(&error) && tokio::time::Instant::now() < until => {
                tracing::warn!(mail = %mail.id, %error, "cannot record the outcome of an email; retrying");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            done => return done,
        }
    }
}

/// Emails whose sender died while sending. A file written twice is one file; an email handed over twice is two emails.
async fn recover_abandoned(core: &Core, transport: &Transport) -> sqlx::Result<()> {
    for mail in store::abandoned(&core.db, transport.is_idempotent()).await? {
        if mail.again {
            tracing::info!(mail = %mail.id, "the sender of an email died; another process sends it");
        } else {
            tracing::error!(
                mail = %mail.id,
                "the sender of an email died and the email may have been sent; it is not retried automatically"
            );
            count("unknown");
        }
    }
    Ok(())
}

async fn record(core: &Core, mail: &QueuedMail, outcome: &Result<(), SendFailure>) -> sqlx::Result<()> {
    let id = mail.id;
    let late = Utc::now() - mail.queued_at >= PATIENCE;
    match outcome {
        Ok(()) => {
            store::sent(&core.db, id).await?;
            tracing::info!(mail = %id, "mail sent");
            count("sent");
        }
        Err(SendFailure::Later(error) | SendFailure::Busy(error)) if !late => {
            let wait = backoff(mail.attempts);
            store::retry(&core.db, mail, wait.as_secs_f64(), error, Some(false)).await?;
            tracing::warn!(mail = %id, error, seconds = wait.as_secs(), "email not sent; retrying later");
            count("retried");
        }
        Err(SendFailure::Held(error) | SendFailure::Busy(error)) => {
            let wait = backoff(mail.attempts);
            store::retry(&core.db, mail, wait.as_secs_f64(), error, Some(true)).await?;
            tracing::warn!(mail = %id, error, seconds = wait.as_secs(), "email held until the mail server accepts it");
            count("retried");
        }
        Err(SendFailure::Later(error) | SendFailure::Never(error)) => {
            store::give_up(&core.db, mail, "failed", error).await?;
            tracing::error!(mail = %id, error, "email not sent; giving up");
            count("failed");
        }
        Err(SendFailure::Unknown(error)) => {
            store::give_up(&core.db, mail, "unknown", error).await?;
            tracing::error!(mail = %id, error, "email may have been sent; it is not retried automatically");
            count("unknown");
        }
    }
    Ok(())
}

fn count(state: &'static str) {
    metrics::counter!("innkeeper_mails_total", "state" => state).increment(1);
}

/// One minute after the first attempt, doubling up to an hour.
fn backoff(attempts: i32) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(0).min(6);
    Duration::from_secs((60_u64 << doublings).min(3600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_an_hour() {
        let waits: Vec<u64> = (0..9).map(|n| backoff(n).as_secs()).collect();
        assert_eq!(waits, [60, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
        assert_eq!(backoff(i32::MAX).as_secs(), 3600);
    }
}
