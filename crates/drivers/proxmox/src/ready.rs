//! Looking before something is destroyed: whether a guest can be deleted, and whether another can take its place.

use hypervisor::{Error, GuestKind, GuestRef, GuestSpec, Result, check};

use crate::api::{Config, GIB, Properties};
use crate::client::Client;
use crate::info::Permissions;
use crate::place::{self, Found, Place};
use crate::size::root_disk;
use crate::{create, locks, lookup};

/// What making a guest takes, on its number or its pool.
const TO_MAKE: &[&str] = &[
    "VM.Allocate",
    "VM.Config.CPU",
    "VM.Config.Disk",
    "VM.Config.Memory",
    "VM.Config.Network",
    "VM.Config.Options",
    "VM.PowerMgmt",
];

pub(crate) async fn check_delete(client: &Client, guest: &GuestRef) -> Result<()> {
    let Some(found) = lookup::get(client, guest).await? else { return Ok(()) };
    locks::free_or_hibernated(client, &found).await?;
    unprotected(&found, &place::config(client, &found.at).await?)?;
    let path = format!("/vms/{}", guest.vmid);
    let held: Permissions = client.get(&["access", "permissions"], &[("path", &path)]).await?;
    // A node names exactly the path that it was asked for, with what the guest's pool gives.
    let in_pool = client.config.pool.as_ref().filter(|_| !held.names(&path)).map(|pool| format!("/pool/{pool}"));
    if held.missing(&path, &["VM.Allocate"]).is_empty() || in_pool.is_some() {
        return Ok(());
    }
    Err(Error::Forbidden(format!("the token {} lacks VM.Allocate on {path}", client.config.token_id)))
}

/// Refuses where a guest is protected. One that was never wholly made has that of its template.
pub(crate) fn unprotected(found: &Found, config: &Config) -> Result<()> {
    if !found.whole || !is_protected(config) {
        return Ok(());
    }
    let tool = if found.at.kind == GuestKind::Lxc { "pct" } else { "qm" };
    Err(Error::Protected(format!("{tool} set {} --protection 0", found.at.vmid)))
}

pub(crate) fn is_protected(config: &Config) -> bool {
    config.get("protection").is_some_and(|flag| flag != "0")
}

pub(crate) async fn check_create(client: &Client, spec: &GuestSpec) -> Result<()> {
    check::size(&spec.limits)?;
    check::texts(spec)?;
    let guest = &spec.guest;
    let present = match lookup::get(client, guest).await {
        Err(Error::NotOurs(text)) => return Err(Error::AlreadyExists(text)),
        found => found?,
    };
    if present.is_none() && !lookup::is_number_free(client, guest.vmid).await? {
        return Err(Error::AlreadyExists(format!("a guest with the number {}", guest.vmid)));
    }
    create::source(client, spec, true).await?;
    rights(client, spec).await?;
    let before = match present {
        Some(found) => storage_of(client, &found.at).await?,
        None => None,
    };
    room(client, spec, before.as_deref()).await
}

async fn rights(client: &Client, spec: &GuestSpec) -> Result<()> {
    let config = &client.config;
    let held: Permissions = client.get(&["access", "permissions"], &[]).await?;
    let guests = config.pool.as_ref().map_or_else(|| "/vms".to_owned(), |pool| format!("/pool/{pool}"));
    let storage = format!("/storage/{}", config.storage);
    let mut needed = vec![(guests.as_str(), TO_MAKE), (storage.as_str(), &["Datastore.AllocateSpace"])];
    if spec.guest.kind == GuestKind::Vm {
        needed.push((&guests, &["VM.Clone"]));
    }
    if !spec.network.addresses.is_empty() {
        needed.push(("/sdn/zones/localnetwork", &["SDN.Use"]));
    }
    for (path, privileges) in needed {
        let missing = held.missing(path, privileges);
        if !missing.is_empty() {
            return Err(Error::Forbidden(format!(
                "the token {} lacks {} on {path}",
                config.token_id,
                missing.join(", ")
            )));
        }
    }
    Ok(())
}

/// The storage of a guest's root disk.
async fn storage_of(client: &Client, at: &Place) -> Result<Option<String>> {
    let root = root_disk(at.kind, &place::config(client, at).await?).ok();
    let volume = root.and_then(|(_, Properties { head, .. })| head);
    Ok(volume.and_then(|volume| volume.split_once(':').map(|(storage, _)| storage.to_owned())))
}

/// Refuses where the storage can't take the guest. `before`: the storage of the guest that it is to replace, whose room
/// it gets.
async fn room(client: &Client, spec: &GuestSpec, before: Option<&str>) -> Result<()> {
    let (storage, node) = (client.config.storage.as_str(), spec.guest.node.as_str());
    let state: Config = client.get(&["nodes", node, "storage", storage, "status"], &[]).await?;
    let off = |key: &str| state.get(key).is_some_and(|flag| flag == "0");
    if off("active") || off("enabled") {
        return Err(Error::Failed(format!("the storage {storage} on {node} is not available")));
    }
    if before == Some(storage) {
        return Ok(());
    }
    // Only LVM gives a disk all of its room at once.
    let wanted = if state.get("type").as_deref() == Some("lvm") { spec.limits.disk_gib.unwrap_or(1) } else { 1 };
    let free: u64 = state.get("avail").and_then(|bytes| bytes.parse().ok()).unwrap_or(u64::MAX);
    if free < wanted.saturating_mul(GIB) {
        return Err(Error::Exhausted(format!("the storage {storage} on {node} has {} MiB left", free >> 20)));
    }
    Ok(())
}
