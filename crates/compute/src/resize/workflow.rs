//! Changing a guest's size. The request has already reserved the capacity. A bigger disk comes first: if the old one is
//! full, the host can't change anything else before.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hypervisor::{GuestPower, Presence, StopMode};
use kernel::operations::{self, Context, Fault, Outcome, Step, Workflow, WorkflowKind};
use serde::{Deserialize, Serialize};

use crate::hosts::Hosts;
use crate::ids::TariffId;
use crate::servers::model::ServerState;
use crate::servers::size::ServerSize;
use crate::servers::subject::server_of;
use crate::servers::workflows::guest::{self, BUSY, Guest, HostWork};
use crate::servers::{self, Servers};

/// The workflow.
pub const KIND: WorkflowKind = WorkflowKind { name: "resize", first_step: "reserve" };

/// Data kept between steps.
#[derive(Debug, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Data {
    from: ServerSize,
    to: ServerSize,
    tariff: Option<TariffId>,
    /// Whether the guest may be stopped for it.
    restart: bool,
    /// Whether it was running, and so we stopped it.
    stopped: bool,
    /// Whether the host may have received the request for the bigger disk.
    grown: bool,
    /// Whether the growth was seen to finish.
    #[serde(default)]
    grow_ended: bool,
    /// How many times the undo has waited for the host to report the disk's current size.
    #[serde(default)]
    waits: u32,
    /// Whether it was watched after its start.
    #[serde(default)]
    watched: bool,
    stop: HostWork,
    resize: HostWork,
    back: HostWork,
    grow: HostWork,
    start: HostWork,
}

impl operations::Data for Data {}

impl Data {
    /// The initial data.
    pub fn new(from: ServerSize, to: ServerSize, tariff: Option<TariffId>, restart: bool) -> Self {
        let work = HostWork::default;
        let (stop, resize, back, grow, start) = (work(), work(), work(), work(), work());
        let (stopped, grown, grow_ended, watched) = (false, false, false, false);
        Self {
            from,
            to,
            tariff,
            restart,
            stopped,
            grown,
            grow_ended,
            waits: 0,
            watched,
            stop,
            resize,
            back,
            grow,
            start,
        }
    }

    fn grows(&self) -> bool {
        self.to.disk > self.from.disk
    }
}

/// The steps.
pub fn workflow(servers: &Servers) -> Workflow<Data> {
    let hosts = || Arc::clone(&servers.hosts);
    Workflow {
        kind: KIND,
        steps: vec![
            Box::new(ReserveGrowth { hosts: hosts() }),
            Box::new(StopGuest { hosts: hosts(), shutdown: servers.settings.shutdown() }),
            Box::new(ResizeGuest { hosts: hosts() }),
            Box::new(GrowDisk { hosts: hosts() }),
            Box::new(StartResizedGuest { hosts: hosts() }),
            Box::new(StoreSize { hosts: hosts() }),
        ],
    }
}

/// The request's own transaction has reserved the capacity; undoing releases it, last of all.
#[derive(Debug)]
struct ReserveGrowth {
    hosts: Arc<Hosts>,
}

#[async_trait]
impl Step<Data> for ReserveGrowth {
    fn name(&self) -> &'static str {
        "reserve"
    }

    async fn run(&self, _: &Context<'_>, _: &mut Data) -> Result<Outcome, Fault> {
        Ok(Outcome::Done)
    }

    async fn undo(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        let guest = Guest::load(&self.hosts, ctx).await?;
        let mut disk = data.from.disk;
        if data.grown {
            let (seen, lag) = disk_of(&guest).await?.unwrap_or((data.to.disk, Duration::ZERO));
            // This size may predate the growth: check again once the lag has passed.
            if seen < data.to.disk && !lag.is_zero() && data.waits == 0 {
                data.waits += 1;
                return Ok(Outcome::Wait { after: lag, progress: None });
            }
            disk = seen;
        }
        let Some(status) = guest.standing().await else { return Ok(BUSY) };
        let mut tx = ctx.begin().await?;
        servers::store::set_size(&mut tx, server_of(ctx)?, ServerSize { disk, ..data.from }, None).await?;
        servers::store::set_status(&mut tx, server_of(ctx)?, status).await?;
        Ok(Outcome::DoneIn(tx))
    }
}

/// The size of the guest's disk in GiB (growth is permanent), and how old that value may be.
async fn disk_of(guest: &Guest) -> Result<Option<(i64, Duration)>, Fault> {
    let sweep = guest.driver.sweep().await?;
    let seen = sweep.guests.iter().find(|g| g.marker == guest.at.marker).and_then(|g| g.disk_max);
    Ok(seen.and_then(|bytes| Some((i64::try_from(bytes >> 30).ok()?, sweep.lag))))
}

/// Stops the guest if its size can't be changed while it runs.
#[derive(Debug)]
struct StopGuest {
    hosts: Arc<Hosts>,
    shutdown: Duration,
}

#[async_trait]
impl Step<Data> for StopGuest {
    fn name(&self) -> &'static str {
        "stop_guest"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        if !data.restart {
            return Ok(Outcome::Done);
        }
        let guest = Guest::load(&self.hosts, ctx).await?;
        let (driver, at) = (&*guest.driver, &guest.at);
        if !data.stopped {
            if let Presence::Present { power: GuestPower::Stopped, .. } = driver.find(at).await? {
                return Ok(Outcome::Done);
            }
            data.stopped = true;
            return Ok(Outcome::Again);
        }
        let timeout = self.shutdown;
        let ended = data.stop.drive(ctx, driver, || driver.stop(at, StopMode::Clean { timeout })).await?;
        Ok(ended.unwrap_or(Outcome::Done))
    }

    async fn undo(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        if !data.stopped {
            return Ok(Outcome::Done);
        }
        let guest = Guest::load(&self.hosts, ctx).await?;
        Ok(guest.start_again(ctx, &mut data.start).await?.unwrap_or(Outcome::Done))
    }
}

/// Sets cores and memory, unless the disk comes first; the undo always restores them.
#[derive(Debug)]
struct ResizeGuest {
    hosts: Arc<Hosts>,
}

#[async_trait]
impl Step<Data> for ResizeGuest {
    fn name(&self) -> &'static str {
        "resize_guest"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        if data.grows() {
            return Ok(Outcome::Done);
        }
        resize(&self.hosts, ctx, &mut data.resize, data.to).await
    }

    async fn undo(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        resize(&self.hosts, ctx, &mut data.back, data.from).await
    }
}

async fn resize(hosts: &Hosts, ctx: &Context<'_>, work: &mut HostWork, size: ServerSize) -> Result<Outcome, Fault> {
    let guest = Guest::load(hosts, ctx).await?;
    let (driver, power) = (&*guest.driver, size.power());
    let ended = work.drive(ctx, driver, || driver.resize(&guest.at, &power)).await?;
    Ok(ended.unwrap_or(Outcome::Done))
}

/// Grows the disk, then sets cores and memory. The host may have grown the disk whatever its answer was, so the intent
/// is saved first.
#[derive(Debug)]
struct GrowDisk {
    hosts: Arc<Hosts>,
}

#[async_trait]
impl Step<Data> for GrowDisk {
    fn name(&self) -> &'static str {
        "grow_disk"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        if !data.grows() {
            return Ok(Outcome::Done);
        }
        if !data.grown {
            data.grown = true;
            return Ok(Outcome::Again);
        }
        let guest = Guest::load(&self.hosts, ctx).await?;
        let (driver, room) = (&*guest.driver, data.to.room());
        if !data.grow_ended {
            if let Some(wait) = data.grow.drive(ctx, driver, || driver.resize(&guest.at, &room)).await? {
                return Ok(wait);
            }
            data.grow_ended = true;
        }
        resize(&self.hosts, ctx, &mut data.resize, data.to).await
    }
}

/// Starts the guest again.
#[derive(Debug)]
struct StartResizedGuest {
    hosts: Arc<Hosts>,
}

#[async_trait]
impl Step<Data> for StartResizedGuest {
    fn name(&self) -> &'static str {
        "start_guest"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        if !data.stopped {
            return Ok(Outcome::Done);
        }
        let guest = Guest::load(&self.hosts, ctx).await?;
        let ended = data.start.drive(ctx, &*guest.driver, || guest.driver.start(&guest.at)).await?;
        Ok(ended.unwrap_or(Outcome::Done))
    }
}

/// Records the server's new size and tariff.
#[derive(Debug)]
struct StoreSize {
    hosts: Arc<Hosts>,
}

#[async_trait]
impl Step<Data> for StoreSize {
    fn name(&self) -> &'static str {
        "record"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        let mut up = data.restart && data.stopped;
        if up {
            if let Some(wait) = guest::watch(&mut data.watched) {
                return Ok(wait);
            }
            up = Guest::load(&self.hosts, ctx).await?.is_running_again(ctx).await?;
        }
        let mut tx = ctx.begin().await?;
        servers::store::set_size(&mut tx, server_of(ctx)?, data.to, data.tariff).await?;
        if data.restart {
            let status = if up { ServerState::Running } else { ServerState::Stopped };
            servers::store::set_status(&mut tx, server_of(ctx)?, status).await?;
        }
        Ok(Outcome::DoneIn(tx))
    }
}
