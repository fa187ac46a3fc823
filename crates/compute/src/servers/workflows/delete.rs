//! Deleting a server: guest, disks and snapshots are removed, then addresses and capacity are released.

use std::sync::Arc;

use async_trait::async_trait;
use kernel::operations::{self, Context, Fault, Outcome, Step, Workflow, WorkflowKind};
use serde::{Deserialize, Serialize};

use super::guest::{self, Guest, GuestRemoval};
use crate::addresses;
use crate::hosts::Hosts;
use crate::servers::model::ServerState;
use crate::servers::store;
use crate::servers::subject::server_of;

/// The workflow.
pub const KIND: WorkflowKind = WorkflowKind { name: "delete", first_step: "delete_guest" };

/// Data kept between steps.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Data {
    removal: GuestRemoval,
    /// Whether the server was supposed to be running before.
    #[serde(default)]
    up: Option<bool>,
}

impl operations::Data for Data {}

impl Data {
    /// The initial data.
    pub fn new(up: bool) -> Self {
        Self { removal: GuestRemoval::default(), up: Some(up) }
    }
}

/// The steps.
pub fn workflow(hosts: &Arc<Hosts>) -> Workflow<Data> {
    let hosts = || Arc::clone(hosts);
    Workflow {
        kind: KIND,
        steps: vec![Box::new(DeleteGuest { hosts: hosts() }), Box::new(ReleaseServer { hosts: hosts() })],
    }
}

/// Removes the guest. If that fails, what is there stays as it was before, and the server can be deleted again.
#[derive(Debug)]
struct DeleteGuest {
    hosts: Arc<Hosts>,
}

#[async_trait]
impl Step<Data> for DeleteGuest {
    fn name(&self) -> &'static str {
        "delete_guest"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        let Some(guest) = Guest::left(&self.hosts, ctx).await? else { return Ok(Outcome::Done) };
        if guest.server.status != ServerState::Deleting {
            // It was queued behind another operation.
            let mut tx = ctx.begin().await?;
            store::set_status(&mut tx, server_of(ctx)?, ServerState::Deleting).await?;
            tx.commit().await?;
        }
        Ok(data.removal.advance(ctx, &guest).await?.unwrap_or(Outcome::Done))
    }

    async fn undo(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        let guest = Guest::load(&self.hosts, ctx).await?;
        match data.removal.restore(ctx, &guest).await? {
            Some(wait) => Ok(wait),
            None => guest::store_observed_status_as(&self.hosts, ctx, data.up).await,
        }
    }
}

/// Releases what the server held, now that nothing can use it.
#[derive(Debug)]
struct ReleaseServer {
    hosts: Arc<Hosts>,
}

#[async_trait]
impl Step<Data> for ReleaseServer {
    fn name(&self) -> &'static str {
        "release"
    }

    async fn run(&self, ctx: &Context<'_>, _: &mut Data) -> Result<Outcome, Fault> {
        let left = Guest::left(&self.hosts, ctx).await?.is_some();
        let mut tx = ctx.begin().await?;
        if !left {
            // The operation before it has released everything, or deleted the server.
            store::mark_deleted(&mut tx, server_of(ctx)?).await?;
            return Ok(Outcome::DoneIn(tx));
        }
        addresses::store::release(&mut tx, server_of(ctx)?).await?;
        store::release_room(&mut tx, server_of(ctx)?, ServerState::Deleted).await?;
        Ok(Outcome::DoneIn(tx))
    }
}
