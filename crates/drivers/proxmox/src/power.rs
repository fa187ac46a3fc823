//! Power: starting, stopping and restarting.
//!
//! After a node's restart Proxmox VE starts the guests with `onboot`. We set it when a guest is started and clear it
//! before a stop, so that after a power failure the guests that ran run again.

use std::time::Duration;

use async_trait::async_trait;
use hypervisor::{Error, GuestPower, GuestRef, Power, Result, StopMode, Task, TaskState};
use serde_json::Value;

use crate::api::TaskRow;
use crate::client::Client;
use crate::place::{self, LocatedGuest, Place};
use crate::tasks::{self, Followed, PveFollowUp, TaskOutcome, Upid, chained, power_result};
use crate::{Proxmox, locks, lookup, marker};

/// A node's names for kinds of tasks.
pub(crate) const STARTS: &[&str] = &["vzstart", "qmstart", "hastart"];
const STOPS: &[&str] = &["vzstop", "qmstop", "hastop"];
const SHUTDOWNS: &[&str] = &["vzshutdown", "qmshutdown", "vzreboot", "qmreboot"];

#[async_trait]
impl Power for Proxmox {
    async fn start(&self, guest: &GuestRef) -> Result<Task> {
        let client = &self.client;
        let found = lookup::require(client, guest).await?;
        if !found.whole {
            let text = format!("the creation of {} was never seen to complete: create it again", guest.vmid);
            return Err(Error::Conflict(text));
        }
        let action = match found.power() {
            GuestPower::Running => return Ok(Task::Done),
            GuestPower::Stopped => "start",
            // A paused VM is resumed, not started.
            GuestPower::Paused | GuestPower::Unknown => "resume",
        };
        locks::free_or_hibernated(client, &found).await?;
        // A hibernated machine's configuration can't be changed before it is up, and still has `onboot`.
        if found.status.lock.is_empty() {
            onboot(client, &found.at, guest, "1").await?;
        }
        match act(client, &found.at, action, &[]).await {
            Ok(upid) => Ok(chained(&upid, PveFollowUp::Started, guest)),
            Err(error) => or_already(client, guest, GuestPower::Running, error).await,
        }
    }

    async fn stop(&self, guest: &GuestRef, mode: StopMode) -> Result<Task> {
        let client = &self.client;
        let found = lookup::require(client, guest).await?;
        // A half-made guest never ran.
        if found.status.power() == GuestPower::Stopped {
            return Ok(Task::Done);
        }
        let under_way = shutdown_under_way(client, &found.at).await?;
        if let (StopMode::Clean { .. }, Some(row)) =
            (mode, under_way.as_ref().filter(|row| row.kind.ends_with("shutdown")))
        {
            return Ok(chained(&row.upid, PveFollowUp::Stopped, guest));
        }
        locks::check_unlocked(client, &found).await?;
        let submitted = match mode {
            StopMode::Clean { timeout } => {
                onboot(client, &found.at, guest, "0").await?;
                let seconds = timeout.as_secs().max(1).to_string();
                act(client, &found.at, "shutdown", &[("timeout", &seconds), ("forceStop", "1")]).await
            }
            StopMode::Force => {
                // It would hold the guest's lock until its own timeout.
                if let Some(row) = under_way {
                    client.delete::<Value>(&["nodes", &found.at.node, "tasks", &row.upid], &[]).await?;
                }
                onboot(client, &found.at, guest, "0").await?;
                act(client, &found.at, "stop", &[]).await
            }
        };
        match submitted {
            Ok(upid) => Ok(chained(&upid, PveFollowUp::Stopped, guest)),
            Err(error) => or_already(client, guest, GuestPower::Stopped, error).await,
        }
    }

    async fn restart(&self, guest: &GuestRef, timeout: Duration) -> Result<Task> {
        let client = &self.client;
        let found = lookup::require(client, guest).await?;
        if let Some(row) = shutdown_under_way(client, &found.at).await?.filter(|row| row.kind.ends_with("reboot")) {
            return Ok(chained(&row.upid, PveFollowUp::Restarted, guest));
        }
        if found.power() != GuestPower::Running {
            return self.start(guest).await;
        }
        // A reboot does not check the lock: it stops the guest and then can't start it.
        locks::check_unlocked(client, &found).await?;
        found.check_room()?;
        let seconds = timeout.as_secs().max(1).to_string();
        match act(client, &found.at, "reboot", &[("timeout", &seconds)]).await {
            Ok(upid) => Ok(chained(&upid, PveFollowUp::Restarted, guest)),
            // It stopped by itself after we looked.
            Err(Error::Conflict(_)) => self.start(guest).await,
            Err(error) => Err(error),
        }
    }
}

/// A stop's task has ended: forces the stop if the guest still runs.
pub(crate) async fn stopped(client: &Client, upid: &Upid, end: TaskOutcome, found: &LocatedGuest) -> Result<Followed> {
    match (&end, found.status.power()) {
        (_, GuestPower::Stopped) | (TaskOutcome::Succeeded(_), _) => {
            Ok(power_result(end, found.status.power(), GuestPower::Stopped).into())
        }
        // Only a clean stop is followed by a forced one.
        (TaskOutcome::Failed(Error::Conflict(_)), _) if upid.kind.ends_with("shutdown") => {
            let forced = tasks::submit_next(client, upid, found, STOPS, || act(client, &found.at, "stop", &[])).await?;
            let again = "it was started again while it was being stopped";
            Ok(Followed::or(forced, Error::Conflict(again.to_owned())))
        }
        _ => Ok(end.into()),
    }
}

/// A restart's task has ended: starts the guest if it is stopped, and forces the stop first if it would not stop.
pub(crate) async fn restarted(
    client: &Client,
    upid: &Upid,
    end: TaskOutcome,
    found: &LocatedGuest,
) -> Result<Followed> {
    let start = || act(client, &found.at, "start", &[]);
    match (&end, found.power()) {
        // The task, or the node's own restart, has stopped it in between.
        (TaskOutcome::Succeeded(_) | TaskOutcome::Lost, GuestPower::Running) => Ok(TaskState::Succeeded(None).into()),
        (_, GuestPower::Stopped) => {
            match locks::free_or_hibernated(client, found).await {
                Ok(()) => {}
                Err(error) if error.is_transient() => return Ok(TaskState::Running(None).into()),
                Err(error) => return Ok(TaskState::Failed(error).into()),
            }
            let started = tasks::submit_next(client, upid, found, STARTS, start).await?;
            Ok(or_stopped_again(started))
        }
        // What held the guest will pass; it has not been asked to stop yet.
        (TaskOutcome::Failed(error), _) if error.is_transient() => Ok(end.into()),
        (TaskOutcome::Failed(_), _) => {
            if tasks::follower(client, upid, &found.at, STARTS).await?.is_some() {
                return Ok(TaskState::Succeeded(None).into());
            }
            let forced = tasks::submit_next(client, upid, found, STOPS, || act(client, &found.at, "stop", &[])).await?;
            Ok(forced.unwrap_or(TaskState::Running(None)).into())
        }
        _ => Ok(end.into()),
    }
}

async fn act(client: &Client, at: &Place, action: &str, form: &[(&str, &str)]) -> Result<String> {
    client.post(&at.path(&["status", action]), form).await
}

/// Starts a guest that a rollback left stopped.
pub(crate) async fn start_after(client: &Client, upid: &Upid, found: &LocatedGuest) -> Result<Followed> {
    let started = tasks::submit_next(client, upid, found, STARTS, || act(client, &found.at, "start", &[])).await?;
    Ok(or_stopped_again(started))
}

fn or_stopped_again(started: Option<TaskState>) -> Followed {
    Followed::or(started, Error::Conflict("it stopped again after it was started".to_owned()))
}

async fn shutdown_under_way(client: &Client, at: &Place) -> Result<Option<TaskRow>> {
    Ok(place::active(client, at).await?.into_iter().find(|row| SHUTDOWNS.contains(&row.kind.as_str())))
}

/// Sets whether the guest starts with its node, and restores our tag if somebody removed it.
async fn onboot(client: &Client, at: &Place, guest: &GuestRef, flag: &str) -> Result<()> {
    let now = place::config(client, at).await?;
    let tags = marker::tags_with(&now.get("tags").unwrap_or_default(), guest);
    // A missing flag means off.
    let flag = Some(flag.to_owned()).filter(|flag| now.get("onboot").as_deref().unwrap_or("0") != flag);
    let mut wanted = vec![("tags", Some(tags))];
    wanted.extend(flag.map(|flag| ("onboot", Some(flag))));
    place::change(client, at, &now, &wanted).await
}

/// A change of power may be refused because the guest changed by itself after we looked: if that is the wanted state,
/// it is done.
async fn or_already(client: &Client, guest: &GuestRef, wanted: GuestPower, error: Error) -> Result<Task> {
    match error {
        Error::Conflict(_) if lookup::require(client, guest).await?.status.power() == wanted => Ok(Task::Done),
        other => Err(other),
    }
}
