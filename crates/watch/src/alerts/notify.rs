//! Notifications: critical alerts, warnings of some kinds, and the ends of what was notified, in one email per person.
//! They are marked as sent in the transaction that queues the emails, under a lock. So each is sent once, whichever
//! process dies and however many there are.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use kernel::db;
use kernel::error::Result;
use kernel::mail::service::queue;
use monitor::alerts::{Kind, Level};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Alerts;
use super::mail::{self, AlertLine};
use super::model::{AlertEnd, message};
use super::rules::RuleSet;
use super::store::{self, PendingNotification, ProviderRecipient};
use crate::ids::{AlertId, UserId};
use crate::locks::NOTIFY;

/// The oldest alert waits at most this many settle periods while others keep coming: hosts are swept one after another.
const MAX_SETTLE_PERIODS: f64 = 6.0;
/// Batch size of reads, and the most alerts per round: a whole fleet may raise alerts at once.
const BATCH: i64 = 500;
const MAX_ALERTS: usize = 2_000;

/// Sends everything that is due and returns the number of emails; `None` if another process is doing so. Muted alerts
/// and those in quiet hours wait. Alerts that begin and end in that time are never sent.
pub async fn send_due(alerts: &Alerts, now: DateTime<Utc>) -> Result<Option<usize>> {
    let settings = &alerts.settings;
    let mut tx = db::begin(&alerts.core.db).await?;
    let warnings: Vec<String> =
        Kind::ALL.into_iter().filter(|kind| kind.mails_warnings()).map(|kind| kind.as_str().to_owned()).collect();
    if !store::has_pending(&mut tx, &warnings).await? {
        return Ok(Some(0));
    }
    // The holder of the lock sends everything.
    if !NOTIFY.try_acquire(&mut tx).await? {
        return Ok(None);
    }
    let pending = unmuted(&mut tx, &warnings, now, settings.alert_floor_seconds.into()).await?;
    if pending.len() < MAX_ALERTS && !has_settled(&pending, settings.alert_settle_seconds.into()) {
        return Ok(Some(0));
    }
    let staff = store::provider_recipients(&mut tx).await?;
    let mut mails: BTreeMap<UserId, (&str, mail::AlertsMail<'_>)> = BTreeMap::new();
    for n in &pending {
        let of_server = n.owner.zip(n.owner_email.as_deref());
        let wants = |user: &&ProviderRecipient| user.warnings || n.level.0 == Level::Critical;
        let recipients: Vec<(UserId, &str)> = match n.owner {
            Some(_) => of_server.into_iter().collect(),
            None => staff.iter().filter(wants).map(|user| (user.id, user.email.as_str())).collect(),
        };
        for (user, email) in recipients {
            let url = &alerts.accounts.settings.public_url;
            let (_, mail) = mails.entry(user).or_insert_with(|| (email, mail::AlertsMail::new(url)));
            if n.resolved_at.is_some() { &mut mail.over } else { &mut mail.raised }.push(line(n));
        }
    }
    let batch = Uuid::now_v7();
    for (user, (email, mail)) in &mails {
        queue(&mut tx, &format!("alerts:{batch}:{user}"), email, mail).await?;
    }
    let ids: Vec<i64> = pending.iter().map(|n| n.id.0).collect();
    let ended: Vec<i64> = pending.iter().filter(|n| n.resolved_at.is_some()).map(|n| n.id.0).collect();
    let critical = |n: &&PendingNotification| n.level.0 == Level::Critical;
    let critical: Vec<i64> = pending.iter().filter(critical).map(|n| n.id.0).collect();
    store::mark_notified(&mut tx, &ids, &critical, &ended).await?;
    tx.commit().await?;
    tracing::info!(alerts = ids.len(), mails = mails.len(), "alert notifications queued");
    Ok(Some(mails.len()))
}

/// What may be sent now, oldest first; anything beyond [`MAX_ALERTS`] is left for the next round.
async fn unmuted(
    tx: &mut PgConnection,
    warnings: &[String],
    now: DateTime<Utc>,
    floor: f64,
) -> Result<Vec<PendingNotification>> {
    let (mut found, mut after) = (vec![], AlertId(0));
    loop {
        let part = store::pending(tx, warnings, after, BATCH, floor).await?;
        let Some(last) = part.last() else { return Ok(found) };
        after = last.id;
        let servers: Vec<i64> = part.iter().filter_map(|n| n.server_id).map(|id| id.0).collect();
        let tariffs: Vec<i64> = part.iter().filter_map(|n| n.tariff_id).map(|id| id.0).collect();
        let rules = store::rules_of(&mut *tx, &servers, &tariffs).await?;
        found.extend(part.into_iter().filter(|n| !n.muted && !is_quiet(&rules, n, now)));
        if found.len() >= MAX_ALERTS {
            found.truncate(MAX_ALERTS);
            return Ok(found);
        }
    }
}

/// Whether nothing new has come for `settle` seconds, or the oldest has waited long enough.
fn has_settled(pending: &[PendingNotification], settle: f64) -> bool {
    let youngest = pending.iter().map(|n| n.age).reduce(f64::min);
    let oldest = pending.iter().map(|n| n.age).reduce(f64::max);
    youngest >= Some(settle) || oldest >= Some(settle * MAX_SETTLE_PERIODS)
}

fn is_quiet(rules: &RuleSet, pending: &PendingNotification, now: DateTime<Utc>) -> bool {
    let (_, settings) = rules.of(pending.kind.0, pending.tariff_id, pending.server_id);
    settings.quiet.is_some_and(|quiet| quiet.covers(now))
}

fn line(pending: &PendingNotification) -> AlertLine {
    let kind = pending.kind.0;
    let begun = message(kind, pending.value, pending.detail.as_deref());
    let what = match pending.ended {
        None => begun,
        Some(AlertEnd::Recovered) => kind.over(pending.value),
        Some(AlertEnd::Withdrawn | AlertEnd::Unknown) => format!("{begun}: no longer watched"),
    };
    let name = match (pending.server_id, kind) {
        (Some(id), _) => format!("{} (server {id})", pending.name),
        (None, Kind::OperationStuck | Kind::StaleLock) => format!("operation {}", pending.name),
        (None, _) => pending.name.clone(),
    };
    let what = match pending.servers {
        0 => what,
        servers => format!("{what}; affected servers: {servers}, customers: {}", pending.customers),
    };
    let (at, word) = pending.resolved_at.map_or((pending.raised_at, "since"), |at| (at, "ended"));
    AlertLine { name, what, when: format!("{word} {}", at.format("%Y-%m-%d %H:%M UTC")) }
}
