//! Rolling a server's disks back to a snapshot, with a snapshot of the current state first if requested.

use std::sync::Arc;

use async_trait::async_trait;
use hypervisor::{GuestPower, Presence};
use kernel::error::Code;
use kernel::operations::{self, Context, Fault, FaultKind, Outcome, Step, Workflow, WorkflowKind};
use serde::{Deserialize, Serialize};

use super::take::{SnapshotProgress, fault};
use crate::hosts::Hosts;
use crate::servers::Servers;
use crate::servers::model::ServerState;
use crate::servers::store;
use crate::servers::subject::server_of;
use crate::servers::workflows::guest::{self, Guest, HostWork};
use crate::snapshots::service::{missing, refused};

/// The workflow.
pub const KIND: WorkflowKind = WorkflowKind { name: "rollback", first_step: "check_snapshot" };

/// Data kept between steps.
#[derive(Debug, Serialize, Deserialize)]
pub struct Data {
    name: String,
    safety: Option<SnapshotProgress>,
    /// Whether the guest was running before, and so has to run afterwards.
    running: bool,
    /// The storage only rolls back to its newest snapshot, and this is not the newest.
    #[serde(default)]
    refused: bool,
    /// Whether it was watched after its start.
    #[serde(default)]
    watched: bool,
    roll_back: HostWork,
    start: HostWork,
}

impl operations::Data for Data {}

impl Data {
    /// The initial data; `safety` is the name of the snapshot to take first, `limit` the server's snapshot limit.
    pub fn new(name: String, safety: Option<String>, limit: i32) -> Self {
        let description = format!("Taken before the rollback to {name}");
        let safety = safety.map(|safety| SnapshotProgress::new(safety, description, limit));
        Self {
            name,
            safety,
            running: false,
            refused: false,
            watched: false,
            roll_back: HostWork::default(),
            start: HostWork::default(),
        }
    }
}

/// The steps.
pub fn workflow(servers: &Arc<Servers>) -> Workflow<Data> {
    let hosts = || Arc::clone(&servers.hosts);
    Workflow {
        kind: KIND,
        steps: vec![
            Box::new(CheckSnapshot { hosts: hosts() }),
            Box::new(TakeSafetySnapshot { servers: Arc::clone(servers) }),
            Box::new(RollBack { hosts: hosts() }),
            Box::new(StartRolledBackGuest { hosts: hosts() }),
            Box::new(ShowRollbackStatus { hosts: hosts() }),
        ],
    }
}

/// Checks that the snapshot exists, and whether the guest is running.
#[derive(Debug)]
struct CheckSnapshot {
    hosts: Arc<Hosts>,
}

#[async_trait]
impl Step<Data> for CheckSnapshot {
    fn name(&self) -> &'static str {
        "check_snapshot"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        let guest = Guest::load(&self.hosts, ctx).await?;
        let there = guest.driver.snapshots(&guest.at).await.map_err(fault)?;
        if !there.iter().any(|s| s.name == data.name) {
            return Err(missing().into());
        }
        // Before anything happens, including a safety snapshot.
        guest.driver.check_rollback(&guest.at, &data.name).await.map_err(refused)?;
        let found = guest.driver.find(&guest.at).await?;
        data.running = matches!(found, Presence::Present { power: GuestPower::Running, .. });
        Ok(Outcome::Done)
    }

    async fn undo(&self, ctx: &Context<'_>, _: &mut Data) -> Result<Outcome, Fault> {
        guest::store_observed_status(&self.hosts, ctx).await
    }
}

/// Takes a snapshot of the current state. It stays whatever becomes of the rest, since it may be needed, unless it
/// would only block the rollback because the storage only rolls back to its newest snapshot.
#[derive(Debug)]
struct TakeSafetySnapshot {
    servers: Arc<Servers>,
}

#[async_trait]
impl Step<Data> for TakeSafetySnapshot {
    fn name(&self) -> &'static str {
        "take_snapshot"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        match &mut data.safety {
            Some(safety) => safety.advance(&self.servers, ctx).await,
            None => Ok(Outcome::Done),
        }
    }

    async fn undo(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        match &mut data.safety {
            Some(safety) if data.refused || safety.is_too_big() => safety.delete_again(&self.servers.hosts, ctx).await,
            Some(safety) if !safety.was_requested() => safety.free(ctx).await,
            _ => Ok(Outcome::Done),
        }
    }
}

/// Rolls back. Doing it twice has the same effect; if it fails halfway, the server's state is shown as it is.
#[derive(Debug)]
struct RollBack {
    hosts: Arc<Hosts>,
}

#[async_trait]
impl Step<Data> for RollBack {
    fn name(&self) -> &'static str {
        "roll_back"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        let guest = Guest::load(&self.hosts, ctx).await?;
        let (driver, at, name) = (&*guest.driver, &guest.at, &data.name);
        match data.roll_back.drive(ctx, driver, || driver.rollback(at, name)).await {
            // That the storage supports snapshots was checked before.
            Err(fault) if fault.code == Code::Invalid => {
                data.refused = true;
                let words = match data.safety {
                    Some(_) => {
                        "This server's storage can only roll back to its newest snapshot, so none can be taken first: \
                         roll back without a safety snapshot."
                    }
                    None => {
                        "This server's storage can only roll back to its newest snapshot: delete the newer \
                         ones first."
                    }
                };
                Err(Fault { detail: fault.detail, ..Fault::new(FaultKind::Fail, Code::Conflict, words) })
            }
            ended => Ok(ended?.unwrap_or(Outcome::Done)),
        }
    }

    async fn undo(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        if !data.running {
            return Ok(Outcome::Done);
        }
        let guest = Guest::load(&self.hosts, ctx).await?;
        Ok(guest.start_again(ctx, &mut data.start).await?.unwrap_or(Outcome::Done))
    }
}

/// Starts the guest, if the host has not.
#[derive(Debug)]
struct StartRolledBackGuest {
    hosts: Arc<Hosts>,
}

#[async_trait]
impl Step<Data> for StartRolledBackGuest {
    fn name(&self) -> &'static str {
        "start_guest"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        if !data.running {
            return Ok(Outcome::Done);
        }
        let guest = Guest::load(&self.hosts, ctx).await?;
        let ended = data.start.drive(ctx, &*guest.driver, || guest.driver.start(&guest.at)).await?;
        Ok(ended.unwrap_or(Outcome::Done))
    }
}

/// Shows the final status.
#[derive(Debug)]
struct ShowRollbackStatus {
    hosts: Arc<Hosts>,
}

#[async_trait]
impl Step<Data> for ShowRollbackStatus {
    fn name(&self) -> &'static str {
        "show_status"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        let mut up = data.running;
        if up {
            if let Some(wait) = guest::watch(&mut data.watched) {
                return Ok(wait);
            }
            up = Guest::load(&self.hosts, ctx).await?.is_running_again(ctx).await?;
        }
        let status = if up { ServerState::Running } else { ServerState::Stopped };
        let mut tx = ctx.begin().await?;
        store::set_status(&mut tx, server_of(ctx)?, status).await?;
        Ok(Outcome::DoneIn(tx))
    }
}
