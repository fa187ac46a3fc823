//! Telling: what is critical, warnings of a server's own resources, and the ends of what was told, in one mail a person. What is told is noted in the
//! transaction that queues the mails, under a lock: it is told once, whoever dies and however many there are.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::mail::{AlertLine, Alerts};
use super::model::Ended;
use super::rules::Rules;
use super::store::{self, News};
use crate::core::Core;
use crate::db;
use crate::error::Result;
use crate::ids::{AlertId, UserId};
use crate::locks::Lock;
use crate::mail::service::queue;

/// How many times the seconds to settle the first waits while others keep coming: hosts are swept one after the other.
const PATIENCE: f64 = 6.0;
/// Alerts that are read at a time, and that are told of at a time: a whole fleet may have something to say at once.
const PART: i64 = 500;
const MOST: usize = 2_000;

/// Tells everybody what there is to tell at this moment, and gives the number of mails; `None`, where another process is
/// at it. What is muted, or in its quiet
/// hours, waits; what has come and gone by their end is not told.
pub async fn tell(core: &Core, now: DateTime<Utc>) -> Result<Option<usize>> {
    let mut tx = db::begin(&core.db).await?;
    if !store::is_any(&mut tx).await? {
        return Ok(Some(0));
    }
    // Whoever has the lock tells everything.
    if !Lock::Tell.try_hold(&mut tx).await? {
        return Ok(None);
    }
    let news = loud(&mut tx, now, core.config.alert_floor_seconds.into()).await?;
    if news.len() < MOST && !has_settled(&news, core.config.alert_settle_seconds.into()) {
        return Ok(Some(0));
    }
    let staff = store::staff(&mut tx).await?;
    let mut mails: BTreeMap<UserId, (&str, Alerts<'_>)> = BTreeMap::new();
    for n in &news {
        let of_server = n.owner.zip(n.owner_email.as_deref());
        let recipients: Vec<(UserId, &str)> = match n.owner {
            Some(_) => of_server.into_iter().collect(),
            None => staff.iter().map(|(id, email)| (*id, email.as_str())).collect(),
        };
        for (user, email) in recipients {
            let (_, mail) = mails.entry(user).or_insert_with(|| (email, Alerts::new(&core.config.public_url)));
            if n.resolved_at.is_some() { &mut mail.over } else { &mut mail.raised }.push(line(n));
        }
    }
    let batch = Uuid::now_v7();
    for (user, (email, mail)) in &mails {
        queue(&mut tx, &format!("alerts:{batch}:{user}"), email, mail).await?;
    }
    let ids: Vec<i64> = news.iter().map(|n| n.id.0).collect();
    let ended: Vec<i64> = news.iter().filter(|n| n.resolved_at.is_some()).map(|n| n.id.0).collect();
    let critical = |n: &&News| n.level.0 == monitor::alerts::Level::Critical;
    let critical: Vec<i64> = news.iter().filter(critical).map(|n| n.id.0).collect();
    store::told(&mut tx, &ids, &critical, &ended).await?;
    tx.commit().await?;
    tracing::info!(alerts = ids.len(), mails = mails.len(), "told of alerts");
    Ok(Some(mails.len()))
}

/// What may be told now, oldest first; what is beyond [`MOST`] is told the next time.
async fn loud(tx: &mut PgConnection, now: DateTime<Utc>, floor: f64) -> Result<Vec<News>> {
    let (mut loud, mut after) = (vec![], AlertId(0));
    loop {
        let part = store::news(tx, after, PART, floor).await?;
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

/// Whether nothing has come for so many seconds, or the first has waited for long enough.
fn has_settled(news: &[News], settle: f64) -> bool {
    let youngest = news.iter().map(|n| n.age).reduce(f64::min);
    let oldest = news.iter().map(|n| n.age).reduce(f64::max);
    youngest >= Some(settle) || oldest >= Some(settle * PATIENCE)
}

fn is_quiet(rules: &Rules, news: &News, now: DateTime<Utc>) -> bool {
    let (_, settings) = rules.of(news.kind.0, news.tariff_id, news.server_id);
    settings.quiet.is_some_and(|quiet| quiet.covers(now))
}

fn line(news: &News) -> AlertLine {
    let kind = news.kind.0;
    let what = match news.ended {
        None => kind.message(news.value),
        Some(Ended::Recovered) => kind.over(news.value),
        Some(Ended::Withdrawn | Ended::Unknown) => format!("{}: not watched any more", kind.message(news.value)),
    };
    let name = match (news.server_id, kind) {
        (Some(id), _) => format!("{} (server {id})", news.name),
        (None, monitor::alerts::Kind::OperationStuck) => format!("operation {}", news.name),
        (None, _) => news.name.clone(),
    };
    let what = match news.servers {
        0 => what,
        servers => format!("{what}; servers on it: {servers}, of customers: {}", news.customers),
    };
    let (at, word) = news.resolved_at.map_or((news.raised_at, "since"), |at| (at, "ended"));
    AlertLine { name, what, when: format!("{word} {}", at.format("%Y-%m-%d %H:%M UTC")) }
}
