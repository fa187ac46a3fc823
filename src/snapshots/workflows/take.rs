//! Taking one snapshot, as a step needs it.

use hypervisor::Presence;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::operations::{Context, Fault, FaultKind, Outcome};
use crate::servers::workflows::guest::{BUSY, Guest, HostWork};
use crate::snapshots::service::{no_snapshots, room_for};

/// A snapshot to be taken, and how far that is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Take {
    pub name: String,
    description: String,
    limit: i32,
    /// Whether the host was about to be asked: from then on a snapshot of that name is ours.
    asked: bool,
    work: HostWork,
    delete: HostWork,
}

impl Take {
    pub(super) fn new(name: String, description: String, limit: i32) -> Self {
        Self { name, description, limit, asked: false, work: HostWork::default(), delete: HostWork::default() }
    }

    /// The next piece of it.
    pub(super) async fn advance(&mut self, ctx: &Context<'_>) -> Result<Outcome, Fault> {
        let guest = Guest::load(ctx).await?;
        let (driver, at) = (&*guest.driver, &guest.at);
        if !self.asked {
            let there = driver.snapshots(at).await.map_err(fault)?;
            room_for(&self.name, &there, self.limit)?;
            self.asked = true;
            return Ok(Outcome::Again);
        }
        let (name, description) = (&self.name, &self.description);
        let fault = match self.work.drive(ctx, driver, || driver.create_snapshot(at, name, description)).await {
            Err(fault) if fault.kind == FaultKind::Fail => fault,
            ended => return Ok(ended?.unwrap_or(Outcome::Done)),
        };
        // Asked before a crash and again after it, the host refuses the second time. We looked before we asked for the
        // first time, and nobody else does anything on this server: what is there when the host is done is ours.
        match driver.find(at).await? {
            Presence::Present { busy: true, .. } => Ok(BUSY),
            _ if driver.snapshots(at).await?.iter().any(|s| s.name == self.name) => Ok(Outcome::Done),
            _ => Err(fault),
        }
    }

    /// Takes it away again.
    pub(super) async fn take_back(&mut self, ctx: &Context<'_>) -> Result<Outcome, Fault> {
        if !self.asked {
            return Ok(Outcome::Done);
        }
        let guest = Guest::load(ctx).await?;
        let (driver, at) = (&*guest.driver, &guest.at);
        let name = &self.name;
        let ended = self.delete.drive(ctx, driver, || driver.delete_snapshot(at, name)).await?;
        Ok(ended.unwrap_or(Outcome::Done))
    }
}

/// A driver's error about snapshots, in words about snapshots.
pub(super) fn fault(error: hypervisor::Error) -> Fault {
    match error {
        hypervisor::Error::Unsupported(detail) => {
            let Error { code, message, .. } = no_snapshots();
            Fault { detail: Some(detail), ..Fault::new(FaultKind::Fail, code, message) }
        }
        other => other.into(),
    }
}
