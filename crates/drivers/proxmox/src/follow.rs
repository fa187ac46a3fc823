//! Following a task to its end: its outcome, and what is still missing.
//!
//! What follows is decided by level, not by edge: once a task has ended or is lost, the guest's own state says what
//! is left to do. Whether that was submitted already, and its outcome, is read from the node's list of tasks.

use async_trait::async_trait;
use hypervisor::{Error, GuestKind, GuestPower, GuestRef, Result, TaskId, TaskState, Tasks};

use crate::api::GuestStatus;
use crate::client::Client;
use crate::error::config_lock;
use crate::lookup::{self, Lookup};
use crate::place::Place;
use crate::tasks::{Followed, PveFollowUp, PveTaskId, TaskOutcome, Upid, parse, power_result, state};
use crate::{Proxmox, create, locks, power, snapshots};

#[async_trait]
impl Tasks for Proxmox {
    async fn task(&self, id: &TaskId) -> Result<TaskState> {
        let state = carry_on(&self.client, id).await?;
        Ok(explained(&self.client, id, state).await)
    }
}

async fn carry_on(client: &Client, id: &TaskId) -> Result<TaskState> {
    let PveTaskId { upid, follow_up } = parse(id)?;
    let end = state(client, &upid).await?;
    let Some((then, guest)) = follow_up.filter(|_| end != TaskOutcome::Running) else { return Ok(end.into()) };
    // The HA manager only takes a request: its effect shows in the guest's state.
    let asked_only = upid.kind.starts_with("ha");
    match (then, &end) {
        (PveFollowUp::Made | PveFollowUp::Sized(_), TaskOutcome::Lost | TaskOutcome::Failed(_))
        | (PveFollowUp::Deleted, TaskOutcome::Lost | TaskOutcome::Succeeded(_)) => return Ok(end.into()),
        (PveFollowUp::Started | PveFollowUp::Stopped, TaskOutcome::Succeeded(_)) if !asked_only => {
            return Ok(end.into());
        }
        _ => {}
    }
    match follow(client, &upid, end.clone(), then, &guest).await? {
        Followed::State(state) => Ok(state),
        Followed::Contradicted(_) => match follow(client, &upid, end, then, &guest).await? {
            Followed::State(state) => Ok(state),
            Followed::Contradicted(error) => Ok(TaskState::Failed(error)),
        },
    }
}

/// Looks at the guest whose task has ended, and does what is still missing.
async fn follow(
    client: &Client,
    upid: &Upid,
    end: TaskOutcome,
    then: PveFollowUp,
    guest: &GuestRef,
) -> Result<Followed> {
    let found = match lookup::lookup(client, guest).await {
        Ok(Lookup::Ours(found)) => found,
        Ok(Lookup::Coming(_)) => return Ok(TaskState::Running(None).into()),
        Ok(Lookup::Absent) => {
            return Ok(match end {
                TaskOutcome::Failed(_) if matches!(then, PveFollowUp::Deleted) => TaskState::Succeeded(None).into(),
                TaskOutcome::Succeeded(_) => TaskState::Failed(Error::NotFound("the guest is gone".to_owned())).into(),
                other => other.into(),
            });
        }
        Err(error @ Error::NotOurs(_)) => return Ok(TaskState::Failed(error).into()),
        Err(error) => return Err(error),
    };
    match then {
        PveFollowUp::Made | PveFollowUp::Deleted => Ok(end.into()),
        PveFollowUp::Sized(limits) => {
            create::complete(client, upid, end, &found, guest, &limits).await.map(Followed::State)
        }
        PveFollowUp::Started => Ok(power_result(end, found.power(), GuestPower::Running).into()),
        PveFollowUp::Stopped => power::stopped(client, upid, end, &found).await,
        PveFollowUp::Restarted => power::restarted(client, upid, end, &found).await,
        PveFollowUp::Settled => snapshots::settle(client, upid, end, &found).await,
    }
}

/// If the task failed for a lock, the error says whether that will pass.
async fn explained(client: &Client, id: &TaskId, state: TaskState) -> TaskState {
    let TaskState::Failed(error) = &state else { return state };
    let Some(upid) = Upid::parse(id.0.split('?').next().unwrap_or_default()).ok().filter(|_| config_lock(error)) else {
        return state;
    };
    // The text names the guest's kind; the task's kind may not (`resize`).
    let kind = if error.to_string().contains("CT is locked") { GuestKind::Lxc } else { GuestKind::Vm };
    let at = Place { node: upid.node, kind, vmid: upid.id };
    match client.get::<GuestStatus>(&at.path(&["status", "current"]), &[]).await {
        Ok(status) if !status.lock.is_empty() => match locks::held(client, &at, &status.lock).await {
            Ok(Error::Locked(_)) | Err(_) => state,
            Ok(told) => TaskState::Failed(told),
        },
        _ => state,
    }
}
