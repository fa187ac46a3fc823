//! Putting a server's disks back to a snapshot, after taking one of how they are, where that was asked for.

use std::sync::Arc;

use async_trait::async_trait;
use hypervisor::{GuestPower, Presence};
use serde::{Deserialize, Serialize};

use super::take::{Take, fault};
use crate::error::Code;
use crate::hosts::Hosts;
use crate::operations::{self, Context, Fault, FaultKind, Kind, Outcome, Step, Workflow};
use crate::servers::model::Status;
use crate::servers::store;
use crate::servers::workflows::guest::{self, Guest, HostWork};
use crate::snapshots::service::{missing, refused};

/// The workflow.
pub const KIND: Kind = Kind { name: "rollback", first_step: "check_snapshot" };

/// What it keeps between steps.
#[derive(Debug, Serialize, Deserialize)]
pub struct Data {
    name: String,
    safety: Option<Take>,
    /// Whether the guest ran before, and so runs afterwards.
    running: bool,
    /// The storage goes back to its newest snapshot only, and this one is not.
    #[serde(default)]
    refused: bool,
    roll_back: HostWork,
    start: HostWork,
}

impl operations::Data for Data {}

impl Data {
    /// The first data; `safety` is the name of the snapshot to take first, `limit` how many there may be.
    pub fn new(name: String, safety: Option<String>, limit: i32) -> Self {
        let description = format!("Taken before going back to {name}");
        let safety = safety.map(|safety| Take::new(safety, description, limit));
        Self {
            name,
            safety,
            running: false,
            refused: false,
            roll_back: HostWork::default(),
            start: HostWork::default(),
        }
    }
}

/// The steps.
pub fn workflow(hosts: &Arc<Hosts>) -> Workflow<Data> {
    let hosts = || Arc::clone(hosts);
    Workflow {
        kind: KIND,
        steps: vec![
            Box::new(CheckSnapshot { hosts: hosts() }),
            Box::new(TakeSnapshot { hosts: hosts() }),
            Box::new(RollBack { hosts: hosts() }),
            Box::new(StartGuest { hosts: hosts() }),
            Box::new(Show { hosts: hosts() }),
        ],
    }
}

/// Sees that the snapshot is there, and whether the guest runs.
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
        // Before anything happens, a safety snapshot too.
        guest.driver.check_rollback(&guest.at, &data.name).await.map_err(refused)?;
        let found = guest.driver.find(&guest.at).await?;
        data.running = matches!(found, Presence::Present { power: GuestPower::Running, .. });
        Ok(Outcome::Done)
    }

    async fn undo(&self, ctx: &Context<'_>, _: &mut Data) -> Result<Outcome, Fault> {
        guest::settle(&self.hosts, ctx).await
    }
}

/// Takes the snapshot of how it is. It stays, whatever becomes of the rest: somebody may need it. But where it would only
/// be in the way, since the storage goes back to the newest one.
#[derive(Debug)]
struct TakeSnapshot {
    hosts: Arc<Hosts>,
}

#[async_trait]
impl Step<Data> for TakeSnapshot {
    fn name(&self) -> &'static str {
        "take_snapshot"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        match &mut data.safety {
            Some(safety) => safety.advance(&self.hosts, ctx).await,
            None => Ok(Outcome::Done),
        }
    }

    async fn undo(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        match &mut data.safety {
            Some(safety) if data.refused || safety.is_too_big() => safety.take_back(&self.hosts, ctx).await,
            Some(safety) if !safety.is_asked() => safety.free(ctx).await,
            _ => Ok(Outcome::Done),
        }
    }
}

/// Goes back. Going back twice is the same; what a half-done one left is told as it is.
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
            // That there are snapshots was seen before.
            Err(fault) if fault.code == Code::Invalid => {
                data.refused = true;
                let words = match data.safety {
                    Some(_) => {
                        "The storage that this server is on goes back to its newest snapshot only, so none can be taken \
                         before: go back without a safety snapshot."
                    }
                    None => {
                        "The storage that this server is on goes back to its newest snapshot only: delete the newer \
                         ones first."
                    }
                };
                Err(Fault { detail: fault.detail, ..Fault::new(FaultKind::Fail, Code::Conflict, words) })
            }
            ended => Ok(ended?.unwrap_or(Outcome::Done)),
        }
    }

    async fn undo(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        start(&self.hosts, ctx, data).await
    }
}

/// A guest that ran runs again.
async fn start(hosts: &Hosts, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
    if !data.running {
        return Ok(Outcome::Done);
    }
    let guest = Guest::load(hosts, ctx).await?;
    let ended = data.start.drive(ctx, &*guest.driver, || guest.driver.start(&guest.at)).await?;
    Ok(ended.unwrap_or(Outcome::Done))
}

/// Starts it, where the host has not.
#[derive(Debug)]
struct StartGuest {
    hosts: Arc<Hosts>,
}

#[async_trait]
impl Step<Data> for StartGuest {
    fn name(&self) -> &'static str {
        "start_guest"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        start(&self.hosts, ctx, data).await
    }
}

/// Shows it.
#[derive(Debug)]
struct Show {
    hosts: Arc<Hosts>,
}

#[async_trait]
impl Step<Data> for Show {
    fn name(&self) -> &'static str {
        "show_status"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        let up = data.running && Guest::load(&self.hosts, ctx).await?.is_up_again(ctx).await;
        let status = if up { Status::Running } else { Status::Stopped };
        let mut tx = ctx.begin().await?;
        store::set_status(&mut tx, ctx.server, status).await?;
        Ok(Outcome::DoneIn(tx))
    }
}
