//! The sweep loops: one per host, so that a dead host delays no other.

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

use crate::sample::{PreviousSample, Sample};

/// Whether this process may sweep a host now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SweepClaim {
    /// Yes, and no other process may for one interval. The time is the claim's, by the shared clock.
    Ours(DateTime<Utc>),
    /// No: another process does, and the host is due again after this time.
    Due(Duration),
}

/// Result of one sweep of a host.
#[derive(Debug, Clone, PartialEq)]
pub struct SweepReport {
    /// When this process claimed the host, by the shared clock: later changes may not be in the report.
    pub claimed_at: DateTime<Utc>,
    /// The same, minus the age that the host's data may have: earlier changes are in the report.
    pub known_at: DateTime<Utc>,
    /// When the host was asked.
    pub taken_at: DateTime<Utc>,
    /// How long the sweep took.
    pub took: Duration,
    /// The host's nodes.
    pub nodes: Vec<Node>,
    /// Samples of its guests that carry our marker.
    pub samples: Vec<Sample>,
    /// Where each of them is, in the same order, and when it was created, if the host reports that.
    pub guests: Vec<(GuestRef, Option<DateTime<Utc>>)>,
    /// Where the absence of a guest is evidence.
    pub coverage: Coverage,
}

/// The sweeper's environment: supplies hosts and takes reports.
#[async_trait]
pub trait SweepBackend: Send + Sync + 'static {
    /// Errors on our side; the implementation logs them.
    type Error: std::fmt::Display + Send;

    /// The ids of all hosts to watch.
    async fn hosts(&self) -> Result<Vec<i64>, Self::Error>;

    /// The driver for a host. Requested before each sweep so that changed settings take effect. An error says nothing
    /// about the host, to which nothing was sent, and nothing is recorded for it.
    async fn driver(&self, host: i64) -> Result<Arc<dyn Inventory>, Self::Error>;

    /// Claims a host for one interval, so that several processes share the work and don't duplicate it.
    async fn claim(&self, host: i64, interval: Duration) -> Result<SweepClaim, Self::Error>;

    /// Stores a report.
    async fn store(&self, host: i64, report: SweepReport) -> Result<(), Self::Error>;

    /// Stores why a sweep failed.
    async fn failed(&self, host: i64, error: Error) -> Result<(), Self::Error>;
}

/// Sweeps every host of a fleet at a fixed rate.
#[derive(Debug, Clone)]
pub struct Sweeper {
    /// Time between the starts of two sweeps of a host.
    pub interval: Duration,
    /// Time limit for one sweep, connecting included.
    pub timeout: Duration,
    /// How often to check for new and removed hosts.
    pub look_every: Duration,
}

/// Stored counters older than this say nothing about now.
const STALE: TimeDelta = TimeDelta::minutes(10);

impl Sweeper {
    /// A sweeper with a timeout of 20 s per host, or the interval if that is shorter.
    pub fn every(interval: Duration) -> Self {
        Self {
            interval,
            timeout: interval.min(Duration::from_secs(20)),
            look_every: interval.min(Duration::from_secs(5)),
        }
    }

    /// Sweeps all hosts that no other process is sweeping, all at once and whether due or not; returns when everything
    /// is stored.
    ///
    /// # Errors
    /// If the hosts could not be listed.
    pub async fn once<F: SweepBackend>(&self, fleet: Arc<F>) -> Result<(), F::Error> {
        let mut looks = JoinSet::new();
        for host in fleet.hosts().await? {
            let mut watch = HostLoop::new(self.clone(), Arc::clone(&fleet), host, CancellationToken::new());
            looks.spawn(async move {
                if let Ok(SweepClaim::Ours(at)) = watch.fleet.claim(host, Duration::ZERO).await {
                    watch.sweep(at).await;
                }
            });
        }
        while looks.join_next().await.is_some() {}
        Ok(())
    }

    /// Sweeps until `stop` is cancelled. A report in progress is still stored.
    pub async fn run<F: SweepBackend>(&self, fleet: Arc<F>, stop: CancellationToken) {
        let mut watched: HashMap<i64, HostLoopHandle> = HashMap::new();
        let mut loops = JoinSet::new();
        let mut look = tokio::time::interval(self.look_every);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = loops.join_next() => {
                    // A bug ended a loop that wasn't stopped. It is dropped here and restarted with the next check.
                    if let Err(error) = ended {
                        tracing::error!(%error, "the sweep loop of a host crashed; restarting it");
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
                    let watch = HostLoop::new(self.clone(), Arc::clone(&fleet), host, stop.clone());
                    HostLoopHandle { stop, task: loops.spawn(watch.run()).id() }
                });
            }
        }
        while loops.join_next().await.is_some() {}
    }
}

/// A host's loop, seen from outside.
struct HostLoopHandle {
    stop: CancellationToken,
    task: tokio::task::Id,
}

/// One host's loop.
struct HostLoop<F> {
    sweeper: Sweeper,
    fleet: Arc<F>,
    host: i64,
    stop: CancellationToken,
    previous: HashMap<Uuid, PreviousSample>,
}

impl<F: SweepBackend> HostLoop<F> {
    fn new(sweeper: Sweeper, fleet: Arc<F>, host: i64, stop: CancellationToken) -> Self {
        Self { sweeper, fleet, host, stop, previous: HashMap::new() }
    }

    async fn run(mut self) {
        let interval = self.sweeper.interval;
        // Spread the hosts over time instead of sweeping all at once.
        let mut next = Instant::now() + jitter(interval.min(Duration::from_secs(2)));
        while self.until(tokio::time::sleep_until(next)).await.is_some() {
            let begun = Instant::now();
            next = match self.fleet.claim(self.host, interval).await {
                Ok(SweepClaim::Ours(at)) => {
                    self.sweep(at).await;
                    // Keep a fixed rate. Sweeps missed because one took too long are skipped.
                    (begun + interval).max(Instant::now())
                }
                // Shortly after it is due, with jitter so that processes don't all try at once.
                Ok(SweepClaim::Due(after)) => begun + after.min(interval) + jitter(interval / 20),
                Err(_) => begun + interval / 4 + jitter(interval / 4),
            };
        }
    }

    async fn sweep(&mut self, claimed_at: DateTime<Utc>) {
        let begun = Instant::now();
        let (fleet, host, timeout) = (Arc::clone(&self.fleet), self.host, self.sweeper.timeout);
        // This does not count against the host's timeout: the time we need to find out where it is says nothing about
        // it.
        let Some(Ok(driver)) = self.until(fleet.driver(host)).await else { return };
        let look = tokio::time::timeout(timeout, driver.sweep());
        let Some(result) = self.until(look).await else { return };
        let silent = || Err(Error::Unreachable(format!("no answer within {} s", timeout.as_secs_f64())));
        let result = result.unwrap_or_else(|_| silent());
        // If storing fails, the fleet logs it; the next sweep tries again.
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
                let report = SweepReport {
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
            self.previous.insert(guest.marker, PreviousSample::of(guest, sweep.taken_at));
        }
        self.previous.retain(|_, p| sweep.taken_at - p.taken_at < STALE);
    }

    /// The future's output, or `None` when the loop is to end.
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
