//! Snapshots.
//!
//! Incus restores an instance's *configuration* together with its disk, and the root volume's as well. Ours must not:
//! a resize since the snapshot would be lost, and with it what the customer pays for. So a roll-back first saves what
//! must stay, in a profile beside the instance that nothing uses: `ink-<vmid>-keep`. Creating it is atomic (an
//! existing one is an earlier attempt's, and right); once the restore has ended, [`settle`] restores what was saved
//! and deletes the profile, in whichever process of ours.

use async_trait::async_trait;
use chrono::Utc;
use hypervisor::{Error, GuestPower, GuestRef, Result, Snapshot, Snapshots, Task, TaskState};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Incus;
use crate::api::{Devices, IncusOperation, Instance, InstanceSnapshot, Map};
use crate::client::{Client, Reply};
use crate::lookup::{self, MARKER};
use crate::operations::{IncusFollowUp, chained, change_power, ended, join, plain};
use crate::rows::rows;

/// The config key for the description of the next snapshot, which copies the instance's config.
const NOTE: &str = "user.innkeeper.note";
/// The profile's config key for what a roll-back must not change.
const KEEP: &str = "user.innkeeper.keep";

/// The settings that a rollback must not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Keep {
    running: bool,
    config: Map,
    devices: Devices,
}

impl Keep {
    fn of(instance: &Instance) -> Self {
        let config =
            instance.config.iter().filter(|(key, _)| is_kept(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
        Self { running: instance.power() == GuestPower::Running, config, devices: instance.devices.clone() }
    }
}

/// Whether a config key is ours to restore: not one that Incus or the image wrote.
fn is_kept(key: &str) -> bool {
    !(key.starts_with("volatile.") || key.starts_with("image.") || key == NOTE)
}

fn check(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 63 || name.starts_with('.') || !name.chars().all(plain) {
        return Err(Error::Invalid(format!("{name:?} is not a valid snapshot name")));
    }
    Ok(())
}

#[async_trait]
impl Snapshots for Incus {
    async fn snapshots(&self, guest: &GuestRef) -> Result<Vec<Snapshot>> {
        let client = &self.client;
        let instance = lookup::require(client, guest).await?;
        let mut snapshots: Vec<InstanceSnapshot> = rows(client, &["instances", &instance.name, "snapshots"]).await?;
        snapshots.sort_by_key(|s| s.created_at);
        Ok(snapshots
            .into_iter()
            .map(|s| Snapshot {
                // Some versions return `instance/snapshot`.
                name: s.name.rsplit('/').next().unwrap_or_default().to_owned(),
                description: s.config.get(NOTE).cloned().unwrap_or_default(),
                taken_at: s.created_at.with_timezone(&Utc),
                parent: None,
                usable: true,
                size: s.size.and_then(|size| u64::try_from(size).ok()).filter(|size| *size > 0),
            })
            .collect())
    }

    async fn create_snapshot(&self, guest: &GuestRef, name: &str, description: &str) -> Result<Task> {
        let client = &self.client;
        check(name)?;
        let instance = lookup::require(client, guest).await?;
        if exists(client, &instance.name, name).await? {
            return Err(Error::AlreadyExists(format!("snapshot {name} of {}", instance.name)));
        }
        if let Some(operation) = join(client, &instance.name, "Snapshotting instance").await? {
            return Err(Error::Locked(format!("{}: {}", instance.name, operation.description)));
        }
        if instance.config.get(NOTE).map_or("", String::as_str) != description {
            let body = json!({"config": {NOTE: description}});
            client.send_and_wait(Method::PATCH, &["instances", &instance.name], Some(&body)).await?;
        }
        let body = json!({"name": name, "stateful": false});
        client.send(Method::POST, &["instances", &instance.name, "snapshots"], Some(&body)).await.map(plain)
    }

    async fn rollback(&self, guest: &GuestRef, name: &str) -> Result<Task> {
        let client = &self.client;
        check(name)?;
        let instance = lookup::require(client, guest).await?;
        if let Some(operation) = join(client, &instance.name, "Restoring snapshot").await? {
            return Ok(chained(&operation.id, IncusFollowUp::Settle, guest));
        }
        if !exists(client, &instance.name, name).await? {
            return Err(Error::NotFound(format!("snapshot {name} of {}", instance.name)));
        }
        // What an earlier attempt saved is right: the instance may have the snapshot's configuration by now.
        if load_preserved(client, guest).await?.is_none() {
            keep(client, guest, &Keep::of(&instance)).await?;
        }
        let body = json!({"restore": name, "stateful": false});
        match client.send(Method::PUT, &["instances", &instance.name], Some(&body)).await? {
            Reply::Operation(operation) => Ok(chained(&operation.id, IncusFollowUp::Settle, guest)),
            Reply::Done => Err(Error::Failed("Incus restored a snapshot without returning an operation".to_owned())),
        }
    }

    async fn delete_snapshot(&self, guest: &GuestRef, name: &str) -> Result<Task> {
        let client = &self.client;
        check(name)?;
        let instance = lookup::require(client, guest).await?;
        if let Some(operation) = join(client, &instance.name, "Deleting snapshot").await? {
            return Err(Error::Locked(format!("{}: {}", instance.name, operation.description)));
        }
        match client.send(Method::DELETE, &["instances", &instance.name, "snapshots", name], None).await {
            Ok(reply) => Ok(plain(reply)),
            Err(Error::NotFound(_)) => Ok(Task::Done),
            Err(error) => Err(error),
        }
    }
}

async fn exists(client: &Client, instance: &str, name: &str) -> Result<bool> {
    Ok(client.get_opt::<Value>(&["instances", instance, "snapshots", name], &[]).await?.is_some())
}

/// The restore has ended or is forgotten: undo what it must not change.
pub(crate) async fn settle(
    client: &Client,
    operation: Option<&IncusOperation>,
    guest: &GuestRef,
    instance: &Instance,
) -> Result<TaskState> {
    let outcome = operation.map_or(TaskState::Unknown, ended);
    let Some(keep) = load_preserved(client, guest).await? else { return Ok(outcome) };
    let now = Keep::of(instance);
    if now.config != keep.config || now.devices != keep.devices {
        restore_preserved(client, &instance.name, &keep).await?;
    }
    if keep.running && instance.power() == GuestPower::Stopped {
        match change_power(client, &instance.name, "start").await? {
            TaskState::Succeeded(_) => {}
            other => return Ok(other),
        }
    }
    forget(client, guest).await?;
    Ok(outcome)
}

async fn restore_preserved(client: &Client, name: &str, keep: &Keep) -> Result<()> {
    // The whole configuration: PATCH can't remove keys that the snapshot brought back.
    let mut whole: serde_json::Map<String, Value> = client.get(&["instances", name], &[]).await?;
    let mut config = keep.config.clone();
    if let Some(Value::Object(now)) = whole.get("config") {
        let theirs = now.iter().filter(|(key, _)| !is_kept(key));
        config.extend(theirs.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))));
    }
    whole.insert("config".to_owned(), json!(config));
    whole.insert("devices".to_owned(), json!(keep.devices));
    whole.retain(|key, _| {
        ["architecture", "config", "devices", "ephemeral", "profiles", "stateful", "description"]
            .contains(&key.as_str())
    });
    client.send_and_wait(Method::PUT, &["instances", name], Some(&Value::Object(whole))).await
}

fn preserved_profile(guest: &GuestRef) -> String {
    format!("{}-keep", lookup::name(guest))
}

/// What an unfinished roll-back has saved.
async fn load_preserved(client: &Client, guest: &GuestRef) -> Result<Option<Keep>> {
    #[derive(Deserialize)]
    struct Profile {
        config: Map,
    }
    let name = preserved_profile(guest);
    let Some(profile) = client.get_opt::<Profile>(&["profiles", &name], &[]).await? else { return Ok(None) };
    if profile.config.get(MARKER) != Some(&guest.marker.to_string()) {
        return Err(Error::NotOurs(format!("profile {name}")));
    }
    let text = profile.config.get(KEEP).map_or("", String::as_str);
    serde_json::from_str(text).map(Some).map_err(|e| Error::Failed(format!("the profile {name} can't be read: {e}")))
}

pub(crate) async fn unfinished(client: &Client, guest: &GuestRef) -> Result<bool> {
    Ok(load_preserved(client, guest).await?.is_some())
}

async fn keep(client: &Client, guest: &GuestRef, keep: &Keep) -> Result<()> {
    let text = serde_json::to_string(keep).map_err(|e| Error::Failed(e.to_string()))?;
    let config = json!({MARKER: guest.marker.to_string(), KEEP: text});
    let body = json!({"name": preserved_profile(guest), "config": config, "devices": {}});
    match client.send_and_wait(Method::POST, &["profiles"], Some(&body)).await {
        // Another process of ours was faster, and saw the same or better.
        Err(Error::AlreadyExists(_)) => Ok(()),
        other => other,
    }
}

/// Deletes what an unfinished roll-back has saved, if anything.
pub(crate) async fn forget(client: &Client, guest: &GuestRef) -> Result<()> {
    if !unfinished(client, guest).await? {
        return Ok(());
    }
    match client.send_and_wait(Method::DELETE, &["profiles", &preserved_profile(guest)], None).await {
        Err(Error::NotFound(_)) => Ok(()),
        other => other,
    }
}
