//! Guests: finding, making and deleting them.

use std::time::Duration;

use hypervisor::{Error, GuestPower, GuestRef, GuestSpec, Presence, Result, Task, check};
use reqwest::Method;
use serde_json::{Value, json};

use crate::api::State;
use crate::client::{Client, Reply, failure};
use crate::lookup::{MARKER, READY, get, instance_type, name, node, require, shown_power};
use crate::operations::{Then, busy, chained, join, plain};
use crate::{images, prepare, processes, ready, snapshots};

/// How long a half-made guest's deletion may take within `create`.
const REMAKE_WAIT: Duration = Duration::from_mins(1);

pub(crate) async fn find(client: &Client, guest: &GuestRef) -> Result<Presence> {
    let found = match get(client, guest).await? {
        Some(instance) => Some(instance),
        // An operation just begun may not have written its instance: that guest is coming, not absent.
        None if busy(client, &name(guest)).await?.is_some() => {
            return Ok(Presence::Present { node: node(client).await?, power: GuestPower::Unknown, busy: true });
        }
        // It may have written it and ended between the two looks.
        None => get(client, guest).await?,
    };
    let Some(instance) = found else { return Ok(Presence::Absent) };
    let (busy, node) = tokio::try_join!(busy(client, &instance.name), node(client))?;
    Ok(Presence::Present { node, power: shown_power(&instance), busy: busy.is_some() })
}

pub(crate) async fn create(client: &Client, spec: &GuestSpec) -> Result<Task> {
    let name = name(&spec.guest);
    let present = match get(client, &spec.guest).await {
        Err(Error::NotOurs(name)) => return Err(Error::AlreadyExists(name)),
        other => other?,
    };
    // Also when nothing is there yet: an operation just begun may not have written its instance.
    if let Some(operation) = join(client, &name, "Creating instance").await? {
        return Ok(chained(&operation.id, Then::Confirm, &spec.guest));
    }
    if let Some(instance) = present {
        if instance.config.contains_key(READY) {
            return Ok(Task::Done);
        }
        if instance.power() != GuestPower::Stopped {
            // Someone started it by hand. It may be whole, and it may be in use: that is for a person to decide.
            return Err(Error::Conflict(format!("{name} runs, but its creation was never seen to end")));
        }
        tracing::warn!(instance = name, "making a half-made guest again");
        remove(client, &name).await?;
    }
    let body = creation(client, spec, &name).await?;
    match client.send(Method::POST, &["instances"], Some(&body)).await? {
        Reply::Operation(operation) => Ok(chained(&operation.id, Then::Confirm, &spec.guest)),
        Reply::Done => Err(Error::Failed("Incus made an instance without an operation".to_owned())),
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
    let fingerprint = images::of_spec(client, spec).await?;
    let mut config = prepare::cloud_init(spec, client.config.search_domain.as_deref())?;
    config.insert(MARKER.to_owned(), spec.guest.marker.to_string());
    config.insert("limits.cpu".to_owned(), cores.to_string());
    config.insert("limits.memory".to_owned(), format!("{memory}MiB"));
    config.extend(processes::limit(&client.config, spec.guest.kind, memory).map(|n| (processes::KEY.to_owned(), n)));
    // `boot.autostart` stays unset: Incus then starts after a reboot of the node exactly the guests that ran.
    let mut devices = json!({
        "root": {"type": "disk", "path": "/", "pool": client.config.storage_pool, "size": format!("{disk}GiB")},
    });
    if let Some(nic) = prepare::nic(client, &spec.network, &spec.limits).await? {
        devices["eth0"] = json!(nic);
    }
    Ok(json!({
        "name": name,
        "type": instance_type(spec.guest.kind),
        "source": {"type": "image", "fingerprint": fingerprint},
        // No profiles: what the provider keeps in `default` must not leak into guests.
        "profiles": [],
        "config": config,
        "devices": devices,
    }))
}

pub(crate) async fn delete(client: &Client, guest: &GuestRef) -> Result<Task> {
    let present = get(client, guest).await?;
    // Also when nothing is there: an operation just begun may not have written its instance.
    if let Some(operation) = join(client, &name(guest), "Deleting instance").await? {
        return Ok(plain(Reply::Operation(operation)));
    }
    let present = if present.is_some() { present } else { get(client, guest).await? };
    let Some(instance) = present else { return Ok(Task::Done) };
    if matches!(instance.power(), GuestPower::Running | GuestPower::Paused) {
        return Err(Error::Conflict(format!("{} is running", instance.name)));
    }
    ready::unprotected(client, &instance)?;
    // Before the guest, since nothing leads to it afterwards.
    snapshots::forget(client, guest).await?;
    match client.send(Method::DELETE, &["instances", &instance.name], None).await {
        Ok(reply) => Ok(plain(reply)),
        Err(Error::NotFound(_)) => Ok(Task::Done),
        Err(error) => Err(error),
    }
}

pub(crate) async fn disk_used(client: &Client, guest: &GuestRef) -> Result<Option<u64>> {
    let instance = require(client, guest).await?;
    let state: State = client.get(&["instances", &instance.name, "state"], &[]).await?;
    let root = instance.root_disk().map_or("root", |(name, _)| name);
    let used = state.disk.as_ref().and_then(|disks| disks.get(root)).map(|disk| disk.usage);
    Ok(used.and_then(|used| u64::try_from(used).ok()).filter(|used| *used > 0))
}
