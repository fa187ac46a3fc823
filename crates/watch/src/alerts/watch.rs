//! Judging: sweep results are checked against the rules and become incidents. Judging and storing share a transaction,
//! so a process that dies half-way leaves nothing behind and another one judges the next sweep.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use compute::addresses;
use hypervisor::{GuestPower, Node};
use kernel::db;
use kernel::error::Result;
use kernel::mail;
use monitor::alerts::{AlertEvent, AlertRule, AlertTrack, Kind, Level, step};
use monitor::{Sample, SweepReport};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Alerts;
use super::rules::RuleSet;
use super::store::{self, WatchedServer};
use super::subject::AlertSubject;
use crate::history::traffic::Metered;
use crate::ids::HostId;
use crate::{locks, monitoring};

/// One value with the rule to judge it by; no rule if alerts of this kind are disabled.
#[derive(Debug)]
struct RuleReading {
    subject: AlertSubject,
    kind: Kind,
    rule: Option<AlertRule>,
    value: Option<f64>,
}

/// What judging a reading changed.
#[derive(Debug)]
pub(super) struct TrackChange {
    pub subject: AlertSubject,
    pub kind: Kind,
    /// The track to store; `None` once it is quiet.
    pub track: Option<AlertTrack>,
    pub value: f64,
    /// Alerts of this kind were disabled.
    pub withdrawn: bool,
}

impl TrackChange {
    /// The key of tracks and open incidents: subject and kind.
    pub(super) fn key(&self) -> (String, String) {
        (self.subject.to_string(), self.kind.as_str().to_owned())
    }
}

/// Judges a sweep of a host in the transaction that stores it. `interval` is the time between two sweeps, `traffic`
/// this month's totals.
pub async fn evaluate_sweep(
    tx: &mut PgConnection,
    interval: Duration,
    host: HostId,
    report: &SweepReport,
    traffic: &Metered,
) -> sqlx::Result<()> {
    locks::alerts(host).hold(tx).await?;
    let rules = store::rules_of_host(&mut *tx, host).await?;
    let servers = store::watched(tx, host, report.known_at).await?;
    let samples: HashMap<Uuid, &Sample> = report.samples.iter().map(|s| (s.marker, s)).collect();
    let mut readings = Vec::with_capacity(servers.len() * 5);
    for server in &servers {
        let sample = samples.get(&server.marker).copied();
        let subject = AlertSubject::Server(server.id, host);
        let used =
            traffic.get(&server.id).zip(server.quota.filter(|quota| *quota > 0.0)).map(|(bytes, quota)| bytes / quota);
        let missed = report.coverage.includes(&server.node, server.guest_number);
        for (kind, value) in figures(server, sample, missed, used) {
            let (_, settings) = rules.of(kind, Some(server.tariff), Some(server.id));
            let rule = settings.active().filter(|_| kind != Kind::Down || server.wanted).copied();
            readings.push(RuleReading { subject, kind, rule, value });
        }
    }
    let fullest = report.nodes.iter().filter_map(storage_use).max_by(f64::total_cmp);
    let (subject, kind) = (AlertSubject::Host(host), Kind::StorageLow);
    let rule = rules.of(kind, None, None).1.active().copied();
    readings.push(RuleReading { subject, kind, rule, value: fullest });
    evaluate_readings(tx, interval, report.taken_at, readings).await?;
    // By the claim's clock: a failed sweep has no other.
    update_reachability(tx, interval, host, &rules, report.claimed_at, true).await.map(drop)
}

/// Records that a host could not be swept. Nothing is known of its guests, so none of them is judged.
pub async fn evaluate_failure(alerts: &Alerts, host: HostId) -> Result<()> {
    let at = store::now(&alerts.core.db).await?;
    evaluate_failure_at(alerts, host, at).await
}

/// The same, at a time of the caller's choice.
pub async fn evaluate_failure_at(alerts: &Alerts, host: HostId, at: DateTime<Utc>) -> Result<()> {
    let mut tx = db::begin(&alerts.core.db).await?;
    locks::alerts(host).hold(&mut tx).await?;
    let rules = store::rules_of(&mut *tx, &[], &[]).await?;
    if update_reachability(&mut tx, alerts.monitoring.settings.sweep_interval(), host, &rules, at, false).await? {
        monitoring::notify_sampled(&mut tx, host).await?;
    }
    tx.commit().await
}

/// Checks what no sweep covers: address pools, stuck operations, stale locks, held mail, unknown guests, a restored
/// database, and subjects that are no longer watched. One process does so for all.
pub async fn evaluate_periodic(alerts: &Alerts) -> Result<()> {
    let mut tx = db::begin(&alerts.core.db).await?;
    if !locks::PATROL.try_acquire(&mut tx).await? {
        return Ok(());
    }
    let pools = addresses::service::all(&mut *tx, alerts.addresses.settings.rest()).await?;
    let at = store::now(&mut *tx).await?;
    let rules = store::rules_of(&mut *tx, &[], &[]).await?;
    let rule = |kind| rules.of(kind, None, None).1.active().copied();
    let mut readings: Vec<RuleReading> = pools
        .iter()
        .filter(|pool| pool.enabled && pool.total > 0)
        .map(|pool| RuleReading {
            subject: AlertSubject::Pool(pool.id),
            kind: Kind::PoolLow,
            rule: rule(Kind::PoolLow),
            // Resting addresses can't be assigned to anyone else.
            value: Some((pool.taken + pool.resting) as f64 / pool.total as f64),
        })
        .collect();
    for (id, stuck) in store::stuck(&mut tx).await? {
        let (subject, kind) = (AlertSubject::Operation(id), Kind::OperationStuck);
        readings.push(RuleReading { subject, kind, rule: rule(kind), value: Some(if stuck { 1.0 } else { 0.0 }) });
    }
    for (id, locked) in store::stale_locks(&mut tx).await? {
        let (subject, kind) = (AlertSubject::Operation(id), Kind::StaleLock);
        readings.push(RuleReading { subject, kind, rule: rule(kind), value: Some(f64::from(u8::from(locked))) });
    }
    let held = if mail::service::is_held(&mut *tx).await? { 1.0 } else { 0.0 };
    let (subject, kind) = (AlertSubject::Mail, Kind::MailHeld);
    readings.push(RuleReading { subject, kind, rule: rule(kind), value: Some(held) });
    for (host, any) in store::unknown_guests(&mut tx).await? {
        let (subject, kind) = (AlertSubject::Host(host), Kind::UnknownGuest);
        readings.push(RuleReading { subject, kind, rule: rule(kind), value: Some(f64::from(u8::from(any))) });
    }
    let restored = f64::from(u8::from(store::is_restored(&mut tx).await?));
    let (subject, kind) = (AlertSubject::Installation, Kind::DatabaseRestored);
    readings.push(RuleReading { subject, kind, rule: rule(kind), value: Some(restored) });
    evaluate_readings(&mut tx, alerts.monitoring.settings.sweep_interval(), at, readings).await?;
    store::withdraw(&mut tx).await?;
    tx.commit().await
}

/// Share of the storage in use that a node's guests are on.
fn storage_use(node: &Node) -> Option<f64> {
    let room = (node.disk_gib as f64) * f64::from(1 << 30);
    node.disk_used.filter(|_| node.disk_gib > 0).map(|used| (used as f64 / room).clamp(0.0, 1.0))
}

/// The values to judge for a server. `missed`: the sweep would have shown the server if it existed.
fn figures(
    server: &WatchedServer,
    sample: Option<&Sample>,
    missed: bool,
    traffic: Option<f64>,
) -> [(Kind, Option<f64>); 5] {
    let running = sample.is_some_and(|s| s.power == GuestPower::Running);
    let usage = sample.map(Sample::usage);
    let down = match sample.map(|s| s.power) {
        _ if server.held => None,
        Some(GuestPower::Running) => Some(0.0),
        // A paused guest serves nobody either.
        Some(GuestPower::Stopped | GuestPower::Paused) => Some(1.0),
        None if missed => Some(1.0),
        Some(GuestPower::Unknown) | None => None,
    };
    [
        (Kind::Cpu, usage.and_then(|u| u.cpu)),
        (Kind::Memory, usage.and_then(|u| u.memory)),
        // Not every host reports the disk of a stopped guest.
        (Kind::Disk, usage.filter(|_| running).and_then(|u| u.disk)),
        (Kind::Traffic, traffic),
        (Kind::Down, down),
    ]
}

/// Updates whether a host answers, along with the incidents of its servers' owners. True if that changed.
async fn update_reachability(
    tx: &mut PgConnection,
    interval: Duration,
    host: HostId,
    rules: &RuleSet,
    at: DateTime<Utc>,
    well: bool,
) -> sqlx::Result<bool> {
    let kind = Kind::HostUnreachable;
    let rule = rules.of(kind, None, None).1.active().copied();
    let value = Some(if well { 0.0 } else { 1.0 });
    let events =
        evaluate_readings(tx, interval, at, vec![RuleReading { subject: AlertSubject::Host(host), kind, rule, value }])
            .await?;
    match events.first() {
        Some(AlertEvent::Raised(_)) => store::raise_on_host(tx, host, at).await?,
        Some(AlertEvent::Resolved) => store::resolve_on_host(tx, host, at, rule.is_none()).await?,
        Some(AlertEvent::Became(_)) | None => return Ok(false),
    }
    Ok(true)
}

/// Judges readings by their tracks and stores the outcome, in a fixed number of statements.
async fn evaluate_readings(
    tx: &mut PgConnection,
    interval: Duration,
    at: DateTime<Utc>,
    readings: Vec<RuleReading>,
) -> sqlx::Result<Vec<AlertEvent>> {
    // Up to three sweeps may be missed before durations restart from zero.
    let gap = TimeDelta::from_std(interval * 3).unwrap_or(TimeDelta::MAX).max(TimeDelta::minutes(5));
    let mut subjects: Vec<AlertSubject> = readings.iter().map(|r| r.subject).collect();
    subjects.dedup();
    let names: HashMap<String, AlertSubject> = subjects.iter().map(|s| (s.to_string(), *s)).collect();
    let keys: Vec<String> = names.keys().cloned().collect();
    let known = store::tracks(tx, &keys).await?.into_iter();
    let mut tracks: HashMap<(AlertSubject, Kind), AlertTrack> =
        known.filter_map(|(name, kind, track)| Some(((*names.get(&name)?, kind.0), track))).collect();

    let mut changes = vec![];
    for RuleReading { subject, kind, rule, value } in readings {
        let before = tracks.remove(&(subject, kind));
        let open = before.as_ref().is_some_and(AlertTrack::is_firing);
        let (track, event) = match &rule {
            Some(rule) => step(before.clone(), rule, gap, at, value),
            None => (None, open.then_some(AlertEvent::Resolved)),
        };
        if track != before {
            let value = value.unwrap_or_default();
            changes.push((TrackChange { subject, kind, track, value, withdrawn: rule.is_none() }, event));
        }
    }
    let (mut raised, mut lasting, mut resolved) = (vec![], vec![], vec![]);
    for (change, event) in &changes {
        match event {
            Some(AlertEvent::Raised(level)) => raised.push((change, *level)),
            Some(AlertEvent::Became(level)) => lasting.push((change, Some(*level))),
            Some(AlertEvent::Resolved) => resolved.push(change),
            None if change.track.as_ref().is_some_and(AlertTrack::is_firing) => lasting.push((change, None)),
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
    let (changes, events): (Vec<TrackChange>, Vec<Option<AlertEvent>>) = changes.into_iter().unzip();
    store::store_tracks(tx, &changes).await?;
    Ok(events.into_iter().flatten().collect())
}

fn count(raised: &[(&TrackChange, Level)], resolved: &[&TrackChange]) {
    for (change, level) in raised {
        metrics::counter!("innkeeper_alerts_raised_total", "type" => change.kind.as_str(), "level" => level.as_str())
            .increment(1);
    }
    for change in resolved {
        metrics::counter!("innkeeper_alerts_resolved_total", "type" => change.kind.as_str()).increment(1);
    }
}
