//! Making guests: containers from a template's archive, machines as clones of a template.
//!
//! A container is complete when its task has ended. A machine takes more: its clone has our marker only in its
//! description, with a note that it is being made; then it gets its size, and last the tag and its final description.

use hypervisor::{Error, GuestKind, GuestRef, GuestSize, GuestSpec, Result, Task, TaskState, check};

use crate::api::{GIB, Properties};
use crate::client::Client;
use crate::lookup::{self, Lookup};
use crate::place::{self, LocatedGuest, Place};
use crate::size::{disk_size, grow, root_disk, size_of};
use crate::tasks::{self, PveFollowUp, TaskOutcome, Upid, chained};
use crate::{clones, images, locks, marker, network};

/// The task for a guest of this number that is there already; `None` where nothing is.
pub(crate) async fn present(client: &Client, guest: &GuestRef, limits: &GuestSize) -> Result<Option<Task>> {
    match lookup::lookup(client, guest).await {
        Ok(Lookup::Absent) => Ok(None),
        Ok(Lookup::Ours(found)) if found.whole => Ok(Some(Task::Done)),
        Ok(Lookup::Ours(found)) if guest.kind == GuestKind::Vm && found.status.lock.is_empty() => {
            Ok(Some(match resize_clone(client, &found.at, guest, limits, false).await? {
                Some(upid) => chained(&upid, PveFollowUp::Sized(*limits), guest),
                None => Task::Done,
            }))
        }
        Ok(Lookup::Ours(LocatedGuest { at, .. }) | Lookup::Coming(at)) => {
            being_made(client, &at, guest).await.map(Some)
        }
        Err(Error::NotOurs(text)) => Err(Error::AlreadyExists(text)),
        Err(error) => Err(error),
    }
}

/// Joins a container's creation that our own token started; any other one has to be waited for.
async fn being_made(client: &Client, at: &Place, guest: &GuestRef) -> Result<Task> {
    let owner = format!(":{}:", client.config.token_id);
    let rows = place::active(client, at).await?;
    if let Some(row) = rows.into_iter().find(|row| row.kind == "vzcreate" && row.upid.ends_with(&owner)) {
        return Ok(chained(&row.upid, PveFollowUp::Made, guest));
    }
    // It may have ended between the two reads.
    match lookup::lookup(client, guest).await? {
        Lookup::Ours(found) if found.whole => Ok(Task::Done),
        Lookup::Coming(_) => Err(locks::held(client, at, "create").await?),
        Lookup::Ours(found) if !found.status.lock.is_empty() => Err(locks::held(client, at, &found.status.lock).await?),
        _ => Err(Error::Locked(format!("{} on {} is being created", at.vmid, at.node))),
    }
}

/// What a guest is created from.
pub(crate) enum GuestSource {
    /// A container template's archive.
    Archive,
    /// A machine template and its root disk.
    Template(Place, Properties),
}

/// The source that a spec names, checked. `surely`: also refuses a template whose clones may turn out wrong.
pub(crate) async fn source(client: &Client, spec: &GuestSpec, surely: bool) -> Result<GuestSource> {
    let node = &spec.guest.node;
    if spec.guest.kind == GuestKind::Lxc {
        if !images::has_archive(client, node, &spec.image).await? {
            return Err(Error::NotFound(format!("container template {} on {node}", spec.image)));
        }
        return Ok(GuestSource::Archive);
    }
    let (_, _, disk) = check::size(&spec.limits)?;
    let template = images::template(client, node, &spec.image).await?;
    let at = Place { node: template.node.clone(), kind: GuestKind::Vm, vmid: template.vmid.to_string() };
    let config = place::config(client, &at).await?;
    clones::check(&template, &config, surely)?;
    let (_, root) = root_disk(GuestKind::Vm, &config)?;
    if disk_size(&root) > disk.saturating_mul(GIB) {
        let (name, least) = (&template.name, disk_size(&root).div_ceil(GIB));
        return Err(Error::Invalid(format!("the template {name} needs {least} GiB")));
    }
    Ok(GuestSource::Template(at, root))
}

pub(crate) async fn container(client: &Client, spec: &GuestSpec) -> Result<String> {
    use secrecy::ExposeSecret;
    let (cores, memory, disk) = check::size(&spec.limits)?;
    let vmid = spec.guest.vmid.to_string();
    let (cores, memory) = (cores.to_string(), memory.to_string());
    let rootfs = format!("{}:{disk}", client.config.storage);
    // The tag is set when the guest is prepared: a pool's rights don't allow tags before the guest is in the pool.
    let description = marker::description(&spec.guest);
    let (keys, dns) = (spec.ssh_keys.join("\n"), network::name_servers(&spec.network));
    let net = network::container(&spec.network, &spec.limits, client.config.address_filters, None)?;
    let search = network::search_domain(client.config.search_domain.as_deref(), &spec.hostname);
    let mut form = vec![
        ("vmid", vmid.as_str()),
        ("ostemplate", spec.image.as_str()),
        ("hostname", spec.hostname.as_str()),
        ("cores", &cores),
        ("memory", &memory),
        // Tariffs sell memory and no swap.
        ("swap", "0"),
        ("rootfs", &rootfs),
        // In version 8 the default is privileged.
        ("unprivileged", "1"),
        ("description", &description),
    ];
    let optional = [
        ("password", spec.password.expose_secret()),
        ("ssh-public-keys", keys.as_str()),
        ("net0", net.as_deref().unwrap_or_default()),
        ("nameserver", &dns),
        ("features", if client.config.nesting { "nesting=1" } else { "" }),
        ("searchdomain", search),
        ("pool", client.config.pool.as_deref().unwrap_or_default()),
    ];
    form.extend(optional.iter().filter(|(_, value)| !value.is_empty()));
    client.post(&["nodes", &spec.guest.node, "lxc"], &form).await
}

pub(crate) async fn machine(client: &Client, spec: &GuestSpec, at: &Place, root: &Properties) -> Result<String> {
    let storage = root.head.as_deref().and_then(|volume| volume.split(':').next()).unwrap_or_default();
    // A linked clone must be on its template's storage.
    let linked = storage == client.config.storage && place::has_feature(client, at, "clone").await?;
    let (newid, description) = (spec.guest.vmid.to_string(), marker::making(&spec.guest));
    let mut form = vec![
        ("newid", newid.as_str()),
        ("name", spec.hostname.as_str()),
        ("description", &description),
        ("full", if linked { "0" } else { "1" }),
    ];
    let optional = [
        ("storage", if linked { "" } else { client.config.storage.as_str() }),
        ("target", if spec.guest.node == at.node { "" } else { spec.guest.node.as_str() }),
        ("pool", client.config.pool.as_deref().unwrap_or_default()),
    ];
    form.extend(optional.iter().filter(|(_, value)| !value.is_empty()));
    client.post(&at.path(&["clone"]), &form).await.map_err(images::elsewhere)
}

/// Turns a cloned machine into what was ordered. Returns a UPID while its disk grows; `None`: it is complete.
/// `grown`: a task that grows the disk has succeeded.
async fn resize_clone(
    client: &Client,
    at: &Place,
    guest: &GuestRef,
    limits: &GuestSize,
    grown: bool,
) -> Result<Option<String>> {
    let config = clones::strip(client, at).await?;
    place::change(client, at, &config, &size_of(at.kind, &config, limits)).await?;
    let (key, root) = root_disk(at.kind, &config)?;
    let wanted = limits.disk_gib.unwrap_or_default();
    if disk_size(&root) < wanted * GIB {
        if grown {
            return Err(Error::Failed(format!("the disk {key} of {} did not grow to {wanted} GiB", at.vmid)));
        }
        return grow(client, at, &key, wanted).await.map(Some);
    }
    let now = place::config(client, at).await?;
    // In one change: the two must not contradict each other.
    let tags = Some(marker::tags(&now.get("tags").unwrap_or_default(), guest));
    let description = Some(marker::description(guest));
    place::change(client, at, &now, &[("tags", tags), ("description", description)]).await?;
    Ok(None)
}

/// The clone's task, or its disk's, has succeeded: submits what is still missing.
pub(crate) async fn complete(
    client: &Client,
    upid: &Upid,
    end: TaskOutcome,
    found: &LocatedGuest,
    guest: &GuestRef,
    limits: &GuestSize,
) -> Result<TaskState> {
    if found.whole {
        return Ok(end.into());
    }
    let growth = tasks::follower(client, upid, &found.at, &["resize"]).await?;
    let grown = upid.kind == "resize" || matches!(growth, Some(TaskOutcome::Succeeded(_)));
    match growth {
        Some(TaskOutcome::Running) => return Ok(TaskState::Running(None)),
        Some(TaskOutcome::Failed(error)) => return Ok(TaskState::Failed(error)),
        _ => {}
    }
    match resize_clone(client, &found.at, guest, limits, grown).await? {
        // From now on its task is found in the node's list.
        Some(_) => Ok(TaskState::Running(None)),
        None => Ok(end.into()),
    }
}
