//! Deleting a snapshot.

use std::sync::Arc;

use async_trait::async_trait;
use kernel::operations::{self, Context, Fault, Outcome, Step, Workflow, WorkflowKind};
use serde::{Deserialize, Serialize};

use crate::hosts::Hosts;
use crate::servers::store::snapshot_room;
use crate::servers::subject::server_of;
use crate::servers::workflows::guest::{Guest, HostWork};

/// The workflow.
pub const KIND: WorkflowKind = WorkflowKind { name: "delete_snapshot", first_step: "delete_snapshot" };

/// Data kept between steps.
#[derive(Debug, Serialize, Deserialize)]
pub struct Data {
    name: String,
    delete: HostWork,
}

impl operations::Data for Data {}

impl Data {
    /// The initial data.
    pub fn new(name: String) -> Self {
        Self { name, delete: HostWork::default() }
    }
}

/// The steps.
pub fn workflow(hosts: &Arc<Hosts>) -> Workflow<Data> {
    let hosts = || Arc::clone(hosts);
    Workflow { kind: KIND, steps: vec![Box::new(DeleteSnapshot { hosts: hosts() })] }
}

/// Deletes the snapshot. If it is already gone, that is a success, so there is nothing to undo.
#[derive(Debug)]
struct DeleteSnapshot {
    hosts: Arc<Hosts>,
}

#[async_trait]
impl Step<Data> for DeleteSnapshot {
    fn name(&self) -> &'static str {
        "delete_snapshot"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        let guest = Guest::load(&self.hosts, ctx).await?;
        let (driver, at, name) = (&*guest.driver, &guest.at, &data.name);
        if let Some(wait) = data.delete.drive(ctx, driver, || driver.delete_snapshot(at, name)).await? {
            return Ok(wait);
        }
        let mut tx = ctx.begin().await?;
        snapshot_room::release(&mut tx, server_of(ctx)?, name).await?;
        Ok(Outcome::DoneIn(tx))
    }
}
