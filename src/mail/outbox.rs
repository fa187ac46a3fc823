//! Sending what is queued: each mail is claimed, offered to the mail server, noted as handed over, handed over, and its
//! outcome written down. Each of these is committed before the next.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::MAIL_DUE;
use super::store::{self, Mail};
use super::transport::{Failure, Ready, Transport};
use crate::core::Core;
use crate::error::is_database_away;
use crate::restores;

/// Mails under way at one time, of this process.
const AT_ONCE: usize = 4;
/// How long sending is tried before it has failed.
const PATIENCE: TimeDelta = TimeDelta::hours(24);
/// How long the note that a mail is handed over may take, while the mail server waits.
const NOTE: Duration = Duration::from_secs(10);
/// How often to look without being woken.
const POLL: Duration = Duration::from_secs(15);

/// Sends queued mails until shutdown. Any number of processes may do so.
pub(super) async fn send_queued(core: &Core) {
    let transport = match Transport::new(&core.config) {
        Ok(transport) => transport,
        Err(error) => {
            tracing::error!(error = %format!("{error:#}"), "mails can't be sent; they wait in the queue");
            return;
        }
    };
    if !restores::service::begun(core).await {
        return;
    }
    let mut events = core.events.subscribe();
    let mut under_way = FuturesUnordered::new();
    let mut look = true;
    while !core.shutdown.is_cancelled() {
        let full = match take_on(core, &transport, look, AT_ONCE - under_way.len()).await {
            Ok(mails) => {
                under_way.extend(mails.into_iter().map(|mail| send(core, &transport, mail)));
                under_way.len() >= AT_ONCE
            }
            Err(error) => {
                tracing::warn!(%error, "the mail queue can't be read; trying again");
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
    // What is under way is brought to its end.
    while let Some(sent) = under_way.next().await {
        note(sent);
    }
}

fn note(sent: sqlx::Result<()>) {
    if let Err(error) = sent {
        tracing::warn!(%error, "a mail's outcome could not be written down");
    }
}

/// Claims what is due, as much as there is room for: a mail server that takes its time over one mail must not hold up the
/// others.
async fn take_on(core: &Core, transport: &Transport, look: bool, room: usize) -> sqlx::Result<Vec<Mail>> {
    if look {
        settle_abandoned(core, transport).await?;
    }
    let mut mails = vec![];
    while mails.len() < room {
        match store::claim(&core.db, transport.claim().as_secs_f64()).await {
            Ok(Some(mail)) => mails.push(mail),
            Err(error) if mails.is_empty() => return Err(error),
            // What is claimed is sent all the same.
            Ok(None) | Err(_) => break,
        }
    }
    Ok(mails)
}

async fn send(core: &Core, transport: &Transport, mail: Mail) -> sqlx::Result<()> {
    let ready = tokio::select! {
        biased;
        // Nobody has it yet: the next one to look sends it.
        () = core.shutdown.cancelled() => {
            return store::retry(&core.db, &mail, 0.0, "the sending process was ended", None).await;
        }
        ready = offer(core, transport, &mail) => ready,
    };
    let outcome = match ready {
        Ok(ready) => ready.hand_over().await,
        Err(failure) => Err(failure),
    };
    settle(core, transport, &mail, outcome).await
}

/// Everything short of the content, so that giving up anywhere in here leaves the mail unsent.
async fn offer(core: &Core, transport: &Transport, mail: &Mail) -> Result<Ready, Failure> {
    let ready = transport.prepare(mail).await?;
    if transport.is_idempotent() {
        return Ok(ready);
    }
    match tokio::time::timeout(NOTE, store::hand_over(&core.db, mail)).await {
        Ok(Ok(true)) => Ok(ready),
        Ok(Ok(false)) => Err(Failure::Later("the mail server took so long that another process took over".into())),
        Ok(Err(error)) => Err(Failure::Later(format!("the database was away: {error}"))),
        Err(_) => Err(Failure::Later("the database did not answer in time".into())),
    }
}

/// Writes the outcome down. What is known must not be lost to a database that is away for a moment: it is tried for as
/// long as the claim lasts.
async fn settle(core: &Core, transport: &Transport, mail: &Mail, outcome: Result<(), Failure>) -> sqlx::Result<()> {
    let until = tokio::time::Instant::now() + transport.claim();
    loop {
        match record(core, mail, &outcome).await {
            Err(error) if is_database_away(&error) && tokio::time::Instant::now() < until => {
                tracing::warn!(mail = %mail.id, %error, "a mail's outcome can't be written down; trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            done => return done,
        }
    }
}

/// Mails whose sender died in the act. A file written twice is one file; a mail handed over twice is two mails.
async fn settle_abandoned(core: &Core, transport: &Transport) -> sqlx::Result<()> {
    for mail in store::abandoned(&core.db, transport.is_idempotent()).await? {
        if mail.again {
            tracing::info!(mail = %mail.id, "a mail whose sender ended is sent by another");
        } else {
            tracing::error!(
                mail = %mail.id,
                "a mail may or may not have been sent when its sender ended; it is not sent again by itself"
            );
            count("unknown");
        }
    }
    Ok(())
}

async fn record(core: &Core, mail: &Mail, outcome: &Result<(), Failure>) -> sqlx::Result<()> {
    let id = mail.id;
    match outcome {
        Ok(()) => {
            store::sent(&core.db, id).await?;
            tracing::info!(mail = %id, "mail sent");
            count("sent");
        }
        Err(Failure::Held(error)) => {
            let wait = backoff(mail.attempts);
            store::retry(&core.db, mail, wait.as_secs_f64(), error, Some(true)).await?;
            tracing::warn!(mail = %id, error, seconds = wait.as_secs(), "a mail waits for the mail server");
            count("retried");
        }
        Err(Failure::Later(error)) if Utc::now() - mail.queued_at < PATIENCE => {
            let wait = backoff(mail.attempts);
            store::retry(&core.db, mail, wait.as_secs_f64(), error, Some(false)).await?;
            tracing::warn!(mail = %id, error, seconds = wait.as_secs(), "a mail could not be sent; trying again later");
            count("retried");
        }
        Err(Failure::Later(error) | Failure::Never(error)) => {
            store::give_up(&core.db, mail, "failed", error).await?;
            tracing::error!(mail = %id, error, "a mail could not be sent and is given up");
            count("failed");
        }
        Err(Failure::Unknown(error)) => {
            store::give_up(&core.db, mail, "unknown", error).await?;
            tracing::error!(mail = %id, error, "a mail may or may not have been sent; it is not sent again by itself");
            count("unknown");
        }
    }
    Ok(())
}

fn count(state: &'static str) {
    metrics::counter!("innkeeper_mails_total", "state" => state).increment(1);
}

/// One minute after the first try, doubling to an hour.
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
