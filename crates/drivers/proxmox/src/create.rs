//! Making guests: containers from a template's archive, machines as clones of a template.
//!
//! A container is whole when its task has ended. A machine takes more: its clone has our marker only in its
//! description, with a word that it is being made; then it gets its size, and last the tag and its final description.

use hypervisor::{Error, GuestKind, GuestRef, GuestSpec, Limits, Result, Task, TaskState, check};
use serde_json::Value;

use crate::api::{Config, GIB, Properties, parse_size};
use crate::client::Client;
use crate::guests::{self, At, Found, Look};
use crate::tasks::{self, End, Then, Upid, chained};
use crate::{clones, images, locks, marker, network};

pub(crate) async fn create(client: &Client, spec: &GuestSpec) -> Result<Task> {
    let limits = spec.limits;
    check::size(&limits)?;
    check::texts(spec)?;
    let guest = &spec.guest;
    if let Some(task) = present(client, guest, &limits).await? {
        return Ok(task);
    }
    let submitted = match source(client, spec, false).await? {
        Source::Archive => container(client, spec).await,
        Source::Template(at, root) => machine(client, spec, &at, &root).await,
    };
    let then = if guest.kind == GuestKind::Lxc { Then::Made } else { Then::Sized(limits) };
    match submitted {
        Ok(upid) => Ok(chained(&upid, then, guest)),
        // Another of us may have been faster.
        Err(error @ Error::AlreadyExists(_)) => present(client, guest, &limits).await?.ok_or(error),
        Err(error) => Err(error),
    }
}

/// What is to be done where something of this number is there already; `None` where nothing is.
async fn present(client: &Client, guest: &GuestRef, limits: &Limits) -> Result<Option<Task>> {
    match guests::look(client, guest).await {
        Ok(Look::Absent) => Ok(None),
        Ok(Look::Ours(found)) if found.whole => Ok(Some(Task::Done)),
        Ok(Look::Ours(found)) if guest.kind == GuestKind::Vm && found.status.lock.is_empty() => {
            Ok(Some(match shape(client, &found.at, guest, limits, false).await? {
                Some(upid) => chained(&upid, Then::Sized(*limits), guest),
                None => Task::Done,
            }))
        }
        Ok(Look::Ours(Found { at, .. }) | Look::Coming(at)) => being_made(client, &at, guest).await.map(Some),
        Err(Error::NotOurs(text)) => Err(Error::AlreadyExists(text)),
        Err(error) => Err(error),
    }
}

/// The creation of this very container, where our own token began it; else its end has to be waited for.
async fn being_made(client: &Client, at: &At, guest: &GuestRef) -> Result<Task> {
    let owner = format!(":{}:", client.config.token_id);
    let rows = guests::active(client, at).await?;
    if let Some(row) = rows.into_iter().find(|row| row.kind == "vzcreate" && row.upid.ends_with(&owner)) {
        return Ok(chained(&row.upid, Then::Made, guest));
    }
    // It may have ended between the two looks.
    match guests::look(client, guest).await? {
        Look::Ours(found) if found.whole => Ok(Task::Done),
        Look::Coming(_) => Err(locks::held(client, at, "create").await?),
        Look::Ours(found) if !found.status.lock.is_empty() => Err(locks::held(client, at, &found.status.lock).await?),
        _ => Err(Error::Locked(format!("{} on {} is being made", at.vmid, at.node))),
    }
}

/// What a guest is made from.
pub(crate) enum Source {
    /// The archive of a container's template.
    Archive,
    /// A machine's template, where it is, and its root disk.
    Template(At, Properties),
}

/// The source that a spec names, where a guest can be made from it. `surely`: where that is certain.
pub(crate) async fn source(client: &Client, spec: &GuestSpec, surely: bool) -> Result<Source> {
    let node = &spec.guest.node;
    if spec.guest.kind == GuestKind::Lxc {
        if !images::has_archive(client, node, &spec.image).await? {
            return Err(Error::NotFound(format!("container template {} on {node}", spec.image)));
        }
        return Ok(Source::Archive);
    }
    let (_, _, disk) = check::size(&spec.limits)?;
    let template = images::template(client, node, &spec.image).await?;
    let at = At { node: template.node.clone(), kind: GuestKind::Vm, vmid: template.vmid.to_string() };
    let config = guests::config(client, &at).await?;
    clones::check(&template, &config, surely)?;
    let (_, root) = root_disk(GuestKind::Vm, &config)?;
    if disk_size(&root) > disk.saturating_mul(GIB) {
        let (name, least) = (&template.name, disk_size(&root).div_ceil(GIB));
        return Err(Error::Invalid(format!("the template {name} needs {least} GiB")));
    }
    Ok(Source::Template(at, root))
}

async fn container(client: &Client, spec: &GuestSpec) -> Result<String> {
    use secrecy::ExposeSecret;
    let (cores, memory, disk) = check::size(&spec.limits)?;
    let vmid = spec.guest.vmid.to_string();
    let (cores, memory) = (cores.to_string(), memory.to_string());
    let rootfs = format!("{}:{disk}", client.config.storage);
    // Its tag comes when it is prepared: rights that come from a pool count for no tags before the guest is in it.
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
        // The tariff sells memory, and no more.
        ("swap", "0"),
        ("rootfs", &rootfs),
        // Version 8 would make it privileged.
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

async fn machine(client: &Client, spec: &GuestSpec, at: &At, root: &Properties) -> Result<String> {
    let storage = root.head.as_deref().and_then(|volume| volume.split(':').next()).unwrap_or_default();
    // A linked clone lives on its template's storage.
    let linked = storage == client.config.storage && can(client, at, "clone").await?;
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

/// Makes of a cloned machine what was ordered. A UPID where its disk grows now; `None`: it is whole. `grown`: a task that
/// grew the disk has ended well.
async fn shape(client: &Client, at: &At, guest: &GuestRef, limits: &Limits, grown: bool) -> Result<Option<String>> {
    let config = clones::strip(client, at).await?;
    guests::change(client, at, &config, &size_of(at.kind, &config, limits)).await?;
    let (key, root) = root_disk(at.kind, &config)?;
    let wanted = limits.disk_gib.unwrap_or_default();
    if disk_size(&root) < wanted * GIB {
        if grown {
            return Err(Error::Failed(format!("the disk {key} of {} did not grow to {wanted} GiB", at.vmid)));
        }
        return grow(client, at, &key, wanted).await.map(Some);
    }
    let now = guests::config(client, at).await?;
    // In one change, for what one of them says the other must not deny.
    let tags = Some(marker::tags(&now.get("tags").unwrap_or_default(), guest));
    let description = Some(marker::description(guest));
    guests::change(client, at, &now, &[("tags", tags), ("description", description)]).await?;
    Ok(None)
}

/// A clone's or its disk's task has ended well: the next piece.
pub(crate) async fn size(
    client: &Client,
    upid: &Upid,
    end: End,
    found: &Found,
    guest: &GuestRef,
    limits: &Limits,
) -> Result<TaskState> {
    if found.whole {
        return Ok(end.into());
    }
    let growth = tasks::follower(client, upid, &found.at, &["resize"]).await?;
    let grown = upid.kind == "resize" || matches!(growth, Some(End::Well(_)));
    match growth {
        Some(End::Running) => return Ok(TaskState::Running(None)),
        Some(End::Badly(error)) => return Ok(TaskState::Failed(error)),
        _ => {}
    }
    match shape(client, &found.at, guest, limits, grown).await? {
        // Its own task is found in the node's list from now on.
        Some(_) => Ok(TaskState::Running(None)),
        None => Ok(end.into()),
    }
}

/// Submits the growth of a disk.
pub(crate) async fn grow(client: &Client, at: &At, key: &str, gib: u64) -> Result<String> {
    client.put(&at.path(&["resize"]), &[("disk", key), ("size", &format!("{gib}G"))]).await
}

/// Cores, memory and the interface's rate as a configuration has them.
pub(crate) fn size_of(kind: GuestKind, config: &Config, limits: &Limits) -> Vec<(&'static str, Option<String>)> {
    let mut wanted = Vec::new();
    if let Some(cores) = limits.cores {
        wanted.push(("cores", Some(cores.to_string())));
        if kind == GuestKind::Vm && config.get("sockets").is_some_and(|sockets| sockets != "1") {
            wanted.push(("sockets", Some("1".to_owned())));
        }
    }
    if let Some(memory) = limits.memory_mib {
        wanted.push(("memory", Some(memory.to_string())));
        // A balloon that is bigger than the memory is refused; none follows the memory.
        if kind == GuestKind::Vm && config.get("balloon").is_some_and(|balloon| balloon != "0") {
            wanted.push(("balloon", None));
        }
    }
    if let Some(net) = limits.bandwidth_mbps.and_then(|rate| network::at_rate(&config.get("net0")?, rate)) {
        wanted.push(("net0", Some(net)));
    }
    wanted
}

/// A guest's root disk: its key in the configuration, and what that says.
pub(crate) fn root_disk(kind: GuestKind, config: &Config) -> Result<(String, Properties)> {
    let read = |key: &str| config.get(key).map(|value| (key.to_owned(), Properties::parse(&value)));
    let is_disk = |(_, disk): &(String, Properties)| disk.get("media") != Some("cdrom") && disk.get("size").is_some();
    let found = match kind {
        GuestKind::Lxc => read("rootfs"),
        GuestKind::Vm => {
            let boot = Properties::parse(&config.get("boot").unwrap_or_default());
            let order = boot.get("order").unwrap_or_default().to_owned();
            let keys = order.split(';').map(str::to_owned).chain(config.get("bootdisk"));
            let keys = keys.chain(["scsi0", "virtio0", "sata0", "ide0"].map(str::to_owned));
            keys.filter_map(|key| read(&key)).find(is_disk)
        }
    };
    found.ok_or_else(|| Error::Failed("it has no root disk".to_owned()))
}

/// A disk's size in bytes.
pub(crate) fn disk_size(disk: &Properties) -> u64 {
    disk.get("size").and_then(parse_size).unwrap_or_default()
}

/// Whether a guest's storages can do something.
pub(crate) async fn can(client: &Client, at: &At, feature: &str) -> Result<bool> {
    let answer: Value = client.get(&at.path(&["feature"]), &[("feature", feature)]).await?;
    let has = answer.get("hasFeature");
    Ok(has.is_some_and(|v| v.as_bool() == Some(true) || v.as_i64() == Some(1) || v.as_str() == Some("1")))
}
