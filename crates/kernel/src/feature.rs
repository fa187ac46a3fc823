//! How a feature plugs itself into the kernel.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::http::request::Parts;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;

use crate::auth::AccessRow;
use crate::error::Result;
use crate::keyring::SealCounts;
use crate::operations::AnyWorkflow;
use crate::settings::Variables;
use crate::subjects::SubjectKind;

/// Work that goes on beside the requests for as long as the process runs.
pub struct BackgroundTask {
    /// Its name in logs; tests start tasks by it.
    pub name: &'static str,
    /// The work, which returns at shutdown.
    pub work: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl BackgroundTask {
    /// A task that does this.
    pub fn new(name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { name, work: Box::pin(work) }
    }
}

impl Debug for BackgroundTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Everything that a feature adds to the service. What it does not need keeps its default.
#[async_trait]
pub trait Feature: Debug + Send + Sync + 'static {
    /// Its name, in logs and errors.
    fn name(&self) -> &'static str;

    /// The environment variables of its settings.
    fn settings(&self) -> Variables {
        Variables::new()
    }

    /// Its routes below `/api`, with their documentation and with its own state.
    fn routes(self: Arc<Self>) -> OpenApiRouter {
        OpenApiRouter::new()
    }

    /// What browsers and orchestrators open that is not below `/api`.
    fn pages(self: Arc<Self>) -> OpenApiRouter {
        OpenApiRouter::new()
    }

    /// What it shows at an address outside of all APIs that no route has. Nothing here is in the document.
    fn fallback(&self, _request: &Parts) -> Option<Response> {
        None
    }

    /// Whom each of its routes and pages admits. Tests hold every route to its row.
    fn access(&self) -> &'static [AccessRow] {
        &[]
    }

    /// Wraps the whole router: for protocols that live beside HTTP on the same port.
    fn wrap(self: Arc<Self>, router: Router) -> Router {
        router
    }

    /// The kinds of operations that it brings.
    fn workflows(self: Arc<Self>) -> Vec<Box<dyn AnyWorkflow>> {
        vec![]
    }

    /// What runs all the time. Tasks are tracked: shutdown waits for them.
    fn tasks(self: Arc<Self>) -> Vec<BackgroundTask> {
        vec![]
    }

    /// The kinds of things of its own that operations, scopes, alerts and sockets can be about.
    fn subjects(self: Arc<Self>) -> Vec<Arc<dyn SubjectKind>> {
        vec![]
    }

    /// The channels of its topics, on which the database notifies every process.
    fn topics(&self) -> Vec<&'static str> {
        vec![]
    }

    /// Deletes what has ended long ago. Called every ten minutes, in every process.
    async fn upkeep(&self) -> Result<()> {
        Ok(())
    }

    /// Describes its metrics to the recorder. Every metric has a help text.
    fn describe(&self) {}

    /// Its part of `/metrics` that is read from the database, in Prometheus' text format.
    async fn figures(&self) -> Result<String> {
        Ok(String::new())
    }

    /// Seals its secrets that an old key sealed with the master key; without `change` it only counts. Each kind of
    /// secret has a name for people.
    async fn reseal(&self, _change: bool) -> Result<Vec<(&'static str, SealCounts)>> {
        Ok(vec![])
    }
}
