//! A guest's life: made, prepared, resized, deleted.

use async_trait::async_trait;
use hypervisor::{
    Error, GuestKind, GuestPower, GuestRef, GuestSize, GuestSpec, Inventory, Provision, Result, Task, check,
};
use serde::Deserialize;

use crate::api::{GIB, GuestConfig, Properties};
use crate::client::Client;
use crate::create::{self, GuestSource};
use crate::error::{no_config, unless_no_config};
use crate::explain::explained;
use crate::permissions::Permissions;
use crate::place::{self, LocatedGuest, Place};
use crate::rows::rows;
use crate::size::{disk_size, grow, root_disk, size_of};
use crate::tasks::{PveFollowUp, chained, plain};
use crate::{Proxmox, firewall, locks, lookup, marker, network, prepare};

/// The privileges for creating a guest, on its number or its pool.
const TO_MAKE: &[&str] = &[
    "VM.Allocate",
    "VM.Config.CPU",
    "VM.Config.Disk",
    "VM.Config.Memory",
    "VM.Config.Network",
    "VM.Config.Options",
    "VM.PowerMgmt",
];

#[async_trait]
impl Provision for Proxmox {
    async fn check_create(&self, spec: &GuestSpec) -> Result<()> {
        let client = &self.client;
        check::size(&spec.limits)?;
        check::texts(spec)?;
        let guest = &spec.guest;
        let present = match lookup::get(client, guest).await {
            Err(Error::NotOurs(text)) => return Err(Error::AlreadyExists(text)),
            found => found?,
        };
        if present.is_none() && !self.is_number_free(guest.vmid).await? {
            return Err(Error::AlreadyExists(format!("a guest with the number {}", guest.vmid)));
        }
        create::source(client, spec, true).await?;
        rights(client, spec).await?;
        interface(client, spec).await?;
        let before = match present {
            Some(found) => storage_of(client, &found.at).await?,
            None => None,
        };
        room(client, spec, before.as_deref()).await
    }

    async fn create(&self, spec: &GuestSpec) -> Result<Task> {
        let client = &self.client;
        let limits = spec.limits;
        check::size(&limits)?;
        check::texts(spec)?;
        let guest = &spec.guest;
        if let Some(task) = create::present(client, guest, &limits).await? {
            return Ok(task);
        }
        let submitted = match create::source(client, spec, false).await? {
            GuestSource::Archive => create::container(client, spec).await,
            GuestSource::Template(at, root) => create::machine(client, spec, &at, &root).await,
        };
        let then = if guest.kind == GuestKind::Lxc { PveFollowUp::Made } else { PveFollowUp::Sized(limits) };
        match submitted {
            Ok(upid) => Ok(chained(&upid, then, guest)),
            // Another process of ours may have been faster.
            Err(error @ Error::AlreadyExists(_)) => create::present(client, guest, &limits).await?.ok_or(error),
            Err(error) => Err(error),
        }
    }

    async fn prepare(&self, spec: &GuestSpec) -> Result<()> {
        let client = &self.client;
        explained(client, &spec.guest, async {
            check::texts(spec)?;
            let found = lookup::require(client, &spec.guest).await?;
            if found.power() != GuestPower::Stopped {
                return Err(Error::Conflict(format!("{} is not stopped", spec.guest.vmid)));
            }
            let config = place::config(client, &found.at).await?;
            let mut wanted = match spec.guest.kind {
                GuestKind::Lxc => prepare::container(client, spec, &config)?,
                GuestKind::Vm => prepare::machine(client, spec, &config)?,
            };
            // From now on sweeps see it.
            wanted.push(("tags", Some(marker::tags_with(&config.get("tags").unwrap_or_default(), &spec.guest))));
            place::change(client, &found.at, &config, &wanted).await?;
            if client.config.address_filters && !spec.network.addresses.is_empty() {
                // Read again: Proxmox VE has chosen the hardware address.
                let net = place::config(client, &found.at).await?.get("net0").unwrap_or_default();
                let allowed = network::allowed(&spec.network, network::hardware_address(&net));
                firewall::filter(client, &found.at, &allowed).await?;
            }
            Ok(())
        })
        .await
    }

    /// Containers change at once; a running machine's disk grows at once, its cores and memory change with its next
    /// start.
    async fn resize(&self, guest: &GuestRef, limits: &GuestSize) -> Result<Task> {
        let client = &self.client;
        explained(client, guest, async {
            if limits.cores == Some(0) || limits.memory_mib == Some(0) {
                return Err(Error::Invalid("cores and memory must be greater than 0".to_owned()));
            }
            let found = lookup::require(client, guest).await?;
            let config = place::config(client, &found.at).await?;
            let (key, root) = root_disk(guest.kind, &config)?;
            let (now, then) = (disk_size(&root), limits.disk_gib.map(|gib| gib.saturating_mul(GIB)));
            if then.is_some_and(|then| then < now) {
                let text = format!(
                    "the disk has {} GiB and can't shrink to {} GiB",
                    now.div_ceil(GIB),
                    limits.disk_gib.unwrap_or_default()
                );
                return Err(Error::Invalid(text));
            }
            if marker::kept(&config.description()).is_some() {
                // Finishing it would undo this change.
                return Err(Error::Conflict(format!("a rollback of {} is unfinished: repeat it first", guest.vmid)));
            }
            place::change(client, &found.at, &config, &size_of(guest.kind, &config, limits)).await?;
            match limits.disk_gib.filter(|_| then.is_some_and(|then| then > now)) {
                Some(gib) => grow(client, &found.at, &key, gib).await.map(plain),
                None => Ok(Task::Done),
            }
        })
        .await
    }

    async fn check_delete(&self, guest: &GuestRef) -> Result<()> {
        let client = &self.client;
        let Some(found) = lookup::get(client, guest).await? else { return Ok(()) };
        locks::free_or_hibernated(client, &found).await?;
        unprotected(&found, &place::config(client, &found.at).await?)?;
        let path = format!("/vms/{}", guest.vmid);
        let held: Permissions = client.get(&["access", "permissions"], &[("path", &path)]).await?;
        // A node lists exactly the path that it was asked for, with the privileges from the guest's pool.
        let in_pool = client.config.pool.as_ref().filter(|_| !held.names(&path)).map(|pool| format!("/pool/{pool}"));
        if held.missing(&path, &["VM.Allocate"]).is_empty() || in_pool.is_some() {
            return Ok(());
        }
        Err(Error::Forbidden(format!("the token {} lacks VM.Allocate on {path}", client.config.token_id)))
    }

    async fn delete(&self, guest: &GuestRef) -> Result<Task> {
        let client = &self.client;
        explained(client, guest, async {
            let Some(found) = lookup::get(client, guest).await? else { return Ok(Task::Done) };
            if found.status.power() != GuestPower::Stopped {
                return Err(Error::Conflict(format!("{} is running", guest.vmid)));
            }
            let Some(config) = unless_no_config(place::config(client, &found.at).await)? else {
                return gone(client, guest).await;
            };
            unprotected(&found, &config)?;
            if is_protected(&config) {
                place::change(client, &found.at, &config, &[("protection", None)]).await?;
            }
            // Also removes it from backup jobs, replication and HA; nothing else with its number is touched.
            match client.delete::<String>(&found.at.path(&[]), &[("purge", "1")]).await {
                Ok(upid) => Ok(chained(&upid, PveFollowUp::Deleted, guest)),
                Err(error) if no_config(&error) => gone(client, guest).await,
                Err(error @ Error::Locked(_)) => {
                    let rows = place::active(client, &found.at).await?;
                    match rows.into_iter().find(|row| row.kind.ends_with("destroy")) {
                        Some(row) => Ok(chained(&row.upid, PveFollowUp::Deleted, guest)),
                        // It may have ended between the two reads.
                        None if lookup::get(client, guest).await?.is_none() => Ok(Task::Done),
                        None => Err(error),
                    }
                }
                Err(error) => Err(error),
            }
        })
        .await
    }
}

/// A guest whose configuration is not where it was a moment ago: another deletion was faster, or it is being moved.
async fn gone(client: &Client, guest: &GuestRef) -> Result<Task> {
    match lookup::get(client, guest).await? {
        None => Ok(Task::Done),
        Some(_) => Err(Error::Locked(format!("{} is being moved", guest.vmid))),
    }
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

/// Refuses a network that can't be given to a guest, and a bridge that the node does not have.
async fn interface(client: &Client, spec: &GuestSpec) -> Result<()> {
    let (network, limits, filters) = (&spec.network, &spec.limits, client.config.address_filters);
    let net = match spec.guest.kind {
        GuestKind::Lxc => network::container(network, limits, filters, None)?,
        GuestKind::Vm => network::cloud_init(network).and(network::machine(network, limits, filters, None))?,
    };
    if net.is_none() {
        return Ok(());
    }
    let (node, bridge) = (spec.guest.node.as_str(), network.bridge.as_str());
    let bridges = rows::<Bridge>(client, &["nodes", node, "network"], &[("type", "any_bridge")]).await?;
    if bridges.incomplete || bridges.read.iter().any(|there| there.iface == bridge) {
        return Ok(());
    }
    Err(Error::NotFound(format!("the bridge {bridge} on {node}, or the right to use it")))
}

#[derive(Deserialize)]
struct Bridge {
    iface: String,
}

/// The storage of a guest's root disk.
async fn storage_of(client: &Client, at: &Place) -> Result<Option<String>> {
    let root = root_disk(at.kind, &place::config(client, at).await?).ok();
    let volume = root.and_then(|(_, Properties { head, .. })| head);
    Ok(volume.and_then(|volume| volume.split_once(':').map(|(storage, _)| storage.to_owned())))
}

/// Refuses where the storage can't take the guest. `before`: the storage of the guest that it replaces, whose room it
/// gets.
async fn room(client: &Client, spec: &GuestSpec, before: Option<&str>) -> Result<()> {
    let (storage, node) = (client.config.storage.as_str(), spec.guest.node.as_str());
    let state: GuestConfig = client.get(&["nodes", node, "storage", storage, "status"], &[]).await?;
    let off = |key: &str| state.get(key).is_some_and(|flag| flag == "0");
    if off("active") || off("enabled") {
        return Err(Error::Failed(format!("the storage {storage} on {node} is not available")));
    }
    let content = if spec.guest.kind == GuestKind::Lxc { "rootdir" } else { "images" };
    if state.get("content").is_some_and(|kinds| !kinds.split(',').any(|kind| kind == content)) {
        return Err(Error::Invalid(format!("the storage {storage} is not for guests of this kind ({content})")));
    }
    if before == Some(storage) {
        return Ok(());
    }
    // Only LVM allocates a disk's whole size at once.
    let wanted = if state.get("type").as_deref() == Some("lvm") { spec.limits.disk_gib.unwrap_or(1) } else { 1 };
    let free: u64 = state.get("avail").and_then(|bytes| bytes.parse().ok()).unwrap_or(u64::MAX);
    if free < wanted.saturating_mul(GIB) {
        return Err(Error::Exhausted(format!("the storage {storage} on {node} has {} MiB left", free >> 20)));
    }
    Ok(())
}

/// Refuses a protected guest. A half-made one only has its template's protection.
fn unprotected(found: &LocatedGuest, config: &GuestConfig) -> Result<()> {
    if !found.whole || !is_protected(config) {
        return Ok(());
    }
    let tool = if found.at.kind == GuestKind::Lxc { "pct" } else { "qm" };
    Err(Error::Protected(format!("{tool} set {} --protection 0", found.at.vmid)))
}

fn is_protected(config: &GuestConfig) -> bool {
    config.get("protection").is_some_and(|flag| flag != "0")
}
