//! Starting, stopping and restarting a server.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hypervisor::StopMode;
use kernel::operations::{self, Context, Fault, Outcome, Step, Workflow, WorkflowKind};
use serde::{Deserialize, Serialize};

use super::guest::{self, Guest, HostWork};
use crate::hosts::Hosts;
use crate::servers::model::ServerState;
use crate::servers::store;
use crate::servers::subject::server_of;

/// The requested action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerAction {
    /// Start a server that is down.
    Start,
    /// Stop, cleanly if the guest cooperates.
    Stop,
    /// Stop cleanly and start again.
    Restart,
    /// Stop, because the server was suspended.
    Suspend,
    /// Start, because the suspension has ended.
    Unsuspend,
}

impl PowerAction {
    /// The workflow.
    pub fn kind(self) -> WorkflowKind {
        WorkflowKind { name: self.name(), first_step: self.step() }
    }

    /// The workflow's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Suspend => "suspend",
            Self::Unsuspend => "unsuspend",
        }
    }

    /// The status that the server shows meanwhile.
    pub fn under_way(self) -> ServerState {
        match self {
            Self::Start | Self::Unsuspend => ServerState::Starting,
            Self::Stop | Self::Suspend => ServerState::Stopping,
            Self::Restart => ServerState::Restarting,
        }
    }

    /// Whether it is the provider's request, which is queued behind the current operation instead of being refused.
    fn waits(self) -> bool {
        matches!(self, Self::Suspend | Self::Unsuspend)
    }

    /// The guest; `None` if there is nothing to do, because the operation before it has left none.
    async fn guest(self, hosts: &Hosts, ctx: &Context<'_>) -> Result<Option<Guest>, Fault> {
        if !self.waits() {
            return Guest::load(hosts, ctx).await.map(Some);
        }
        Ok(Guest::left(hosts, ctx).await?.filter(|guest| guest.server.status != ServerState::Failed))
    }

    fn step(self) -> &'static str {
        match self {
            Self::Start | Self::Unsuspend => "start_guest",
            Self::Stop | Self::Suspend => "stop_guest",
            Self::Restart => "restart_guest",
        }
    }
}

/// Data kept between steps.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Data {
    work: HostWork,
    /// Whether it was watched after its start.
    #[serde(default)]
    watched: bool,
    /// Whether its status is shown; an operation that may have been queued shows it only when its turn comes.
    #[serde(default)]
    shown: bool,
}

impl operations::Data for Data {}

/// The steps. `shutdown`: how long the guest may take before it is forced off.
pub fn workflow(hosts: &Arc<Hosts>, power: PowerAction, shutdown: Duration) -> Workflow<Data> {
    let hosts = || Arc::clone(hosts);
    let steps: Vec<Box<dyn Step<Data>>> = vec![
        Box::new(PowerGuest { hosts: hosts(), power, shutdown }),
        Box::new(ShowPowerStatus { hosts: hosts(), power }),
    ];
    Workflow { kind: power.kind(), steps }
}

/// Has the host do it. There is nothing to undo; a check of the host shows the server's status.
#[derive(Debug)]
struct PowerGuest {
    hosts: Arc<Hosts>,
    power: PowerAction,
    shutdown: Duration,
}

#[async_trait]
impl Step<Data> for PowerGuest {
    fn name(&self) -> &'static str {
        self.power.step()
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        let Some(guest) = self.power.guest(&self.hosts, ctx).await? else { return Ok(Outcome::Done) };
        if self.power.waits() && !data.shown {
            let mut tx = ctx.begin().await?;
            store::set_status(&mut tx, server_of(ctx)?, self.power.under_way()).await?;
            tx.commit().await?;
            data.shown = true;
        }
        let (driver, at, timeout) = (&*guest.driver, &guest.at, self.shutdown);
        let outcome = match self.power {
            PowerAction::Start | PowerAction::Unsuspend => data.work.drive(ctx, driver, || driver.start(at)).await?,
            PowerAction::Stop | PowerAction::Suspend => {
                data.work.drive(ctx, driver, || driver.stop(at, StopMode::Clean { timeout })).await?
            }
            PowerAction::Restart => data.work.drive(ctx, driver, || driver.restart(at, timeout)).await?,
        };
        Ok(outcome.unwrap_or(Outcome::Done))
    }

    async fn undo(&self, ctx: &Context<'_>, _: &mut Data) -> Result<Outcome, Fault> {
        guest::store_observed_status(&self.hosts, ctx).await
    }
}

/// Shows the final status.
#[derive(Debug)]
struct ShowPowerStatus {
    hosts: Arc<Hosts>,
    power: PowerAction,
}

#[async_trait]
impl Step<Data> for ShowPowerStatus {
    fn name(&self) -> &'static str {
        "show_status"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        if self.power.guest(&self.hosts, ctx).await?.is_none() {
            return Ok(Outcome::Done);
        }
        let status =
            if self.power.under_way() == ServerState::Stopping { ServerState::Stopped } else { ServerState::Running };
        if status == ServerState::Running {
            if let Some(wait) = guest::watch(&mut data.watched) {
                return Ok(wait);
            }
            Guest::load(&self.hosts, ctx).await?.check_running().await?;
        }
        let mut tx = ctx.begin().await?;
        store::set_status(&mut tx, server_of(ctx)?, status).await?;
        Ok(Outcome::DoneIn(tx))
    }
}
