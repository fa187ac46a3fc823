//! A server's guest on its host, as steps need it: found, driven to the end of a task, removed.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hypervisor::{Driver, GuestPower, GuestRef, Presence, StopMode, Task, TaskId, TaskState};
use serde::{Deserialize, Serialize};

use crate::core::Core;
use crate::error::{Code, Error};
use crate::hosts::Hosts;
use crate::ids::ServerId;
use crate::operations::{Context, Fault, FaultKind, Outcome};
use crate::servers::model::{ServerRecord, Status};
use crate::servers::store;

/// How often a guest in which something has failed is looked at, and after how long each time.
const LOOKS: u32 = 5;
const LOOK_PAUSE: Duration = Duration::from_millis(300);

/// A server with the way to its guest.
#[derive(Debug)]
pub(crate) struct Guest {
    pub server: ServerRecord,
    pub driver: Arc<dyn Driver>,
    pub at: GuestRef,
}

impl Guest {
    /// Loads the operation's server and its host's driver.
    pub(crate) async fn load(hosts: &Hosts, ctx: &Context<'_>) -> Result<Self, Fault> {
        let server = load(ctx.core, ctx.server).await?;
        let driver = ctx.fenced(hosts.driver(server.host_id).await?);
        let at = server.guest();
        Ok(Self { server, driver, at })
    }

    /// The same for an operation that may have waited for another one's end: `None` where that has left nothing of the
    /// server on its host.
    pub(crate) async fn left(hosts: &Hosts, ctx: &Context<'_>) -> Result<Option<Self>, Fault> {
        match store::live(&ctx.core.db, ctx.server).await? {
            Some(server) if server.reserved => Self::load(hosts, ctx).await.map(Some),
            _ => Ok(None),
        }
    }
}

impl Guest {
    /// Where the server stands as a look at the host finds it; `None` while the host is at work on it.
    pub(crate) async fn standing(&self) -> Option<Status> {
        match self.driver.find(&self.at).await {
            Ok(Presence::Present { busy: true, .. }) => None,
            Ok(Presence::Present { power: GuestPower::Running, .. }) => Some(Status::Running),
            Ok(Presence::Present { power: GuestPower::Stopped, .. }) => Some(Status::Stopped),
            Ok(Presence::Present { power: GuestPower::Paused, .. }) => Some(Status::Paused),
            _ => Some(Status::Unknown),
        }
    }

    /// An error where a guest that was just started is down again: hosts say no more of it than that it is stopped. One
    /// that can't be asked says nothing against it.
    pub(crate) async fn stayed_up(&self) -> Result<(), Fault> {
        let Ok(Presence::Present { power: GuestPower::Stopped, busy: false, .. }) = self.driver.find(&self.at).await
        else {
            return Ok(());
        };
        let said = self.driver.last_words(&self.at).await.unwrap_or_else(|error| error.to_string());
        let said = if said.is_empty() { "its host keeps nothing of what it said".to_owned() } else { said };
        Err(Fault {
            detail: Some(format!("The guest stopped right after its start. The last of its console or start:\n{said}")),
            ..Fault::new(FaultKind::Fail, Code::HostError, "The server was started, and stopped again at once.")
        })
    }

    /// The same for one in which something has just failed: that it goes down may be seen a moment later only.
    pub(crate) async fn stays_up(&self) -> Result<(), Fault> {
        for _ in 0..LOOKS {
            self.stayed_up().await?;
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        self.stayed_up().await
    }

    /// Whether a guest that was started anew at the end of other work, which is done and stays done, is still up.
    pub(crate) async fn is_up_again(&self, ctx: &Context<'_>) -> bool {
        let Err(fault) = self.stayed_up().await else { return true };
        let detail = fault.detail.as_deref().unwrap_or_default();
        tracing::warn!(operation = %ctx.operation, server = ctx.server.0, detail, "a guest did not stay up");
        false
    }
}

async fn load(core: &Core, id: ServerId) -> Result<ServerRecord, Fault> {
    // A server with an operation can't have been deleted by anything but that operation.
    store::live(&core.db, id)
        .await?
        .ok_or_else(|| Fault::from(Error::internal(anyhow::anyhow!("server {id} is gone"))).with_kind(FaultKind::Stuck))
}

/// A task of the host in a step's durable data: submitted once, then asked for until it ends.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct HostWork {
    task: Option<TaskId>,
    polls: u32,
}

impl HostWork {
    /// Submits the work, or asks after it. `None`: it is done. Otherwise what the step returns to the engine.
    ///
    /// Driver calls may be repeated, so a task that the host has forgotten is simply submitted again: the driver
    /// finds that there is nothing left to do, or does it.
    pub(crate) async fn drive<F>(
        &mut self,
        ctx: &Context<'_>,
        driver: &dyn Driver,
        submit: impl FnOnce() -> F,
    ) -> Result<Option<Outcome>, Fault>
    where
        F: Future<Output = hypervisor::Result<Task>>,
    {
        Ok(self.try_drive(ctx, driver, submit).await?)
    }

    /// The same with the host's own error, for who makes something of it.
    pub(super) async fn try_drive<F>(
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

    /// Soon at first, since most tasks of a container are quick; then less and less often. Each wait is about a fifth of
    /// what has passed, so that a task's end is seen late by a tenth of its length in the mean.
    fn wait(&mut self, progress: Option<u8>) -> Outcome {
        let millis = 20.0 * 1.2f64.powi(i32::try_from(self.polls).unwrap_or(i32::MAX).min(40));
        self.polls += 1;
        Outcome::Wait { after: Duration::from_secs_f64((millis / 1000.0).min(3.0)), progress }
    }
}

/// Removes a server's guest from its host, in whatever state it is: durable, repeatable, and done only when a full
/// look says that it is gone.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Removal {
    stop: HostWork,
    delete: HostWork,
    stopped: bool,
    /// Whether it ran when we came to stop it.
    #[serde(default)]
    ran: bool,
    #[serde(default)]
    start: HostWork,
}

/// How often a guest that ran is tried to be started again: half an hour.
const STARTS: i32 = 16;

impl Removal {
    /// The next piece of it. `None`: the guest is gone.
    pub(super) async fn advance(&mut self, ctx: &Context<'_>, guest: &Guest) -> Result<Option<Outcome>, Fault> {
        let (driver, at) = (&*guest.driver, &guest.at);
        if self.stop.task.is_none() && self.delete.task.is_none() {
            match driver.find(at).await? {
                Presence::Absent => return Ok(None),
                // It is being made or snapshotted: the host would refuse.
                Presence::Present { busy: true, .. } => {
                    return Ok(Some(Outcome::Wait { after: Duration::from_millis(500), progress: None }));
                }
                Presence::Present { power, .. } => {
                    // Before anything is touched: a guest that the host keeps is not to be stopped for nothing.
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
                "The host said that the server was deleted, but it is still there.",
            )),
        }
    }
}

impl Removal {
    /// The way back from a removal that could not be: a guest that ran runs again. `None`: it does, or can't any more.
    pub(super) async fn restore(&mut self, ctx: &Context<'_>, guest: &Guest) -> Result<Option<Outcome>, Fault> {
        if !self.ran {
            return Ok(None);
        }
        let (driver, at) = (&*guest.driver, &guest.at);
        if self.start.task.is_none() {
            match driver.find(at).await {
                Ok(Presence::Present { busy: true, .. }) => return Ok(Some(BUSY)),
                Ok(Presence::Present { power: GuestPower::Stopped, .. }) => {}
                Err(error) if error.is_transient() && ctx.attempts < STARTS => return Err(error.into()),
                _ => return Ok(None),
            }
        }
        match self.start.drive(ctx, driver, || driver.start(at)).await {
            Err(fault) if fault.kind != FaultKind::Retry || ctx.attempts >= STARTS => {
                // Its disks may be gone already: it is shown as it is.
                let detail = fault.detail.as_deref().unwrap_or(&fault.message);
                tracing::warn!(operation = %ctx.operation, detail, "a guest that ran before could not be started again");
                Ok(None)
            }
            outcome => outcome,
        }
    }
}

/// The last step of a way back: the server shows what a look at the host finds, or that the host can't be asked now.
pub(crate) async fn settle(hosts: &Hosts, ctx: &Context<'_>) -> Result<Outcome, Fault> {
    settle_as(hosts, ctx, None).await
}

/// The same where the request said that it should be up, or down: that is as it was `before`, where that is known.
pub(super) async fn settle_as(hosts: &Hosts, ctx: &Context<'_>, before: Option<bool>) -> Result<Outcome, Fault> {
    let guest = Guest::load(hosts, ctx).await?;
    let Some(status) = guest.standing().await else { return Ok(BUSY) };
    let mut tx = ctx.begin().await?;
    store::set_status(&mut tx, ctx.server, status).await?;
    if let Some(up) = before {
        store::set_wanted_up(&mut tx, ctx.server, up).await?;
    }
    Ok(Outcome::DoneIn(tx))
}

/// How long to leave a host alone that is still at work on the guest: how it stands now is not how it will.
pub(crate) const BUSY: Outcome = Outcome::Wait { after: Duration::from_secs(1), progress: None };
