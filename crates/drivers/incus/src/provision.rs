//! A guest's life: made, prepared, resized, deleted.

use std::time::Duration;

use async_trait::async_trait;
use hypervisor::{Error, GuestKind, GuestPower, GuestRef, GuestSize, GuestSpec, Provision, Result, Task, check};
use reqwest::Method;
use serde_json::{Map as JsonMap, Value, json};

use crate::api::{GIB, Instance, PoolResources};
use crate::client::{Client, Reply, failure};
use crate::lookup::{MARKER, READY, get, instance_type, name, require};
use crate::network::{self, NIC};
use crate::operations::{IncusFollowUp, busy, chained, join, plain};
use crate::{Incus, images, prepare, processes, snapshots};

/// How long `create` waits for the deletion of a half-made guest.
const REMAKE_WAIT: Duration = Duration::from_mins(1);
/// The config key that protects an instance from deletion.
const PROTECTED: &str = "security.protection.delete";

#[async_trait]
impl Provision for Incus {
    async fn check_create(&self, spec: &GuestSpec) -> Result<()> {
        let client = &self.client;
        let present = match get(client, &spec.guest).await {
            Err(Error::NotOurs(name)) => return Err(Error::AlreadyExists(name)),
            found => found?,
        };
        creation(client, spec, &name(&spec.guest)).await?;
        room(client, present.as_ref()).await
    }

    async fn create(&self, spec: &GuestSpec) -> Result<Task> {
        let client = &self.client;
        let name = name(&spec.guest);
        let present = match get(client, &spec.guest).await {
            Err(Error::NotOurs(name)) => return Err(Error::AlreadyExists(name)),
            other => other?,
        };
        // Also when nothing is there: a creation that has just begun may not have written its instance yet.
        if let Some(operation) = join(client, &name, "Creating instance").await? {
            return Ok(chained(&operation.id, IncusFollowUp::Confirm, &spec.guest));
        }
        if let Some(instance) = present {
            if instance.config.contains_key(READY) {
                return Ok(Task::Done);
            }
            if instance.power() != GuestPower::Stopped {
                // Somebody started it by hand. It may be complete and in use: a person has to decide.
                return Err(Error::Conflict(format!("{name} is running, but its creation was never seen to complete")));
            }
            tracing::warn!(instance = name, "recreating a half-made guest");
            remove(client, &name).await?;
        }
        let body = creation(client, spec, &name).await?;
        match client.send(Method::POST, &["instances"], Some(&body)).await? {
            Reply::Operation(operation) => Ok(chained(&operation.id, IncusFollowUp::Confirm, &spec.guest)),
            Reply::Done => Err(Error::Failed("Incus created an instance without returning an operation".to_owned())),
        }
    }

    async fn prepare(&self, spec: &GuestSpec) -> Result<()> {
        let client = &self.client;
        let cloud_init = prepare::cloud_init(spec, client.config.search_domain.as_deref())?;
        let instance = require(client, &spec.guest).await?;
        if instance.power() != GuestPower::Stopped {
            return Err(Error::Conflict(format!("{} is not stopped", instance.name)));
        }
        let name = instance.name.as_str();
        let mut change = JsonMap::new();
        if cloud_init.iter().any(|(key, value)| instance.config.get(key) != Some(value)) {
            change.insert("config".to_owned(), json!(cloud_init));
        }
        let nic = network::nic(client, &spec.network, &spec.limits).await?;
        if let Some(nic) = nic.filter(|nic| instance.devices.get(NIC) != Some(nic)) {
            change.insert("devices".to_owned(), json!({NIC: nic}));
        }
        if !change.is_empty() {
            client.send_and_wait(Method::PATCH, &["instances", name], Some(&Value::Object(change))).await?;
        }
        match spec.guest.kind {
            GuestKind::Lxc => prepare::write_files(client, name, spec).await,
            // We can't write to a stopped VM's disk: its image must read cloud-init.
            GuestKind::Vm => Ok(()),
        }
    }

    async fn resize(&self, guest: &GuestRef, limits: &GuestSize) -> Result<Task> {
        let client = &self.client;
        if limits.cores == Some(0) || limits.memory_mib == Some(0) {
            return Err(Error::Invalid("cores and memory must be greater than 0".to_owned()));
        }
        let instance = require(client, guest).await?;
        let mut config = JsonMap::new();
        let wanted = [
            ("limits.cpu", limits.cores.map(|n| n.to_string())),
            ("limits.memory", limits.memory_mib.map(|n| format!("{n}MiB"))),
            (processes::KEY, limits.memory_mib.and_then(|n| processes::limit(&client.config, guest.kind, n))),
        ];
        for (key, value) in wanted {
            if let Some(value) = value.filter(|value| instance.expanded_config.get(key) != Some(value)) {
                config.insert(key.to_owned(), Value::String(value));
            }
        }
        let mut devices = JsonMap::new();
        if let Some(gib) = limits.disk_gib {
            let (name, root) = instance.root_disk().ok_or_else(|| Error::Failed("it has no root disk".to_owned()))?;
            let (now, then) = (instance.disk_size().unwrap_or(0), gib.saturating_mul(GIB));
            if then < now {
                return Err(Error::Invalid(format!("the disk has {} GiB and can't shrink to {gib} GiB", now / GIB)));
            }
            if then > now {
                let mut root = root.clone();
                root.insert("size".to_owned(), format!("{gib}GiB"));
                devices.insert(name.to_owned(), json!(root));
            }
        }
        if let Some(mbps) = limits.bandwidth_mbps
            && let Some((name, nic)) = instance.nic()
        {
            let mut limited = nic.clone();
            network::limit(mbps, &mut limited);
            if limited != *nic {
                devices.insert(name.to_owned(), json!(limited));
            }
        }
        if let Some(operation) = busy(client, &instance.name).await? {
            return Err(Error::Locked(format!("{}: {}", instance.name, operation.description)));
        }
        if snapshots::unfinished(client, guest).await? {
            // Finishing it would undo this change.
            return Err(Error::Conflict(format!("a rollback of {} is unfinished: repeat it first", instance.name)));
        }
        if config.is_empty() && devices.is_empty() {
            return Ok(Task::Done);
        }
        let body = json!({"config": config, "devices": devices});
        client.send(Method::PATCH, &["instances", &instance.name], Some(&body)).await.map(plain)
    }

    async fn check_delete(&self, guest: &GuestRef) -> Result<()> {
        let client = &self.client;
        get(client, guest).await?.map_or(Ok(()), |instance| unprotected(client, &instance))
    }

    async fn delete(&self, guest: &GuestRef) -> Result<Task> {
        let client = &self.client;
        let present = get(client, guest).await?;
        // Also when nothing is there: a creation that has just begun may not have written its instance yet.
        if let Some(operation) = join(client, &name(guest), "Deleting instance").await? {
            return Ok(plain(Reply::Operation(operation)));
        }
        let present = if present.is_some() { present } else { get(client, guest).await? };
        let Some(instance) = present else { return Ok(Task::Done) };
        if matches!(instance.power(), GuestPower::Running | GuestPower::Paused) {
            return Err(Error::Conflict(format!("{} is running", instance.name)));
        }
        unprotected(client, &instance)?;
        // Before the guest: nothing refers to it afterwards.
        snapshots::forget(client, guest).await?;
        match client.send(Method::DELETE, &["instances", &instance.name], None).await {
            Ok(reply) => Ok(plain(reply)),
            Err(Error::NotFound(_)) => Ok(Task::Done),
            Err(error) => Err(error),
        }
    }
}

async fn remove(client: &Client, name: &str) -> Result<()> {
    match client.send(Method::DELETE, &["instances", name], None).await {
        Ok(Reply::Done) | Err(Error::NotFound(_)) => Ok(()),
        Ok(Reply::Operation(operation)) => {
            let ended = client.wait(&operation.id, REMAKE_WAIT).await?;
            if ended.is_success() { Ok(()) } else { Err(failure(&ended.err)) }
        }
        Err(error) => Err(error),
    }
}

async fn creation(client: &Client, spec: &GuestSpec, name: &str) -> Result<Value> {
    let (cores, memory, disk) = check::size(&spec.limits)?;
    let fingerprint = images::for_spec(client, spec).await?;
    let mut config = prepare::cloud_init(spec, client.config.search_domain.as_deref())?;
    config.insert(MARKER.to_owned(), spec.guest.marker.to_string());
    config.insert("limits.cpu".to_owned(), cores.to_string());
    config.insert("limits.memory".to_owned(), format!("{memory}MiB"));
    config.extend(processes::limit(&client.config, spec.guest.kind, memory).map(|n| (processes::KEY.to_owned(), n)));
    // `boot.autostart` stays unset: after a reboot of the node Incus then starts exactly the guests that ran.
    let mut devices = json!({
        "root": {"type": "disk", "path": "/", "pool": client.config.storage_pool, "size": format!("{disk}GiB")},
    });
    if let Some(nic) = network::nic(client, &spec.network, &spec.limits).await? {
        devices[NIC] = json!(nic);
    }
    Ok(json!({
        "name": name,
        "type": instance_type(spec.guest.kind),
        "source": {"type": "image", "fingerprint": fingerprint},
        // No profiles: the provider's `default` must not leak into guests.
        "profiles": [],
        "config": config,
        "devices": devices,
    }))
}

/// Refuses where the storage pool is missing or full. The guest gets the room of `before`, which it is to replace.
async fn room(client: &Client, before: Option<&Instance>) -> Result<()> {
    let pool = client.config.storage_pool.as_str();
    // The error of a pool's resources does not tell a missing pool from a broken one.
    client.get::<Value>(&["storage-pools", pool], &[]).await.map_err(|error| match error {
        Error::NotFound(_) => Error::NotFound(format!("the storage pool {pool}")),
        other => other,
    })?;
    let PoolResources { space } = client.get(&["storage-pools", pool, "resources"], &[]).await?;
    let there = before.and_then(Instance::root_disk).and_then(|(_, disk)| disk.get("pool"));
    let free = space.total.saturating_sub(space.used.unwrap_or(0));
    if there.is_none_or(|there| there != pool) && free < GIB {
        return Err(Error::Exhausted(format!("the storage pool {pool} has {} MiB left", free >> 20)));
    }
    Ok(())
}

/// Refuses an instance that is protected, by its own configuration or a profile's.
fn unprotected(client: &Client, instance: &Instance) -> Result<()> {
    let flag = instance.expanded_config.get(PROTECTED).map(|text| text.to_lowercase()).unwrap_or_default();
    if !["true", "1", "yes", "on"].contains(&flag.as_str()) {
        return Ok(());
    }
    let (name, project) = (&instance.name, &client.config.project);
    Err(Error::Protected(format!("incus config set {name} {PROTECTED}=false --project {project}")))
}
