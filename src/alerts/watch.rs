//! Looking: what sweeps saw, judged by the rules, becomes incidents. What is judged and what is stored are one
//! transaction, so that a process that dies in the middle leaves nothing behind, and another judges the next sweep.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use hypervisor::{GuestPower, Node};
use monitor::alerts::{Event, Kind, Level, Rule, Track, step};
use monitor::{Report, Sample};
use sqlx::PgConnection;
use uuid::Uuid;

use super::rules::Rules;
use super::store::{self, Watched};
use super::subject::Subject;
use crate::addresses;
use crate::core::Core;
use crate::db;
use crate::error::Result;
use crate::history::traffic::Metered;
use crate::ids::HostId;
use crate::locks::Lock;
use crate::mail;
use crate::monitoring;

/// One figure, and the rule to judge it by; none, where nobody wants to hear of it.
#[derive(Debug)]
struct Reading {
    subject: Subject,
    kind: Kind,
    rule: Option<Rule>,
    value: Option<f64>,
}

/// What a reading changed.
#[derive(Debug)]
pub(super) struct Change {
    pub subject: Subject,
    pub kind: Kind,
    /// What is remembered from now on.
    pub track: Option<Track>,
    pub value: f64,
    /// Nobody wants to hear of it any more.
    pub withdrawn: bool,
}

impl Change {
    /// What tracks and open incidents are found by: subject and kind.
    pub(super) fn key(&self) -> (String, String) {
        (self.subject.to_string(), self.kind.as_str().to_owned())
    }
}

/// Judges a sweep of a host, in the transaction that stores it; `interval` is the time between two, and `traffic` what
/// the month's came to.
pub async fn swept(
    tx: &mut PgConnection,
    interval: Duration,
    host: HostId,
    report: &Report,
    traffic: &Metered,
) -> sqlx::Result<()> {
    Lock::Alerts(host).hold(tx).await?;
    let rules = store::rules_of_host(&mut *tx, host).await?;
    let servers = store::watched(tx, host, report.known_at).await?;
    let samples: HashMap<Uuid, &Sample> = report.samples.iter().map(|s| (s.marker, s)).collect();
    let mut readings = Vec::with_capacity(servers.len() * 5);
    for server in &servers {
        let sample = samples.get(&server.marker).copied();
        let subject = Subject::Server(server.id, host);
        let used =
            traffic.get(&server.id).zip(server.quota.filter(|quota| *quota > 0.0)).map(|(bytes, quota)| bytes / quota);
        let missed = report.coverage.includes(&server.node, server.guest_number);
        for (kind, value) in figures(server, sample, missed, used) {
            let (_, settings) = rules.of(kind, Some(server.tariff), Some(server.id));
            let rule = settings.active().filter(|_| kind != Kind::Down || server.wanted).copied();
            readings.push(Reading { subject, kind, rule, value });
        }
    }
    let fullest = report.nodes.iter().filter_map(storage_use).max_by(f64::total_cmp);
    let (subject, kind) = (Subject::Host(host), Kind::StorageLow);
    let rule = rules.of(kind, None, None).1.active().copied();
    readings.push(Reading { subject, kind, rule, value: fullest });
    judge(tx, interval, report.taken_at, readings).await?;
    // By the clock of the claims: a failure has no other.
    answers(tx, interval, host, &rules, report.claimed_at, true).await.map(drop)
}

/// Notes that a host could not be swept. Of its guests nothing is known, and nothing is judged.
pub async fn failed(core: &Core, host: HostId) -> Result<()> {
    let at = store::now(&core.db).await?;
    failed_at(core, host, at).await
}

/// The same at a moment of the caller's choice.
pub async fn failed_at(core: &Core, host: HostId, at: DateTime<Utc>) -> Result<()> {
    let mut tx = db::begin(&core.db).await?;
    Lock::Alerts(host).hold(&mut tx).await?;
    let rules = store::rules_of(&mut *tx, &[], &[]).await?;
    if answers(&mut tx, core.config.sweep_interval(), host, &rules, at, false).await? {
        monitoring::notify_sampled(&mut tx, host).await?;
    }
    tx.commit().await
}

/// Looks at what no sweep sees: address pools, stuck operations, mails that wait, unknown guests, a restored database, and what is not watched any more. One process does so
/// for all.
pub async fn patrol(core: &Core) -> Result<()> {
    let mut tx = db::begin(&core.db).await?;
    if !Lock::Patrol.try_hold(&mut tx).await? {
        return Ok(());
    }
    let pools = addresses::service::all(&mut *tx, core.config.address_rest()).await?;
    let at = store::now(&mut *tx).await?;
    let rules = store::rules_of(&mut *tx, &[], &[]).await?;
    let rule = |kind| rules.of(kind, None, None).1.active().copied();
    let mut readings: Vec<Reading> = pools
        .iter()
        .filter(|pool| pool.enabled && pool.total > 0)
        .map(|pool| Reading {
            subject: Subject::Pool(pool.id),
            kind: Kind::PoolLow,
            rule: rule(Kind::PoolLow),
            // What rests is nobody's else to have.
            value: Some((pool.taken + pool.resting) as f64 / pool.total as f64),
        })
        .collect();
    for (id, stuck) in store::stuck(&mut tx).await? {
        let (subject, kind) = (Subject::Operation(id), Kind::OperationStuck);
        readings.push(Reading { subject, kind, rule: rule(kind), value: Some(if stuck { 1.0 } else { 0.0 }) });
    }
    let held = if mail::service::is_held(&mut *tx).await? { 1.0 } else { 0.0 };
    let (subject, kind) = (Subject::Mail, Kind::MailHeld);
    readings.push(Reading { subject, kind, rule: rule(kind), value: Some(held) });
    for (host, any) in store::unknown_guests(&mut tx).await? {
        let (subject, kind) = (Subject::Host(host), Kind::UnknownGuest);
        readings.push(Reading { subject, kind, rule: rule(kind), value: Some(f64::from(u8::from(any))) });
    }
    let restored = f64::from(u8::from(store::is_restored(&mut tx).await?));
    let (subject, kind) = (Subject::Installation, Kind::DatabaseRestored);
    readings.push(Reading { subject, kind, rule: rule(kind), value: Some(restored) });
    judge(&mut tx, core.config.sweep_interval(), at, readings).await?;
    store::withdraw(&mut tx).await?;
    tx.commit().await
}

/// How much of the storage that a node's guests are on is in use, as a share.
fn storage_use(node: &Node) -> Option<f64> {
    let room = (node.disk_gib as f64) * f64::from(1 << 30);
    node.disk_used.filter(|_| node.disk_gib > 0).map(|used| (used as f64 / room).clamp(0.0, 1.0))
}

/// What there is to judge of a server. `missed`: one that is not in the sweep would be, if it was there.
fn figures(server: &Watched, sample: Option<&Sample>, missed: bool, traffic: Option<f64>) -> [(Kind, Option<f64>); 5] {
    let running = sample.is_some_and(|s| s.power == GuestPower::Running);
    let usage = sample.map(Sample::usage);
    let down = match sample.map(|s| s.power) {
        _ if server.held => None,
        Some(GuestPower::Running) => Some(0.0),
        // Paused, it serves nobody either.
        Some(GuestPower::Stopped | GuestPower::Paused) => Some(1.0),
        None if missed => Some(1.0),
        Some(GuestPower::Unknown) | None => None,
    };
    [
        (Kind::Cpu, usage.and_then(|u| u.cpu)),
        (Kind::Memory, usage.and_then(|u| u.memory)),
        // Of a stopped guest not every host can tell.
        (Kind::Disk, usage.filter(|_| running).and_then(|u| u.disk)),
        (Kind::Traffic, traffic),
        (Kind::Down, down),
    ]
}

/// Whether a host answers, and with it what its servers' owners are to know. True where that is news.
async fn answers(
    tx: &mut PgConnection,
    interval: Duration,
    host: HostId,
    rules: &Rules,
    at: DateTime<Utc>,
    well: bool,
) -> sqlx::Result<bool> {
    let kind = Kind::HostUnreachable;
    let rule = rules.of(kind, None, None).1.active().copied();
    let value = Some(if well { 0.0 } else { 1.0 });
    let events = judge(tx, interval, at, vec![Reading { subject: Subject::Host(host), kind, rule, value }]).await?;
    match events.first() {
        Some(Event::Raised(_)) => store::raise_on_host(tx, host, at).await?,
        Some(Event::Resolved) => store::resolve_on_host(tx, host, at, rule.is_none()).await?,
        Some(Event::Became(_)) | None => return Ok(false),
    }
    Ok(true)
}

/// Judges readings by what is remembered, and writes down what came of it: a few statements, however many there are.
async fn judge(
    tx: &mut PgConnection,
    interval: Duration,
    at: DateTime<Utc>,
    readings: Vec<Reading>,
) -> sqlx::Result<Vec<Event>> {
    // Three sweeps may be missed before what lasts is counted anew.
    let gap = TimeDelta::from_std(interval * 3).unwrap_or(TimeDelta::MAX).max(TimeDelta::minutes(5));
    let mut subjects: Vec<Subject> = readings.iter().map(|r| r.subject).collect();
    subjects.dedup();
    let names: HashMap<String, Subject> = subjects.iter().map(|s| (s.to_string(), *s)).collect();
    let keys: Vec<String> = names.keys().cloned().collect();
    let known = store::tracks(tx, &keys).await?.into_iter();
    let mut tracks: HashMap<(Subject, Kind), Track> =
        known.filter_map(|(name, kind, track)| Some(((*names.get(&name)?, kind.0), track))).collect();

    let mut changes = vec![];
    for Reading { subject, kind, rule, value } in readings {
        let before = tracks.remove(&(subject, kind));
        let open = before.as_ref().is_some_and(Track::is_firing);
        let (track, event) = match &rule {
            Some(rule) => step(before.clone(), rule, gap, at, value),
            None => (None, open.then_some(Event::Resolved)),
        };
        if track != before {
            let value = value.unwrap_or_default();
            changes.push((Change { subject, kind, track, value, withdrawn: rule.is_none() }, event));
        }
    }
    let (mut raised, mut lasting, mut resolved) = (vec![], vec![], vec![]);
    for (change, event) in &changes {
        match event {
            Some(Event::Raised(level)) => raised.push((change, *level)),
            Some(Event::Became(level)) => lasting.push((change, Some(*level))),
            Some(Event::Resolved) => resolved.push(change),
            None if change.track.as_ref().is_some_and(Track::is_firing) => lasting.push((change, None)),
            None => {}
        }
    }
    if !raised.is_empty() {
        store::raise(tx, &raised, at).await?;
    }
    if !lasting.is_empty() {
        store::refresh(tx, &lasting).await?;
    }
    if !resolved.is_empty() {
        store::resolve(tx, &resolved, at).await?;
    }
    count(&raised, &resolved);
    let (changes, events): (Vec<Change>, Vec<Option<Event>>) = changes.into_iter().unzip();
    store::keep_tracks(tx, &changes).await?;
    Ok(events.into_iter().flatten().collect())
}

fn count(raised: &[(&Change, Level)], resolved: &[&Change]) {
    for (change, level) in raised {
        metrics::counter!("innkeeper_alerts_raised_total", "type" => change.kind.as_str(), "level" => level.as_str())
            .increment(1);
    }
    for change in resolved {
        metrics::counter!("innkeeper_alerts_resolved_total", "type" => change.kind.as_str()).increment(1);
    }
}
