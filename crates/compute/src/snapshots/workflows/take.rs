//! Taking a snapshot, for use by steps.

use hypervisor::Presence;
use kernel::error::Error;
use kernel::operations::{Context, Fault, FaultKind, Outcome};
use serde::{Deserialize, Serialize};

use crate::hosts::Hosts;
use crate::servers::Servers;
use crate::servers::store::snapshot_room;
use crate::servers::subject::server_of;
use crate::servers::workflows::guest::{BUSY, Guest, HostWork};
use crate::snapshots::room;
use crate::snapshots::service::{no_snapshots, room_for};

/// A snapshot to take, and its progress.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SnapshotProgress {
    pub name: String,
    description: String,
    limit: i32,
    /// Whether the host was about to be called: from then on a snapshot of that name is ours.
    asked: bool,
    /// Whether it turned out to take more space than is available, once it existed.
    #[serde(default)]
    too_big: bool,
    work: HostWork,
    delete: HostWork,
}

impl SnapshotProgress {
    pub(super) fn new(name: String, description: String, limit: i32) -> Self {
        let (work, delete) = (HostWork::default(), HostWork::default());
        Self { name, description, limit, asked: false, too_big: false, work, delete }
    }

    /// Does the next part of it.
    pub(super) async fn advance(&mut self, servers: &Servers, ctx: &Context<'_>) -> Result<Outcome, Fault> {
        let margin = servers.settings.storage_margin_percent;
        let guest = Guest::load(&servers.hosts, ctx).await?;
        let (driver, at) = (&*guest.driver, &guest.at);
        if !self.asked {
            let there = driver.snapshots(at).await.map_err(fault)?;
            room_for(&self.name, &there, self.limit)?;
            self.asked = true;
            return Ok(Outcome::Again);
        }
        let (name, description) = (&self.name, &self.description);
        let fault = match self.work.drive(ctx, driver, || driver.create_snapshot(at, name, description)).await {
            Err(fault) if fault.kind.is_final() => fault,
            ended => match ended? {
                Some(wait) => return Ok(wait),
                None => return self.settle(ctx, &guest, margin).await,
            },
        };
        // If it was called before a crash and again after it, the host refuses the second call. We checked before the
        // first call, and nothing else works on this server: a snapshot that exists when the host is done is ours.
        match driver.find(at).await? {
            Presence::Present { busy: true, .. } => Ok(BUSY),
            _ if driver.snapshots(at).await?.iter().any(|s| s.name == self.name) => {
                self.settle(ctx, &guest, margin).await
            }
            _ => Err(fault),
        }
    }

    /// Records what the finished snapshot holds; fails if it has to be deleted again.
    async fn settle(&mut self, ctx: &Context<'_>, guest: &Guest, margin: u32) -> Result<Outcome, Fault> {
        let gib = room::size_now(&*guest.driver, &guest.at, &guest.server).await?;
        let mut tx = ctx.begin().await?;
        if room::correct(&mut tx, margin, &guest.server, &self.name, gib).await? {
            return Ok(Outcome::DoneIn(tx));
        }
        self.too_big = true;
        Err(room::no_space().into())
    }

    /// Deletes the snapshot again.
    pub(super) async fn delete_again(&mut self, hosts: &Hosts, ctx: &Context<'_>) -> Result<Outcome, Fault> {
        if !self.asked {
            return self.free(ctx).await;
        }
        let guest = Guest::load(hosts, ctx).await?;
        let (driver, at) = (&*guest.driver, &guest.at);
        let name = &self.name;
        match self.delete.drive(ctx, driver, || driver.delete_snapshot(at, name)).await? {
            Some(wait) => Ok(wait),
            None => self.free(ctx).await,
        }
    }

    /// Releases the space that was reserved for a snapshot that was not taken.
    pub(super) async fn free(&self, ctx: &Context<'_>) -> Result<Outcome, Fault> {
        let mut tx = ctx.begin().await?;
        snapshot_room::release(&mut tx, server_of(ctx)?, &self.name).await?;
        Ok(Outcome::DoneIn(tx))
    }

    /// Whether it can't stay: it takes more space than is available.
    pub(super) fn is_too_big(&self) -> bool {
        self.too_big
    }

    /// Whether the host may have received the request for it.
    pub(super) fn was_requested(&self) -> bool {
        self.asked
    }
}

/// Translates a driver's error about snapshots.
pub(super) fn fault(error: hypervisor::Error) -> Fault {
    match error {
        hypervisor::Error::Unsupported(detail) => {
            let Error { code, message, .. } = no_snapshots();
            Fault { detail: Some(detail), ..Fault::new(FaultKind::Fail, code, message) }
        }
        other => other.into(),
    }
}
