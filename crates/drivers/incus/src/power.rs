//! Power: starting, stopping and restarting.

use std::time::Duration;

use async_trait::async_trait;
use hypervisor::{Error, GuestKind, GuestPower, GuestRef, Power, Result, StopMode, Task};
use reqwest::Method;
use serde_json::json;

use crate::client::{Client, Reply};
use crate::lookup::{READY, require};
use crate::operations::{IncusFollowUp, chained, chained_reply, join};
use crate::{Incus, files, processes};

/// How many bytes of its disk a container must have free to be restarted.
const MARGIN: usize = 1 << 20;
/// The file that is written to find out, and deleted at once.
const MARGIN_FILE: &str = "/.innkeeper-margin";

#[async_trait]
impl Power for Incus {
    async fn start(&self, guest: &GuestRef) -> Result<Task> {
        let client = &self.client;
        let instance = require(client, guest).await?;
        if let Some(operation) = join(client, &instance.name, "Starting instance").await? {
            return Ok(chained(&operation.id, IncusFollowUp::Started, guest));
        }
        if instance.power() == GuestPower::Running {
            return Ok(Task::Done);
        }
        if !instance.config.contains_key(READY) {
            return Err(Error::Conflict(format!(
                "the creation of {} was never seen to complete: create it again",
                instance.name
            )));
        }
        processes::apply(client, &instance).await?;
        // A frozen guest is resumed, not started.
        let action = if instance.power() == GuestPower::Paused { "unfreeze" } else { "start" };
        let reply = set_state(client, &instance.name, action, false, 0).await;
        let reply = or_already(client, guest, GuestPower::Running, reply).await?;
        Ok(chained_reply(reply, IncusFollowUp::Started, guest))
    }

    async fn stop(&self, guest: &GuestRef, mode: StopMode) -> Result<Task> {
        let client = &self.client;
        let instance = require(client, guest).await?;
        let then = IncusFollowUp::Stopped { boot: instance.boot() };
        let reply = match mode {
            // Not joined: a hanging clean stop needs just this, and Incus allows it.
            StopMode::Force if instance.power() == GuestPower::Stopped => return Ok(Task::Done),
            StopMode::Force => set_state(client, &instance.name, "stop", true, 0).await,
            StopMode::Clean { timeout } => {
                if let Some(operation) = join(client, &instance.name, "Stopping instance").await? {
                    return Ok(chained(&operation.id, then, guest));
                }
                if instance.power() == GuestPower::Stopped {
                    return Ok(Task::Done);
                }
                set_state(client, &instance.name, "stop", false, timeout.as_secs().max(1)).await
            }
        };
        let reply = or_already(client, guest, GuestPower::Stopped, reply).await?;
        Ok(chained_reply(reply, then, guest))
    }

    async fn restart(&self, guest: &GuestRef, timeout: Duration) -> Result<Task> {
        let client = &self.client;
        let instance = require(client, guest).await?;
        let then = IncusFollowUp::Restarted { boot: instance.boot() };
        if let Some(operation) = join(client, &instance.name, "Restarting instance").await? {
            return Ok(chained(&operation.id, then, guest));
        }
        if instance.power() == GuestPower::Stopped {
            return self.start(guest).await;
        }
        has_room(client, &instance.name).await?;
        has_margin(client, guest, &instance.name).await?;
        processes::apply(client, &instance).await?;
        match set_state(client, &instance.name, "restart", false, timeout.as_secs().max(1)).await {
            // It stopped by itself after we looked: the next try starts it.
            Err(Error::Conflict(detail)) => Err(Error::Locked(detail)),
            reply => Ok(chained_reply(reply?, then, guest)),
        }
    }
}

async fn set_state(client: &Client, name: &str, action: &str, force: bool, timeout: u64) -> Result<Reply> {
    let body = json!({"action": action, "force": force, "timeout": timeout});
    client.send(Method::PUT, &["instances", name, "state"], Some(&body)).await
}

/// A change of power may be refused because the guest changed by itself after we looked: it is done if that is the
/// wanted state, else the caller tries again.
async fn or_already(client: &Client, guest: &GuestRef, wanted: GuestPower, reply: Result<Reply>) -> Result<Reply> {
    match reply {
        Err(Error::Conflict(_)) if require(client, guest).await?.power() == wanted => Ok(Reply::Done),
        Err(Error::Conflict(detail)) => Err(Error::Locked(detail)),
        other => other,
    }
}

/// Refuses a container into which [`MARGIN`] no longer fits: what ends writes its logs first, and then it could not
/// start again. Incus's own figure leaves out what the disk shares with the image, so a file is written to find out.
async fn has_margin(client: &Client, guest: &GuestRef, name: &str) -> Result<()> {
    if guest.kind != GuestKind::Lxc {
        return Ok(());
    }
    let written = files::post(client, name, (MARGIN_FILE, "file", 0o600), vec![0; MARGIN]).await;
    // What is half written is there as well.
    let deleted = files::delete(client, name, MARGIN_FILE).await;
    match (written, deleted) {
        (Err(error @ (Error::DiskFull(_) | Error::Exhausted(_))), _) => Err(error),
        // Incus's helper fails now and then on a busy machine. The file must not stay, so all of this is tried again.
        (Ok(()), Err(error)) if !matches!(error, Error::NotFound(_)) => Err(Error::Locked(error.to_string())),
        // Any other error is for the actual call to report.
        _ => Ok(()),
    }
}

/// Refuses a guest whose disk is so full that Incus could not start it: at each start and each change Incus writes the
/// guest's backup file into the guest's own volume. An empty change finds out.
pub(crate) async fn has_room(client: &Client, name: &str) -> Result<()> {
    match client.send_and_wait(Method::PATCH, &["instances", name], Some(&json!({}))).await {
        Err(error @ (Error::DiskFull(_) | Error::Exhausted(_))) => Err(error),
        // Any other error is for the actual call to report.
        _ => Ok(()),
    }
}
