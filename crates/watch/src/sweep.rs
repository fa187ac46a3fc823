//! Connects the sweeper to the database: it provides hosts and claims, and stores the samples.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use compute::hosts;
use compute::hosts::Hosts;
use compute::{servers, unknown_guests};
use hypervisor::Inventory;
use kernel::db;
use kernel::error::{Code, Error, Result};
use kernel::feature::{BackgroundTask, Feature};
use monitor::{SweepBackend, SweepClaim, SweepReport, Sweeper};

use crate::alerts::{self, Alerts};
use crate::history;
use crate::ids::HostId;
use crate::monitoring::{self, Monitoring};

/// Sweeps hosts and stores the results: samples, statuses, traffic, alerts.
#[derive(Debug)]
pub struct Sweeps {
    hosts: Arc<Hosts>,
    monitoring: Arc<Monitoring>,
    alerts: Arc<Alerts>,
}

impl Sweeps {
    /// Creates the feature for these hosts.
    pub fn new(hosts: &Arc<Hosts>, monitoring: &Arc<Monitoring>, alerts: &Arc<Alerts>) -> Arc<Self> {
        Arc::new(Self { hosts: Arc::clone(hosts), monitoring: Arc::clone(monitoring), alerts: Arc::clone(alerts) })
    }

    fn interval(&self) -> Duration {
        self.monitoring.settings.sweep_interval()
    }
}

impl Feature for Sweeps {
    fn name(&self) -> &'static str {
        "sweeps"
    }

    fn tasks(self: Arc<Self>) -> Vec<BackgroundTask> {
        vec![BackgroundTask::new("sweeps", async move {
            let shutdown = self.hosts.core.shutdown.clone();
            Sweeper::every(self.interval()).run(SweepStore::of(&self), shutdown).await;
        })]
    }

    fn describe(&self) {
        use metrics::{describe_counter, describe_gauge, describe_histogram};
        describe_histogram!("innkeeper_sweep_seconds", "Duration of successful sweeps.");
        describe_counter!("innkeeper_sweep_failures_total", "Failed sweeps.");
        describe_gauge!("innkeeper_guests", "Our guests seen by the last sweep.");
    }
}

/// Sweeps every host now, all at once; returns when everything is stored.
pub async fn sweep_now(sweeps: &Arc<Sweeps>) -> Result<()> {
    Sweeper::every(sweeps.interval()).once(SweepStore::of(sweeps)).await
}

struct SweepStore {
    sweeps: Arc<Sweeps>,
    /// Hosts whose last sweep failed, so that only the first failure and the recovery are logged.
    silent: Mutex<HashSet<HostId>>,
}

impl SweepStore {
    fn of(sweeps: &Arc<Sweeps>) -> Arc<Self> {
        Arc::new(Self { sweeps: Arc::clone(sweeps), silent: Mutex::default() })
    }

    /// Records whether a sweep succeeded; true if that changed.
    fn note(&self, host: HostId, well: bool) -> bool {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        if well { silent.remove(&host) } else { silent.insert(host) }
    }

    async fn keep(&self, host: HostId, report: &SweepReport) -> Result<()> {
        // First and on its own, since traffic is billed. If it fails, only the traffic alerts of this sweep are
        // skipped.
        let traffic = history::traffic::meter(&self.sweeps.hosts.core.db, host, report).await;
        let (used, traffic) = match traffic {
            Ok(used) => (used, Ok(())),
            Err(error) => (HashMap::new(), Err(error)),
        };
        hosts::store::record_sweep(&self.sweeps.hosts.core.db, host, &report.nodes).await?;
        let stored = match self.store(host, report, &used).await {
            // The clock is days ahead of history's upkeep, or behind it.
            Err(error) if lacks_room(&error) => {
                history::service::create_partitions_at(&self.sweeps.hosts.core, report.taken_at).await?;
                self.store(host, report, &used).await
            }
            stored => stored,
        };
        if let Err(error) = unknown_guests::service::update_from_sweep(&self.sweeps.hosts, host, report).await {
            tracing::warn!(%host, %error, "unknown guests could not be determined; the next sweep retries");
        }
        stored.and(traffic)
    }

    async fn store(&self, host: HostId, report: &SweepReport, used: &history::traffic::Metered) -> Result<()> {
        let mut tx = db::begin(&self.sweeps.hosts.core.db).await?;
        monitoring::insert_samples(&mut tx, host, report.taken_at, &report.samples).await?;
        let moved = servers::store::update_statuses(&mut tx, host, report).await?;
        if moved > 0 {
            tracing::info!(%host, moved, "server statuses changed by a sweep");
        }
        alerts::watch::evaluate_sweep(&mut tx, self.sweeps.interval(), host, report, used).await?;
        monitoring::notify_sampled(&mut tx, host).await?;
        tx.commit().await
    }
}

fn lacks_room(error: &Error) -> bool {
    error.cause.as_ref().and_then(|cause| cause.downcast_ref()).is_some_and(db::is_missing_partition)
}

#[async_trait]
impl SweepBackend for SweepStore {
    type Error = Error;

    async fn hosts(&self) -> Result<Vec<i64>> {
        match hosts::store::enabled_hosts(&self.sweeps.hosts.core.db).await {
            Ok(hosts) => Ok(hosts.into_iter().map(|h| h.0).collect()),
            Err(error) => {
                tracing::warn!(%error, "could not list hosts; continuing with the previous list");
                Err(error.into())
            }
        }
    }

    async fn driver(&self, host: i64) -> Result<Arc<dyn Inventory>> {
        match self.sweeps.hosts.driver(HostId(host)).await {
            Ok(driver) => Ok(driver),
            // Nothing was sent to the host yet. What failed (the database, a changed master key, settings that can't be
            // used, a bug) is our own problem, and no one must be told that their host is down.
            Err(error) => {
                if matches!(error.code, Code::DatabaseUnavailable | Code::OutcomeUnknown) {
                    tracing::warn!(host, %error, "could not sweep a host without the database; retrying");
                } else {
                    tracing::error!(host, %error, "could not sweep a host because of an internal error; retrying");
                }
                Err(error)
            }
        }
    }

    async fn claim(&self, host: i64, interval: Duration) -> Result<SweepClaim> {
        let claim = hosts::store::claim_sweep(&self.sweeps.hosts.core.db, HostId(host), interval).await;
        claim.map_err(|error| {
            tracing::warn!(host, %error, "could not claim a host for its sweep; retrying");
            error.into()
        })
    }

    async fn store(&self, host: i64, report: SweepReport) -> Result<()> {
        let labels = [("host", host.to_string())];
        metrics::histogram!("innkeeper_sweep_seconds", &labels).record(report.took.as_secs_f64());
        metrics::gauge!("innkeeper_guests", &labels).set(report.samples.len() as f64);
        if self.note(HostId(host), true) {
            tracing::info!(host, "host is reachable again");
        }
        self.keep(HostId(host), &report).await.inspect_err(|error| {
            tracing::warn!(host, %error, "could not store a sweep; retrying with the next one");
        })
    }

    async fn failed(&self, host: i64, error: hypervisor::Error) -> Result<()> {
        metrics::counter!("innkeeper_sweep_failures_total", &[("host", host.to_string())]).increment(1);
        if self.note(HostId(host), false) {
            tracing::warn!(host, %error, "sweep failed; servers keep their last known status");
        }
        hosts::store::record_failure(&self.sweeps.hosts.core.db, HostId(host), &error.to_string()).await?;
        alerts::watch::evaluate_failure(&self.sweeps.alerts, HostId(host)).await
    }
}
