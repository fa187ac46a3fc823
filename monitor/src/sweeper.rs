//! The loops: one for each host, so that a dead one delays nobody.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use hypervisor::{Coverage, Error, GuestPower, GuestRef, Inventory, Node};
use rand::RngExt;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::sample::{Previous, Sample};

/// Whether this process may sweep a host now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Yes, and nobody else for one interval. The time is the claim's, by the clock that everybody shares.
    Ours(DateTime<Utc>),
    /// No: another process does, and it is due again after this time.
    Due(Duration),
}

/// What one sweep of a host found.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// When this process claimed the host, by the shared clock: what happened since may not be in the report.
    pub claimed_at: DateTime<Utc>,
    /// The same, less what the host's own figures may be old: what happened before this is in the report.
    pub known_at: DateTime<Utc>,
    /// When the host was asked.
    pub taken_at: DateTime<Utc>,
    /// How long it took.
    pub took: Duration,
    /// The host's machines.
    pub nodes: Vec<Node>,
    /// Its guests with our marker.
    pub samples: Vec<Sample>,
    /// Where each of them is, in the same order, and when it was made, where the host tells.
    pub guests: Vec<(GuestRef, Option<DateTime<Utc>>)>,
    /// Where a guest that is missing means something.
    pub coverage: Coverage,
}

/// The sweeper's surroundings: where hosts come from and where reports go.
#[async_trait]
pub trait Fleet: Send + Sync + 'static {
    /// What goes wrong on our side; it is logged by whoever makes it.
    type Error: std::fmt::Display + Send;

    /// Every host to watch, by its id.
    async fn hosts(&self) -> Result<Vec<i64>, Self::Error>;

    /// The connection to a host, or why there can be none with its settings. Asked for before each sweep, so that changed
    /// settings are used. Trouble on our side says nothing of the host, and nothing is noted of it.
    async fn driver(&self, host: i64) -> Result<hypervisor::Result<Arc<dyn Inventory>>, Self::Error>;

    /// Takes a host for one interval, so that several processes share the work and don't double it.
    async fn claim(&self, host: i64, interval: Duration) -> Result<Claim, Self::Error>;

    /// Keeps what was found.
    async fn store(&self, host: i64, report: Report) -> Result<(), Self::Error>;

    /// Keeps why nothing was found.
    async fn failed(&self, host: i64, error: Error) -> Result<(), Self::Error>;
}

/// Sweeps every host of a fleet at a fixed rate.
#[derive(Debug, Clone)]
pub struct Sweeper {
    /// From the start of one sweep of a host to the start of the next.
    pub interval: Duration,
    /// How long one sweep may take, connecting included.
    pub timeout: Duration,
    /// How often to look for new and removed hosts.
    pub look_every: Duration,
}

/// Remembered counters older than this say nothing about now.
const STALE: TimeDelta = TimeDelta::minutes(10);

impl Sweeper {
    /// A sweeper that gives each host at most 20 s, and never more than the interval.
    pub fn every(interval: Duration) -> Self {
        Self {
            interval,
            timeout: interval.min(Duration::from_secs(20)),
            look_every: interval.min(Duration::from_secs(5)),
        }
    }

    /// Sweeps every host that nobody else is at, all at the same time, whether it is due or not; returns when all is
    /// stored.
    ///
    /// # Errors
    /// Where the hosts could not be listed.
    pub async fn once<F: Fleet>(&self, fleet: Arc<F>) -> Result<(), F::Error> {
        let mut looks = JoinSet::new();
        for host in fleet.hosts().await? {
            let mut watch = Watch::new(self.clone(), Arc::clone(&fleet), host, CancellationToken::new());
            looks.spawn(async move {
                if let Ok(Claim::Ours(at)) = watch.fleet.claim(host, Duration::ZERO).await {
                    watch.sweep(at).await;
                }
            });
        }
        while looks.join_next().await.is_some() {}
        Ok(())
    }

    /// Sweeps until `stop` is cancelled. A report that is at hand then is still stored.
    pub async fn run<F: Fleet>(&self, fleet: Arc<F>, stop: CancellationToken) {
        let mut watched: HashMap<i64, Watched> = HashMap::new();
        let mut loops = JoinSet::new();
        let mut look = tokio::time::interval(self.look_every);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = loops.join_next() => {
                    // A bug ended a loop that nobody stopped: forgotten here, it begins anew with the next look.
                    if let Err(error) = ended {
                        tracing::error!(%error, "sweeping a host ended badly; beginning anew");
                        watched.retain(|_, w| w.task != error.id());
                    }
                    continue;
                }
                _ = look.tick() => {}
            }
            let Ok(hosts) = fleet.hosts().await else { continue };
            watched.retain(|id, w| {
                let keep = hosts.contains(id);
                if !keep {
                    w.stop.cancel();
                }
                keep
            });
            for host in hosts {
                watched.entry(host).or_insert_with(|| {
                    let stop = stop.child_token();
                    let watch = Watch::new(self.clone(), Arc::clone(&fleet), host, stop.clone());
                    Watched { stop, task: loops.spawn(watch.run()).id() }
                });
            }
        }
        while loops.join_next().await.is_some() {}
    }
}

/// A host's loop from outside.
struct Watched {
    stop: CancellationToken,
    task: tokio::task::Id,
}

/// One host's loop.
struct Watch<F> {
    sweeper: Sweeper,
    fleet: Arc<F>,
    host: i64,
    stop: CancellationToken,
    previous: HashMap<Uuid, Previous>,
}

impl<F: Fleet> Watch<F> {
    fn new(sweeper: Sweeper, fleet: Arc<F>, host: i64, stop: CancellationToken) -> Self {
        Self { sweeper, fleet, host, stop, previous: HashMap::new() }
    }

    async fn run(mut self) {
        let interval = self.sweeper.interval;
        // Hosts are looked at spread over time, not all at once.
        let mut next = Instant::now() + jitter(interval.min(Duration::from_secs(2)));
        while self.until(tokio::time::sleep_until(next)).await.is_some() {
            let begun = Instant::now();
            next = match self.fleet.claim(self.host, interval).await {
                Ok(Claim::Ours(at)) => {
                    self.sweep(at).await;
                    // At a fixed rate; what was missed while a sweep took too long is not made up for.
                    (begun + interval).max(Instant::now())
                }
                // Shortly after it is due, and not everybody in the same moment.
                Ok(Claim::Due(after)) => begun + after.min(interval) + jitter(interval / 20),
                Err(_) => begun + interval / 4 + jitter(interval / 4),
            };
        }
    }

    async fn sweep(&mut self, claimed_at: DateTime<Utc>) {
        let begun = Instant::now();
        let (fleet, host, timeout) = (Arc::clone(&self.fleet), self.host, self.sweeper.timeout);
        // Not within the time that the host has: how long we take to know where it is says nothing of it.
        let Some(Ok(driver)) = self.until(fleet.driver(host)).await else { return };
        let look = tokio::time::timeout(timeout, async { driver?.sweep().await });
        let Some(result) = self.until(look).await else { return };
        let silent = || Err(Error::Unreachable(format!("it did not answer within {} s", timeout.as_secs_f64())));
        let result = result.unwrap_or_else(|_| silent());
        // A failure to store is the fleet's to log; the next sweep tries again.
        let _ = match result {
            Ok(sweep) => {
                let samples = sweep
                    .guests
                    .iter()
                    .map(|g| Sample::new(g, sweep.taken_at, self.previous.get(&g.marker).copied()))
                    .collect();
                let guests = sweep.guests.iter().map(|g| {
                    let at = GuestRef { marker: g.marker, vmid: g.vmid, kind: g.kind, node: g.node.clone() };
                    (at, g.created_at)
                });
                let guests = guests.collect();
                self.remember(&sweep);
                let report = Report {
                    claimed_at,
                    known_at: claimed_at - sweep.lag,
                    taken_at: sweep.taken_at,
                    took: begun.elapsed(),
                    nodes: sweep.nodes,
                    samples,
                    guests,
                    coverage: sweep.coverage,
                };
                self.fleet.store(self.host, report).await
            }
            Err(error) => self.fleet.failed(self.host, error).await,
        };
    }

    fn remember(&mut self, sweep: &hypervisor::Sweep) {
        for guest in sweep.guests.iter().filter(|guest| guest.power != GuestPower::Unknown) {
            self.previous.insert(guest.marker, Previous::of(guest, sweep.taken_at));
        }
        self.previous.retain(|_, p| sweep.taken_at - p.taken_at < STALE);
    }

    /// The future's outcome, or `None` once the loop is to end.
    async fn until<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            () = self.stop.cancelled() => None,
            value = future => Some(value),
        }
    }
}

fn jitter(most: Duration) -> Duration {
    most.mul_f64(rand::rng().random::<f64>())
}

#[cfg(test)]
mod tests;
