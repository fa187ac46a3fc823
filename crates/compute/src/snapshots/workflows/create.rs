//! Creating a snapshot.

use std::sync::Arc;

use async_trait::async_trait;
use kernel::operations::{self, Context, Fault, Outcome, Step, Workflow, WorkflowKind};
use serde::{Deserialize, Serialize};

use super::take::SnapshotProgress;
use crate::servers::Servers;

/// The workflow.
pub const KIND: WorkflowKind = WorkflowKind { name: "snapshot", first_step: "take_snapshot" };

/// Data kept between steps.
#[derive(Debug, Serialize, Deserialize)]
pub struct Data {
    take: SnapshotProgress,
}

impl operations::Data for Data {}

impl Data {
    /// The initial data, with the server's snapshot limit.
    pub fn new(name: String, description: String, limit: i32) -> Self {
        Self { take: SnapshotProgress::new(name, description, limit) }
    }
}

/// The steps.
pub fn workflow(servers: &Arc<Servers>) -> Workflow<Data> {
    Workflow { kind: KIND, steps: vec![Box::new(TakeRequestedSnapshot { servers: Arc::clone(servers) })] }
}

/// Creates the snapshot.
#[derive(Debug)]
struct TakeRequestedSnapshot {
    servers: Arc<Servers>,
}

#[async_trait]
impl Step<Data> for TakeRequestedSnapshot {
    fn name(&self) -> &'static str {
        "take_snapshot"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        data.take.advance(&self.servers, ctx).await
    }

    async fn undo(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        data.take.delete_again(&self.servers.hosts, ctx).await
    }
}
