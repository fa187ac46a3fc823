//! The fleet as the sweeper sees it: hosts and claims from the database, samples into it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hypervisor::Inventory;
use monitor::{Claim, Fleet, Report, Sweeper};

use super::store;
use crate::alerts;
use crate::app::App;
use crate::db;
use crate::error::{Code, Error, Result};
use crate::ids::HostId;
use crate::{history, hosts, unknown_guests};

/// Sweeps every host until shutdown.
pub async fn watch(app: &Arc<App>) {
    Sweeper::every(app.config.sweep_interval()).run(Hosts::of(app), app.shutdown.clone()).await;
}

/// Sweeps every host now, all at the same time; returns when all is stored.
pub async fn look(app: &Arc<App>) -> Result<()> {
    Sweeper::every(app.config.sweep_interval()).once(Hosts::of(app)).await
}

struct Hosts {
    app: Arc<App>,
    /// Hosts whose last sweep failed: the log tells of the first failure and of the recovery, not of each try.
    silent: Mutex<HashSet<HostId>>,
}

impl Hosts {
    fn of(app: &Arc<App>) -> Arc<Self> {
        Arc::new(Self { app: Arc::clone(app), silent: Mutex::default() })
    }

    /// Notes how a host does; true when that is news.
    fn note(&self, host: HostId, well: bool) -> bool {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        if well { silent.remove(&host) } else { silent.insert(host) }
    }

    async fn keep(&self, host: HostId, report: &Report) -> Result<()> {
        // First and by itself, since it is charged for; without it, only the alerts about it go unjudged this once.
        let traffic = history::traffic::meter(&self.app.db, host, report).await;
        let (used, traffic) = match traffic {
            Ok(used) => (used, Ok(())),
            Err(error) => (HashMap::new(), Err(error)),
        };
        hosts::store::record_sweep(&self.app.db, host, &report.nodes).await?;
        let stored = match self.store(host, report, &used).await {
            // The clock is days ahead of history's upkeep, or behind.
            Err(error) if lacks_room(&error) => {
                history::service::make_room_at(&self.app, report.taken_at).await?;
                self.store(host, report, &used).await
            }
            stored => stored,
        };
        if let Err(error) = unknown_guests::service::swept(&self.app, host, report).await {
            tracing::warn!(%host, %error, "which guests no server goes with could not be told; the next sweep tries again");
        }
        stored.and(traffic)
    }

    async fn store(&self, host: HostId, report: &Report, used: &history::traffic::Metered) -> Result<()> {
        let mut tx = db::begin(&self.app.db).await?;
        store::insert_samples(&mut tx, host, report.taken_at, &report.samples).await?;
        let moved = store::settle_statuses(&mut tx, host, report).await?;
        if moved > 0 {
            tracing::info!(%host, moved, "servers were found in another state than ours");
        }
        alerts::watch::swept(&mut tx, self.app.config.sweep_interval(), host, report, used).await?;
        store::notify_sampled(&mut tx, host).await?;
        tx.commit().await
    }
}

fn lacks_room(error: &Error) -> bool {
    error.cause.as_ref().and_then(|cause| cause.downcast_ref()).is_some_and(db::is_without_room)
}

#[async_trait]
impl Fleet for Hosts {
    type Error = Error;

    async fn hosts(&self) -> Result<Vec<i64>> {
        match hosts::store::enabled_hosts(&self.app.db).await {
            Ok(hosts) => Ok(hosts.into_iter().map(|h| h.0).collect()),
            Err(error) => {
                tracing::warn!(%error, "the list of hosts could not be read; going on with the last one");
                Err(error.into())
            }
        }
    }

    async fn driver(&self, host: i64) -> Result<hypervisor::Result<Arc<dyn Inventory>>> {
        match hosts::service::driver(&self.app, HostId(host)).await {
            Ok(driver) => Ok(Ok(driver)),
            // Only what a driver says is about the host. All else (the database, a master key that changed, a bug) is
            // our own trouble: nobody is to be told that their host is down.
            Err(error) => {
                let cause = error.cause.as_ref().and_then(|cause| cause.downcast_ref::<hypervisor::Error>());
                if let Some(of_the_host) = cause {
                    return Ok(Err(of_the_host.clone()));
                }
                if matches!(error.code, Code::DatabaseUnavailable | Code::OutcomeUnknown) {
                    tracing::warn!(host, %error, "a host could not be swept without the database; trying again");
                } else {
                    tracing::error!(host, %error, "a host could not be swept for a reason of our own; trying again");
                }
                Err(error)
            }
        }
    }

    async fn claim(&self, host: i64, interval: Duration) -> Result<Claim> {
        let claim = store::claim(&self.app.db, HostId(host), interval).await;
        claim.map_err(|error| {
            tracing::warn!(host, %error, "a host could not be claimed for its sweep; trying again");
            error.into()
        })
    }

    async fn store(&self, host: i64, report: Report) -> Result<()> {
        let labels = [("host", host.to_string())];
        metrics::histogram!("innkeeper_sweep_seconds", &labels).record(report.took.as_secs_f64());
        metrics::gauge!("innkeeper_guests", &labels).set(report.samples.len() as f64);
        if self.note(HostId(host), true) {
            tracing::info!(host, "the host answers again");
        }
        self.keep(HostId(host), &report).await.inspect_err(|error| {
            tracing::warn!(host, %error, "a sweep could not be stored; the next one will be");
        })
    }

    async fn failed(&self, host: i64, error: hypervisor::Error) -> Result<()> {
        metrics::counter!("innkeeper_sweep_failures_total", &[("host", host.to_string())]).increment(1);
        if self.note(HostId(host), false) {
            tracing::warn!(host, %error, "the host could not be swept; its servers keep the state they had");
        }
        hosts::store::record_failure(&self.app.db, HostId(host), &error.to_string()).await?;
        alerts::watch::failed(&self.app, HostId(host)).await
    }
}
