//! The composition root: builds every part, starts the tasks, and ends them in order.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accounts;
use crate::config::Config;
use crate::db;
use crate::events::{self, Events};
use crate::hosts::Drivers;
use crate::http::patience::Patience;
use crate::operations::{self, Engine};
use crate::secrets::Sealer;
use crate::{alerts, history, http, images, janitor, limits, mail, monitoring, realtime, restores};

/// Every part of one running process. Handlers and workers share it by reference.
#[derive(Debug)]
pub struct App {
    /// The settings.
    pub config: Config,
    /// The database.
    pub db: PgPool,
    /// The same database, on connections that only claim operations, keep their leases and tell of events.
    pub lease_db: PgPool,
    /// Seals secrets with the master key.
    pub sealer: Sealer,
    /// What happens in the database.
    pub events: Events,
    /// Who showed which token a moment ago.
    pub tokens: accounts::TokenCache,
    /// How many requests who has left.
    pub limits: limits::Limits,
    /// Who reads long lists.
    pub turns: limits::Turns,
    /// When the database last answered whoever asks for health.
    pub readiness: tokio::sync::Mutex<Option<Instant>>,
    /// Who is at the door of the live view.
    pub gate: realtime::Gate,
    /// Connections to hosts.
    pub drivers: Drivers,
    /// The operations engine: what workflows there are, and its settings.
    pub engine: Engine,
    /// What is remembered of the database, to notice that it was restored.
    pub heart: restores::Heart,
    /// Prometheus figures of the process.
    pub metrics: PrometheusHandle,
    /// Cancelled when the process is to end: tasks stop taking new work.
    pub shutdown: CancellationToken,
    tasks: TaskTracker,
}

/// What runs all the time beside the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Hears the database's notifications.
    Events,
    /// Moves the count on by which a restored database is noticed.
    Heartbeat,
    /// Works on operations.
    Operations,
    /// Sweeps hosts.
    Monitoring,
    /// Sums samples up.
    History,
    /// Looks which nodes have which images.
    Images,
    /// Watches what no sweep sees, and tells people.
    Alerts,
    /// Sends queued mails.
    Mail,
    /// Forgets what is over.
    Janitor,
}

impl Task {
    /// Every one, as a service has them.
    pub const ALL: [Self; 9] = [
        Self::Events,
        Self::Heartbeat,
        Self::Operations,
        Self::Monitoring,
        Self::History,
        Self::Images,
        Self::Alerts,
        Self::Mail,
        Self::Janitor,
    ];
}

/// How long tasks may take to end after shutdown was asked for; what is not done by then is picked up by others.
const GRACE: Duration = Duration::from_secs(15);

/// How long a body that is late may be answered.
const LATE: Duration = Duration::from_secs(2);

impl App {
    /// Builds every part; nothing runs yet.
    pub fn new(config: Config) -> anyhow::Result<Arc<Self>> {
        // An error says that another part of the process chose a provider before, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Arc::new(Self {
            db: db::pool(&config)?,
            lease_db: db::lease_pool(&config)?,
            sealer: Sealer::new(&config.secret_key, &config.old_secret_keys.0)?,
            events: Events::default(),
            tokens: accounts::TokenCache::new(config.token_life),
            limits: limits::Limits::default(),
            turns: limits::Turns::default(),
            readiness: tokio::sync::Mutex::default(),
            gate: realtime::Gate::default(),
            drivers: Drivers::default(),
            engine: Engine::new(&config, crate::workflows())?,
            heart: restores::Heart::default(),
            metrics: metrics()?,
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
            config,
        }))
    }

    /// Serves on `listener` and works until `stop` resolves, then ends cleanly: no new work, what is at hand is
    /// brought to the next boundary, the rest is handed over.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        self.serve_with(&Task::ALL, listener, stop).await
    }

    /// The same with these tasks only; more can be started at any time.
    pub async fn serve_with(
        self: Arc<Self>,
        tasks: &[Task],
        listener: TcpListener,
        stop: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let router = http::router(Arc::clone(&self));
        let figures = match self.config.metrics_listen {
            Some(listen) => Some(
                TcpListener::bind(listen)
                    .await
                    .with_context(|| format!("listening on {listen} for figures (INNKEEPER_METRICS_LISTEN)"))?,
            ),
            None => None,
        };
        for task in tasks {
            self.start(*task);
        }
        let shutdown = self.shutdown.clone();
        let limits = self.connection_limits();
        if let Some(listener) = figures {
            let (router, limits) = (http::figures(Arc::clone(&self)), limits.clone());
            self.tasks.spawn(http::server::serve(listener, router, limits, shutdown.clone()));
        }
        let mut server = tokio::spawn(http::server::serve(listener, router, limits, shutdown.clone()));
        let ended = tokio::select! {
            () = stop => None,
            ended = &mut server => Some(ended),
        };
        shutdown.cancel();
        self.tasks.close();
        if tokio::time::timeout(GRACE, self.tasks.wait()).await.is_err() {
            tracing::warn!("some tasks or requests did not end in time; leases run out and others take over");
        }
        // Sockets may stay open for ever: they get a moment.
        let ended = match ended {
            Some(ended) => Some(ended),
            None => tokio::time::timeout(Duration::from_secs(2), &mut server).await.ok(),
        };
        server.abort();
        // A connection that went dead in the middle of something is not waited for.
        let close = async { tokio::join!(self.db.close(), self.lease_db.close()) };
        if tokio::time::timeout(Duration::from_secs(2), close).await.is_err() {
            tracing::warn!("some database connections did not close in time");
        }
        match ended {
            Some(ended) => ended.context("the server task ended"),
            None => Ok(()),
        }
    }

    /// Work that is not cut off: it goes on when nobody waits for it any more, and a shutdown waits for it.
    pub(crate) fn go_on<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.tasks.spawn(work)
    }

    fn connection_limits(&self) -> http::server::Limits {
        let config = &self.config;
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        http::server::Limits {
            connections: config.max_connections,
            places: limits::Places::new(config.places_of_an_address(), config.trusted_proxies.clone()),
            head: seconds(config.head_seconds),
            // Above HTTP a body that is late is answered; this is for what has no answer.
            patience: Patience { body: seconds(config.request_seconds) + LATE, writing: seconds(config.write_seconds) },
        }
    }

    /// Starts a task, which ends with the process.
    pub fn start(self: &Arc<Self>, task: Task) {
        let app = Arc::clone(self);
        self.tasks.spawn(async move {
            match task {
                Task::Events => events::listen(&app).await,
                Task::Heartbeat => restores::service::keep(&app).await,
                Task::Operations => operations::work(&app).await,
                Task::Monitoring => monitoring::watch(&app).await,
                Task::History => history::keep(&app).await,
                Task::Images => images::watch(&app).await,
                Task::Alerts => alerts::run(&app).await,
                Task::Mail => mail::send_queued(&app).await,
                Task::Janitor => janitor::run(&app).await,
            }
        });
    }
}

/// One recorder a process: tests run several Apps in one.
fn metrics() -> anyhow::Result<PrometheusHandle> {
    static HANDLE: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut handle = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*handle {
        return Ok(handle.clone());
    }
    let recorder = PrometheusBuilder::new().set_buckets(&[0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0])?.build_recorder();
    let new = recorder.handle();
    ::metrics::set_global_recorder(recorder).context("installing the metrics recorder")?;
    http::describe();
    Ok(handle.insert(new).clone())
}

/// The router's part of the composition: Socket.IO beside HTTP on one port.
pub(crate) fn socket_layer(app: &Arc<App>) -> socketioxide::layer::SocketIoLayer {
    realtime::layer(Arc::clone(app))
}
