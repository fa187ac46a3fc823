//! What every part of the service shares: settings, database, keys, events, shutdown. It knows no feature.

use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::db;
use crate::events::Events;
use crate::limits;
use crate::operations::Engine;
use crate::restores;
use crate::secrets::Sealer;
use crate::subjects::Subjects;

/// What every part of one running process shares.
#[derive(Debug)]
pub struct Core {
    /// The settings.
    pub config: Config,
    /// The database.
    pub db: PgPool,
    /// The same database, on connections that only claim operations, renew their leases and carry events.
    pub lease_db: PgPool,
    /// Seals secrets with the master key.
    pub sealer: Sealer,
    /// What happens in the database.
    pub events: Events,
    /// Rate limits.
    pub limits: limits::RateLimits,
    /// Limits how many long lists an account reads at a time.
    pub turns: limits::ListSlots,
    /// Enqueues operations, and has the settings of the engine that runs them.
    pub engine: Engine,
    /// What is remembered of the database, to notice that it was restored.
    pub heart: restores::HeartbeatState,
    /// Prometheus metrics of the process.
    pub metrics: PrometheusHandle,
    /// Cancelled when the process is to end: tasks stop taking new work.
    pub shutdown: CancellationToken,
    subjects: OnceLock<Subjects>,
    tasks: TaskTracker,
}

impl Core {
    /// Builds every part; nothing runs yet.
    pub fn new(config: Config) -> anyhow::Result<Arc<Self>> {
        // An error says that another part of the process chose a provider before, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Arc::new(Self {
            db: db::pool(&config)?,
            lease_db: db::lease_pool(&config)?,
            sealer: Sealer::new(&config.secret_key, &config.old_secret_keys.0)?,
            events: Events::default(),
            limits: limits::RateLimits::default(),
            turns: limits::ListSlots::default(),
            engine: Engine::new(&config)?,
            heart: restores::HeartbeatState::default(),
            metrics: metrics()?,
            shutdown: CancellationToken::new(),
            subjects: OnceLock::new(),
            tasks: TaskTracker::new(),
            config,
        }))
    }

    /// The kinds of subjects that the features bring; none before they are built.
    pub fn subjects(&self) -> &Subjects {
        static NONE: Subjects = Subjects::NONE;
        self.subjects.get().unwrap_or(&NONE)
    }

    /// Makes the features' kinds of subjects known, once.
    pub fn set_subjects(&self, subjects: Subjects) -> anyhow::Result<()> {
        self.subjects.set(subjects).map_err(|_| anyhow::anyhow!("the kinds of subjects were set before"))
    }

    /// Runs work that is not cut off: it goes on when its requester is gone, and shutdown waits for it.
    pub fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.tasks.spawn(work)
    }

    /// Begins the shutdown and waits for tracked work, but for no longer than `grace`; false where some is left.
    pub async fn shut_down(&self, grace: Duration) -> bool {
        self.shutdown.cancel();
        self.tasks.close();
        tokio::time::timeout(grace, self.tasks.wait()).await.is_ok()
    }
}

/// One recorder a process: tests run several services in one.
fn metrics() -> anyhow::Result<PrometheusHandle> {
    static HANDLE: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut handle = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*handle {
        return Ok(handle.clone());
    }
    let recorder = PrometheusBuilder::new().set_buckets(&[0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0])?.build_recorder();
    let new = recorder.handle();
    ::metrics::set_global_recorder(recorder).context("installing the metrics recorder")?;
    Ok(handle.insert(new).clone())
}
