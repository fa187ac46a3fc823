//! The composition root: builds the core and every feature, starts the tasks, and ends them in order.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use kernel::auth::Authenticator;
use kernel::config::Config;
use kernel::core::Core;
use kernel::events;
use kernel::feature::{BackgroundTask, Feature};
use kernel::http;
use kernel::http::patience::IoTimeouts;
use kernel::{janitor, limits};
use tokio::net::TcpListener;

use crate::features::Features;

/// One running process.
#[derive(Debug)]
pub struct Service {
    /// What every part shares.
    pub core: Arc<Core>,
    /// The parts.
    pub features: Features,
}

/// How long tasks may take to end after shutdown was asked for; what is not done by then is picked up by others.
const GRACE: Duration = Duration::from_secs(15);

/// How long a body that is late may be answered.
const LATE: Duration = Duration::from_secs(2);

impl Service {
    /// Builds every part; nothing runs yet.
    pub fn new(config: Config) -> anyhow::Result<Arc<Self>> {
        Self::with(config, |_| vec![])
    }

    /// The same with more features than the program has, for tests.
    pub fn with(config: Config, more: impl FnOnce(&Arc<Core>) -> Vec<Arc<dyn Feature>>) -> anyhow::Result<Arc<Self>> {
        let core = Core::new(config)?;
        let features = Features::new(&core, more(&core))?;
        http::describe();
        features.all().iter().for_each(|feature| feature.describe());
        Ok(Arc::new(Self { core, features }))
    }

    /// The whole service as one router. `more` are routes that are not in the document, for tests.
    pub fn router(&self, more: Router) -> Router {
        let accounts = Arc::clone(&self.features.accounts) as Arc<dyn Authenticator>;
        http::router(&self.core, accounts, self.features.all(), self.features.dialects(), more)
    }

    /// Serves on `listener` and works until `stop` resolves, then shuts down cleanly: it takes on no new work, brings
    /// every running operation to its next boundary and releases the rest to other processes.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let tasks = self.tasks();
        self.serve_with(tasks, listener, stop).await
    }

    /// The same with these tasks only; more can be started at any time.
    pub async fn serve_with(
        self: Arc<Self>,
        tasks: Vec<BackgroundTask>,
        listener: TcpListener,
        stop: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let core = &self.core;
        let router = self.router(Router::new());
        let figures = match core.config.metrics_listen {
            Some(listen) => Some(
                TcpListener::bind(listen)
                    .await
                    .with_context(|| format!("listening on {listen} for metrics (INNKEEPER_METRICS_LISTEN)"))?,
            ),
            None => None,
        };
        for task in tasks {
            core.spawn(task.work);
        }
        let limits = self.connection_limits();
        if let Some(listener) = figures {
            let (router, limits) = (http::figures(core, self.features.all()), limits.clone());
            core.spawn(http::server::serve(listener, router, limits, core.shutdown.clone()));
        }
        let mut server = tokio::spawn(http::server::serve(listener, router, limits, core.shutdown.clone()));
        let ended = tokio::select! {
            () = stop => None,
            ended = &mut server => Some(ended),
        };
        if !core.shut_down(GRACE).await {
            tracing::warn!("some tasks or requests did not end in time; leases run out and others take over");
        }
        // Sockets may stay open for ever: they get a moment.
        let ended = match ended {
            Some(ended) => Some(ended),
            None => tokio::time::timeout(Duration::from_secs(2), &mut server).await.ok(),
        };
        server.abort();
        // A connection that went dead in the middle of something is not waited for.
        let close = async { tokio::join!(core.db.close(), core.lease_db.close()) };
        if tokio::time::timeout(Duration::from_secs(2), close).await.is_err() {
            tracing::warn!("some database connections did not close in time");
        }
        match ended {
            Some(ended) => ended.context("the server task ended"),
            None => Ok(()),
        }
    }

    /// Everything that runs all the time beside the requests. Some can be had once only.
    pub fn tasks(&self) -> Vec<BackgroundTask> {
        let (listening, kept) = (Arc::clone(&self.core), Arc::clone(&self.core));
        let features = self.features.all();
        let channels: Vec<&str> = features.iter().flat_map(|feature| feature.topics()).collect();
        let all = features.to_vec();
        let mut tasks = vec![
            BackgroundTask::new("events", async move { events::listen(&listening, &channels).await }),
            BackgroundTask::new("upkeep", async move { janitor::run(&kept, &all).await }),
        ];
        tasks.extend(features.iter().flat_map(|feature| Arc::clone(feature).tasks()));
        tasks
    }

    fn connection_limits(&self) -> http::server::ConnectionLimits {
        let config = &self.core.config;
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        http::server::ConnectionLimits {
            connections: config.max_connections,
            places: limits::ConnectionSlots::new(config.max_connections_per_address(), config.trusted_proxies.clone()),
            head: seconds(config.head_seconds),
            // Above HTTP a body that is late is answered; this is for what has no answer.
            patience: IoTimeouts {
                body: seconds(config.request_seconds) + LATE,
                writing: seconds(config.write_seconds),
            },
        }
    }
}
