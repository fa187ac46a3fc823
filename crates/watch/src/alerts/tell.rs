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
const PATIENCE: f64 = 6.0;
/// Batch size of reads, and the most alerts per round: a whole fleet may raise alerts at once.
const PART: i64 = 500;
const MOST: usize = 2_000;

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
    let news = loud(&mut tx, &warnings, now, settings.alert_floor_seconds.into()).await?;
    if news.len() < MOST && !has_settled(&news, settings.alert_settle_seconds.into()) {
        return Ok(Some(0));
    }
    let staff = store::provider_recipients(&mut tx).await?;
    let mut mails: BTreeMap<UserId, (&str, mail::AlertsMail<'_>)> = BTreeMap::new();
    for n in &news {
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
    let ids: Vec<i64> = news.iter().map(|n| n.id.0).collect();
    let ended: Vec<i64> = news.iter().filter(|n| n.resolved_at.is_some()).map(|n| n.id.0).collect();
    let critical = |n: &&PendingNotification| n.level.0 == Level::Critical;
    let critical: Vec<i64> = news.iter().filter(critical).map(|n| n.id.0).collect();
    store::mark_notified(&mut tx, &ids, &critical, &ended).await?;
    tx.commit().await?;
    tracing::info!(alerts = ids.len(), mails = mails.len(), "alert notifications queued");
    Ok(Some(mails.len()))
}

/// What may be sent now, oldest first; anything beyond [`MOST`] is left for the next round.
async fn loud(
    tx: &mut PgConnection,
    warnings: &[String],
    now: DateTime<Utc>,
    floor: f64,
) -> Result<Vec<PendingNotification>> {
    let (mut loud, mut after) = (vec![], AlertId(0));
    loop {
        let part = store::pending(tx, warnings, after, PART, floor).await?;
        let Some(last) = part.last() else { return Ok(loud) };
        after = last.id;
        let servers: Vec<i64> = part.iter().filter_map(|n| n.server_id).map(|id| id.0).collect();
        let tariffs: Vec<i64> = part.iter().filter_map(|n| n.tariff_id).map(|id| id.0).collect();
        let rules = store::rules_of(&mut *tx, &servers, &tariffs).await?;
        loud.extend(part.into_iter().filter(|n| !n.muted && !is_quiet(&rules, n, now)));
        if loud.len() >= MOST {
            loud.truncate(MOST);
            return Ok(loud);
        }
    }
}

/// Whether nothing new has come for `settle` seconds, or the oldest has waited long enough.
fn has_settled(news: &[PendingNotification], settle: f64) -> bool {
    let youngest = news.iter().map(|n| n.age).reduce(f64::min);
    let oldest = news.iter().map(|n| n.age).reduce(f64::max);
    youngest >= Some(settle) || oldest >= Some(settle * PATIENCE)
}

fn is_quiet(rules: &RuleSet, news: &PendingNotification, now: DateTime<Utc>) -> bool {
    let (_, settings) = rules.of(news.kind.0, news.tariff_id, news.server_id);
    settings.quiet.is_some_and(|quiet| quiet.covers(now))
}

fn line(news: &PendingNotification) -> AlertLine {
    let kind = news.kind.0;
    let begun = message(kind, news.value, news.detail.as_deref());
    let what = match news.ended {
        None => begun,
        Some(AlertEnd::Recovered) => kind.over(news.value),
        Some(AlertEnd::Withdrawn | AlertEnd::Unknown) => format!("{begun}: no longer watched"),
    };
    let name = match (news.server_id, kind) {
        (Some(id), _) => format!("{} (server {id})", news.name),
        (None, Kind::OperationStuck | Kind::StaleLock) => format!("operation {}", news.name),
        (None, _) => news.name.clone(),
    };
    let what = match news.servers {
        0 => what,
        servers => format!("{what}; affected servers: {servers}, customers: {}", news.customers),
    };
    let (at, word) = news.resolved_at.map_or((news.raised_at, "since"), |at| (at, "ended"));
    AlertLine { name, what, when: format!("{word} {}", at.format("%Y-%m-%d %H:%M UTC")) }
}
