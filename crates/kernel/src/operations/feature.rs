//! Operations as a part of the service: the workflows that this process knows, its workers, its routes.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use utoipa_axum::router::OpenApiRouter;

use super::store::KnownWorkflows;
use super::workflow::AnyWorkflow;
use super::{OPERATION_CHANGED, OPERATION_DUE, routes, service, worker};
use crate::auth::AccessRow;
use crate::core::Core;
use crate::error::Result;
use crate::feature::{BackgroundTask, Feature};
use crate::keyring::SealCounts;

/// What works on operations, and shows them.
#[derive(Debug)]
pub struct Operations {
    pub(super) core: Arc<Core>,
    workflows: HashMap<&'static str, Box<dyn AnyWorkflow>>,
}

impl Operations {
    /// For these workflows.
    pub fn new(core: &Arc<Core>, workflows: Vec<Box<dyn AnyWorkflow>>) -> anyhow::Result<Arc<Self>> {
        let mut known = HashMap::new();
        for workflow in workflows {
            let (kind, steps) = (workflow.kind(), workflow.steps());
            anyhow::ensure!(
                steps.first() == Some(&kind.first_step),
                "the workflow {} begins with {:?}, not with {}",
                kind.name,
                steps.first(),
                kind.first_step
            );
            anyhow::ensure!(known.insert(kind.name, workflow).is_none(), "there are two workflows {}", kind.name);
        }
        Ok(Arc::new(Self { core: Arc::clone(core), workflows: known }))
    }

    /// The workflow of a kind.
    pub fn workflow(&self, kind: &str) -> Option<&dyn AnyWorkflow> {
        self.workflows.get(kind).map(AsRef::as_ref)
    }

    /// What this process can work on.
    pub(super) fn known(&self) -> KnownWorkflows {
        KnownWorkflows {
            kinds: self.workflows.keys().map(ToString::to_string).collect(),
            versions: self.workflows.values().map(|workflow| workflow.version()).collect(),
        }
    }
}

#[async_trait]
impl Feature for Operations {
    fn name(&self) -> &'static str {
        "operations"
    }

    fn routes(self: Arc<Self>) -> OpenApiRouter {
        routes::routes().with_state(self)
    }

    fn access(&self) -> &'static [AccessRow] {
        routes::ACCESS
    }

    fn tasks(self: Arc<Self>) -> Vec<BackgroundTask> {
        vec![BackgroundTask::new("operations", async move { worker::work(&self).await })]
    }

    fn topics(&self) -> Vec<&'static str> {
        vec![OPERATION_DUE.channel, OPERATION_CHANGED.channel]
    }

    async fn upkeep(&self) -> Result<()> {
        let purged = service::purge(&self.core).await;
        service::mark_unknown_stuck(self).await?;
        purged
    }

    fn describe(&self) {
        metrics::describe_counter!("innkeeper_operations_total", "Operations that ended or became stuck.");
    }

    async fn reseal(&self, change: bool) -> Result<Vec<(&'static str, SealCounts)>> {
        Ok(vec![("passwords in operations", service::reseal(self, change).await?)])
    }
}
