//! A server's guest on its host, for use by steps: found, driven to the end of a task, removed.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hypervisor::{Driver, GuestPower, GuestRef, Presence, StopMode, Task, TaskId, TaskState};
use kernel::core::Core;
use kernel::error::{Code, Error};
use kernel::operations::{Context, Fault, FaultKind, Outcome};
use serde::{Deserialize, Serialize};

use crate::hosts::Hosts;
use crate::ids::ServerId;
use crate::servers::model::{ServerRecord, ServerState};
use crate::servers::store;
use crate::servers::subject::server_of;

/// How often, and how long apart, a guest in which something has failed is checked.
const LOOKS: u32 = 5;
const LOOK_PAUSE: Duration = Duration::from_millis(300);

/// The time in which a guest that can't boot goes down again.
const WATCH: Duration = Duration::from_secs(1);

/// How many times a guest that was running is tried to be started again: half an hour.
const STARTS: i32 = 16;

/// A server with its driver and its guest's reference.
#[derive(Debug)]
pub struct Guest {
    pub(crate) server: ServerRecord,
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) at: GuestRef,
}

impl Guest {
    /// Loads the operation's server and its host's driver.
    pub async fn load(hosts: &Hosts, ctx: &Context<'_>) -> Result<Self, Fault> {
        let server = load(ctx.core, server_of(ctx)?).await?;
        let driver = ctx.fenced(hosts.driver(server.host_id).await?);
        let at = server.guest();
        Ok(Self { server, driver, at })
    }

    /// The same for an operation that was queued behind another one: `None` if that has left nothing of the server on
    /// its host.
    pub async fn left(hosts: &Hosts, ctx: &Context<'_>) -> Result<Option<Self>, Fault> {
        match store::live(&ctx.core.db, server_of(ctx)?).await? {
            Some(server) if server.reserved => Self::load(hosts, ctx).await.map(Some),
            _ => Ok(None),
        }
    }
}

impl Guest {
    /// The server's status as the host reports it now; `None` while the host is working on it.
    pub async fn standing(&self) -> Option<ServerState> {
        match self.driver.find(&self.at).await {
            Ok(Presence::Present { busy: true, .. }) => None,
            Ok(Presence::Present { power: GuestPower::Running, .. }) => Some(ServerState::Running),
            Ok(Presence::Present { power: GuestPower::Stopped, .. }) => Some(ServerState::Stopped),
            Ok(Presence::Present { power: GuestPower::Paused, .. }) => Some(ServerState::Paused),
            _ => Some(ServerState::Unknown),
        }
    }

    /// Fails if a guest that was just started is down again: hosts report only that it is stopped. If the host can't be
    /// asked, the guest counts as up.
    pub async fn check_running(&self) -> Result<(), Fault> {
        let Ok(Presence::Present { power: GuestPower::Stopped, busy: false, .. }) = self.driver.find(&self.at).await
        else {
            return Ok(());
        };
        let said = self.driver.last_words(&self.at).await.unwrap_or_else(|error| error.to_string());
        let said = if said.is_empty() { "its host kept no output of it".to_owned() } else { said };
        Err(Fault {
            detail: Some(format!("The guest stopped right after its start. Last console or start output:\n{said}")),
            ..Fault::new(FaultKind::Fail, Code::HostError, "The server was started, but stopped again at once.")
        })
    }

    /// The same for a guest in which something has just failed: it may take a moment until it is seen to go down.
    pub async fn stays_up(&self) -> Result<(), Fault> {
        for _ in 0..LOOKS {
            self.check_running().await?;
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        self.check_running().await
    }

    /// Starts a guest that was running before the work that is being undone. `None`: it runs, or can't be started: then
    /// the server is left stopped, and its status says so, rather than held for as long as that lasts.
    pub async fn start_again(&self, ctx: &Context<'_>, start: &mut HostWork) -> Result<Option<Outcome>, Fault> {
        let (driver, at) = (&*self.driver, &self.at);
        if start.task.is_none() {
            match driver.find(at).await {
                Ok(Presence::Present { busy: true, .. }) => return Ok(Some(BUSY)),
                Ok(Presence::Present { power: GuestPower::Stopped, .. }) => {}
                Err(error) if error.is_transient() && ctx.attempts < STARTS => return Err(error.into()),
                _ => return Ok(None),
            }
        }
        match start.drive(ctx, driver, || driver.start(at)).await {
            Err(fault) if fault.kind != FaultKind::Retry || ctx.attempts >= STARTS => {
                let detail = fault.detail.as_deref().unwrap_or(&fault.message);
                ctx.warn(&format!("the guest could not be started again: {detail}")).await?;
                Ok(None)
            }
            outcome => outcome,
        }
    }

    /// Whether a guest that was started at the end of other work stays up; the work itself is done either way.
    pub async fn is_running_again(&self, ctx: &Context<'_>) -> Result<bool, Fault> {
        let Err(fault) = self.check_running().await else { return Ok(true) };
        ctx.warn(fault.detail.as_deref().unwrap_or(&fault.message)).await?;
        Ok(false)
    }
}

async fn load(core: &Core, id: ServerId) -> Result<ServerRecord, Fault> {
    // Only its own operation can delete a server that has one.
    store::live(&core.db, id)
        .await?
        .ok_or_else(|| Fault::from(Error::internal(anyhow::anyhow!("server {id} is gone"))).with_kind(FaultKind::Stuck))
}

/// A host task in a step's durable data: submitted once, then polled until it ends.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct HostWork {
    task: Option<TaskId>,
    polls: u32,
}

impl HostWork {
    /// Submits the work, or polls it. `None`: it is done. Otherwise the outcome that the step returns to the engine.
    ///
    /// Driver calls may be repeated, so a task that the host no longer knows is simply submitted again: the driver
    /// finds that there is nothing left to do, or does it.
    pub async fn drive<F>(
        &mut self,
        ctx: &Context<'_>,
        driver: &dyn Driver,
        submit: impl FnOnce() -> F,
    ) -> Result<Option<Outcome>, Fault>
    where
        F: Future<Output = hypervisor::Result<Task>>,
    {
        Ok(self.try_poll_or_submit(ctx, driver, submit).await?)
    }

    /// The same with the host's own error, for callers that handle it.
    pub(super) async fn try_poll_or_submit<F>(
        &mut self,
        ctx: &Context<'_>,
        driver: &dyn Driver,
        submit: impl FnOnce() -> F,
    ) -> hypervisor::Result<Option<Outcome>>
    where
        F: Future<Output = hypervisor::Result<Task>>,
    {
        if let Some(id) = &self.task {
            match driver.task(id).await? {
                TaskState::Running(progress) => return Ok(Some(self.wait(progress))),
                TaskState::Succeeded(warnings) => {
                    if let Some(warnings) = warnings {
                        tracing::warn!(operation = %ctx.operation, warnings, "the host's task ended with warnings");
                    }
                    *self = Self::default();
                    return Ok(None);
                }
                TaskState::Failed(error) => {
                    *self = Self::default();
                    return Err(error);
                }
                TaskState::Unknown => *self = Self::default(),
            }
        }
        match submit().await? {
            Task::Done => Ok(None),
            Task::Running(id) => {
                ctx.host_task(&id);
                self.task = Some(id);
                Ok(Some(self.wait(None)))
            }
        }
    }

    /// Polls soon at first, since most container tasks are quick, then less and less often. Each wait is about a fifth
    /// of the time passed so far, so that on average a task's end is noticed late by a tenth of its length.
    fn wait(&mut self, progress: Option<u8>) -> Outcome {
        let millis = 20.0 * 1.2f64.powi(i32::try_from(self.polls).unwrap_or(i32::MAX).min(40));
        self.polls += 1;
        Outcome::Wait { after: Duration::from_secs_f64((millis / 1000.0).min(3.0)), progress }
    }
}

/// Removes a server's guest from its host, in whatever state it is: durable, repeatable, and done only when a full
/// search shows that it is gone.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct GuestRemoval {
    stop: HostWork,
    delete: HostWork,
    stopped: bool,
    /// Whether it was running when we came to stop it.
    #[serde(default)]
    ran: bool,
    #[serde(default)]
    start: HostWork,
}

impl GuestRemoval {
    /// Does the next part of the removal. `None`: the guest is gone.
    pub(super) async fn advance(&mut self, ctx: &Context<'_>, guest: &Guest) -> Result<Option<Outcome>, Fault> {
        let (driver, at) = (&*guest.driver, &guest.at);
        if self.stop.task.is_none() && self.delete.task.is_none() {
            match driver.find(at).await? {
                Presence::Absent => return Ok(None),
                // It is being created or snapshotted: the host would refuse.
                Presence::Present { busy: true, .. } => {
                    return Ok(Some(Outcome::Wait { after: Duration::from_millis(500), progress: None }));
                }
                Presence::Present { power, .. } => {
                    // Before anything is touched: a guest that the host protects must not be stopped for nothing.
                    driver.check_delete(at).await?;
                    self.stopped = power == GuestPower::Stopped;
                    if power == GuestPower::Running && !self.ran {
                        self.ran = true;
                        return Ok(Some(Outcome::Again));
                    }
                }
            }
        }
        if !self.stopped {
            if let Some(wait) = self.stop.drive(ctx, driver, || driver.stop(at, StopMode::Force)).await? {
                return Ok(Some(wait));
            }
            self.stopped = true;
        }
        if let Some(wait) = self.delete.drive(ctx, driver, || driver.delete(at)).await? {
            return Ok(Some(wait));
        }
        match driver.find(at).await? {
            Presence::Absent => Ok(None),
            Presence::Present { .. } => Err(Fault::new(
                FaultKind::Retry,
                Code::HostError,
                "The host reported the server as deleted, but it still exists.",
            )),
        }
    }
}

impl GuestRemoval {
    /// Undoes a failed removal: a guest that was running is started again, if it still can be.
    pub(super) async fn restore(&mut self, ctx: &Context<'_>, guest: &Guest) -> Result<Option<Outcome>, Fault> {
        if self.ran { guest.start_again(ctx, &mut self.start).await } else { Ok(None) }
    }
}

/// The last step of an undo: sets the server's status to what the host reports, or to unknown if it can't be asked now.
pub async fn store_observed_status(hosts: &Hosts, ctx: &Context<'_>) -> Result<Outcome, Fault> {
    store_observed_status_as(hosts, ctx, None).await
}

/// The same for a request that changed whether the server should be running: that is restored to `before`, if it is
/// known.
pub(super) async fn store_observed_status_as(
    hosts: &Hosts,
    ctx: &Context<'_>,
    before: Option<bool>,
) -> Result<Outcome, Fault> {
    let guest = Guest::load(hosts, ctx).await?;
    let Some(status) = guest.standing().await else { return Ok(BUSY) };
    let mut tx = ctx.begin().await?;
    store::set_status(&mut tx, server_of(ctx)?, status).await?;
    if let Some(up) = before {
        store::set_wanted_up(&mut tx, server_of(ctx)?, up).await?;
    }
    Ok(Outcome::DoneIn(tx))
}

/// How long to leave a host alone that is still working on the guest: its current state is not final.
pub const BUSY: Outcome = Outcome::Wait { after: Duration::from_secs(1), progress: None };

/// Leaves a guest that was just started alone for a moment: whether it stays up is seen only after that.
pub fn watch(watched: &mut bool) -> Option<Outcome> {
    (!std::mem::replace(watched, true)).then_some(Outcome::Wait { after: WATCH, progress: None })
}
