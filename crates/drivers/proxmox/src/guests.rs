//! Finding guests, and changing their configuration.
//!
//! A guest's number is unique in its cluster, but the guest may be on another node than we last saw it on, and "no such
//! configuration file" is what each node says of guests of the others. So absence is believed only when the list of a
//! cluster with quorum does not name it, every node that is up was asked and said no, and the number is free.

use futures_util::future::try_join_all;
use hypervisor::{Error, GuestKind, GuestPower, GuestRef, Presence, Result};
use serde_json::Value;

use crate::api::{Config, Membership, Resource, Status, TaskRow};
use crate::client::Client;
use crate::error::unless_no_config;
use crate::resources::{self, Resources};
use crate::{locks, marker};

/// Kinds of tasks that are somebody looking at a guest, not work on it.
const CONSOLES: &[&str] = &["vncproxy", "vncshell", "termproxy", "spiceproxy", "spiceshell"];

/// Proxmox VE's word for the kind.
pub(crate) fn word(kind: GuestKind) -> &'static str {
    match kind {
        GuestKind::Lxc => "lxc",
        GuestKind::Vm => "qemu",
    }
}

/// A guest's place in the API.
#[derive(Debug, Clone)]
pub(crate) struct At {
    pub(crate) node: String,
    pub(crate) kind: GuestKind,
    pub(crate) vmid: String,
}

impl At {
    pub(crate) fn new(node: &str, guest: &GuestRef) -> Self {
        Self { node: node.to_owned(), kind: guest.kind, vmid: guest.vmid.to_string() }
    }

    /// `nodes/<node>/<kind>/<vmid>/<rest>`.
    pub(crate) fn path<'a>(&'a self, rest: &[&'a str]) -> Vec<&'a str> {
        let mut path = vec!["nodes", self.node.as_str(), word(self.kind), self.vmid.as_str()];
        path.extend(rest);
        path
    }
}

/// A guest of ours, where it is now.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) at: At,
    pub(crate) status: Status,
    /// Whether its creation was seen to its end.
    pub(crate) whole: bool,
}

impl Found {
    pub(crate) fn power(&self) -> GuestPower {
        match self.status.power() {
            GuestPower::Stopped if !self.whole => GuestPower::Unknown,
            power => power,
        }
    }
}

/// What a look for a guest found.
#[derive(Debug)]
pub(crate) enum Look {
    /// It is there, with our marker.
    Ours(Found),
    /// Something of its number is being made, and does not say yet whose it is.
    Coming(At),
    /// It is certainly not there.
    Absent,
}

/// Refuses what a container with a full disk does not come back from: its node writes into it before each start.
pub(crate) fn has_room(found: &Found) -> Result<()> {
    if found.status.is_disk_full() {
        return Err(Error::DiskFull(format!(
            "{} on {} has no room left in its root disk",
            found.at.vmid, found.at.node
        )));
    }
    Ok(())
}

pub(crate) async fn config(client: &Client, at: &At) -> Result<Config> {
    client.get(&at.path(&["config"]), &[]).await
}

async fn status(client: &Client, node: &str, guest: &GuestRef) -> Result<Option<Status>> {
    unless_no_config(client.get(&At::new(node, guest).path(&["status", "current"]), &[]).await)
}

/// Looks for a guest everywhere; something else of its number is [`Error::NotOurs`].
pub(crate) async fn look(client: &Client, guest: &GuestRef) -> Result<Look> {
    let Some((at, status)) = locate(client, guest).await? else { return Ok(Look::Absent) };
    let making = |lock: &str| matches!(lock, "create" | "clone");
    let tagged = marker::find(&status.tags, guest.vmid);
    if tagged == Some(guest.marker) {
        let whole = !making(&status.lock);
        return Ok(Look::Ours(Found { at, status, whole }));
    }
    let not_ours = || Err(Error::NotOurs(format!("{} {}", word(guest.kind), guest.vmid)));
    if tagged.is_some() {
        return not_ours();
    }
    let config = config(client, &at).await?;
    match marker::find(&config.description(), guest.vmid) {
        // Not yet given its tag; or somebody took it away, and the next start gives it back.
        Some(uuid) if uuid == guest.marker => {
            let whole = !making(&config.lock()) && !marker::is_making(&config.description());
            Ok(Look::Ours(Found { at, status, whole }))
        }
        None if making(&config.lock()) => Ok(Look::Coming(at)),
        // The last that is left of a guest whose disks are gone already. Whose it was it does not say any more.
        None if config.lock() == "destroyed" => Err(locks::held(client, &at, "destroyed").await?),
        _ => not_ours(),
    }
}

async fn locate(client: &Client, guest: &GuestRef) -> Result<Option<(At, Status)>> {
    let at_home = match guest.node.as_str() {
        "" => Ok(None),
        node => status(client, node, guest).await,
    };
    match at_home {
        Ok(Some(status)) => return Ok(Some((At::new(&guest.node, guest), status))),
        // A node that is down or gone may have left its guests to others.
        Ok(None) | Err(Error::Unreachable(_) | Error::Failed(_)) => {}
        Err(error) => return Err(error),
    }
    let list = resources::read(client).await?;
    let row = list.guests().find(|row| i64::try_from(row.vmid) == Ok(guest.vmid));
    match (row, at_home) {
        (Some(row), _) if row.kind != word(guest.kind) => {
            Err(Error::NotOurs(format!("{} {} on {}", row.kind, row.vmid, row.node)))
        }
        (Some(row), Err(error)) if row.node == guest.node => Err(error),
        (Some(row), _) => match status(client, &row.node, guest).await? {
            Some(status) => Ok(Some((At::new(&row.node, guest), status))),
            None => Err(Error::Locked(format!("{} is being moved or deleted", guest.vmid))),
        },
        (None, _) => absent(client, guest, &list).await.map(|()| None),
    }
}

/// Succeeds where it is evident that no node has a guest of this number: a cluster with quorum does not list it, every
/// node that is up says so itself, and the number is free. The configurations of guests on nodes that are down belong
/// to the cluster, which lists them too.
async fn absent(client: &Client, guest: &GuestRef, list: &Resources) -> Result<()> {
    let unknown = |text: String| Err(Error::Unreachable(format!("whether {} is there is unknown: {text}", guest.vmid)));
    let nodes: Vec<_> = list.nodes().collect();
    if nodes.is_empty() {
        return unknown("the cluster named no node".to_owned());
    }
    if list.may_hide(guest.vmid) {
        return unknown("a row of the cluster's list can't be read".to_owned());
    }
    let (up, down): (Vec<&Resource>, Vec<&Resource>) = nodes.iter().copied().partition(|node| node.status == "online");
    // Without all of its nodes a cluster may be half of one, and its list an old one.
    if let Some(node) = down.first()
        && !is_quorate(client).await?
    {
        return unknown(format!("node {} is {}, and the cluster has no quorum", node.node, node.status));
    }
    if !guest.node.is_empty() && !nodes.iter().any(|node| node.node == guest.node) {
        return unknown(format!("its node {} is not in the cluster", guest.node));
    }
    // All at once: the client keeps to its places.
    let mut asked = Vec::with_capacity(up.len());
    for node in up {
        asked.push(not_on(client, At::new(&node.node, guest)));
    }
    try_join_all(asked).await?;
    // The cluster's own word, last: it sees what our rights hide, and what moved while we looked.
    if is_number_free(client, guest.vmid).await? {
        Ok(())
    } else {
        Err(Error::Locked(format!("{} is taken by a guest that can't be seen", guest.vmid)))
    }
}

/// Whether the node that answers is of a cluster's majority, or alone.
async fn is_quorate(client: &Client) -> Result<bool> {
    let rows: Vec<Membership> = client.get(&["cluster", "status"], &[]).await?;
    Ok(rows.iter().filter(|row| row.kind == "cluster").all(|row| row.quorate))
}

async fn not_on(client: &Client, at: At) -> Result<()> {
    match unless_no_config(config(client, &at).await)? {
        None => Ok(()),
        Some(_) => Err(Error::Locked(format!("{} is being moved", at.vmid))),
    }
}

/// Whether no guest of the cluster has this number.
pub(crate) async fn is_number_free(client: &Client, vmid: i64) -> Result<bool> {
    match client.get::<Value>(&["cluster", "nextid"], &[("vmid", &vmid.to_string())]).await {
        Ok(_) => Ok(true),
        Err(Error::AlreadyExists(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A guest of ours; `None` is evidence.
pub(crate) async fn get(client: &Client, guest: &GuestRef) -> Result<Option<Found>> {
    match look(client, guest).await? {
        Look::Ours(found) => Ok(Some(found)),
        Look::Coming(_) => Err(Error::Locked(format!("{} is being made", guest.vmid))),
        Look::Absent => Ok(None),
    }
}

/// A guest of ours that must be there.
pub(crate) async fn require(client: &Client, guest: &GuestRef) -> Result<Found> {
    get(client, guest).await?.ok_or_else(|| Error::NotFound(format!("{} {}", word(guest.kind), guest.vmid)))
}

/// A guest of ours that must run.
pub(crate) async fn require_running(client: &Client, guest: &GuestRef) -> Result<Found> {
    let found = require(client, guest).await?;
    if found.power() == GuestPower::Running {
        Ok(found)
    } else {
        Err(Error::Conflict(format!("{} is not running", guest.vmid)))
    }
}

/// The tasks that are at work on a guest now.
pub(crate) async fn active(client: &Client, at: &At) -> Result<Vec<TaskRow>> {
    let mut rows: Vec<TaskRow> =
        client.get(&["nodes", &at.node, "tasks"], &[("vmid", &at.vmid), ("source", "active")]).await?;
    rows.retain(|row| row.is_running() && is_work_on(row, &at.vmid));
    Ok(rows)
}

/// Whether a task works on this guest: somebody who looks at it does not.
pub(crate) fn is_work_on(row: &TaskRow, vmid: &str) -> bool {
    row.id == vmid && !CONSOLES.contains(&row.kind.as_str())
}

pub(crate) async fn find(client: &Client, guest: &GuestRef) -> Result<Presence> {
    let (at, power) = match look(client, guest).await? {
        Look::Absent => return Ok(Presence::Absent),
        Look::Ours(found) => (found.at.clone(), found.power()),
        Look::Coming(at) => {
            if is_made_now(client, &at).await? {
                return Ok(Presence::Present { node: at.node, power: GuestPower::Unknown, busy: true });
            }
            return Err(Error::StaleLock(format!(
                "{0} is locked by a creation that no task is at work on: a person must look at it on node {1} (unlock \
                 and destroy it)",
                guest.vmid, at.node
            )));
        }
    };
    let busy = !active(client, &at).await?.is_empty();
    Ok(Presence::Present { node: at.node, power, busy })
}

/// Whether a task makes this guest now. A clone's task has its template's number.
async fn is_made_now(client: &Client, at: &At) -> Result<bool> {
    if at.kind == GuestKind::Lxc {
        return Ok(!active(client, at).await?.is_empty());
    }
    let query = [("typefilter", "qmclone"), ("source", "active")];
    let rows: Vec<TaskRow> = client.get(&["nodes", &at.node, "tasks"], &query).await?;
    Ok(rows.iter().any(|row| row.is_running() && row.kind == "qmclone"))
}

/// Writes what differs from `wanted` into a guest's configuration; `None` deletes a key. It is guarded by the digest of
/// `now`, so that nobody else's change is lost.
pub(crate) async fn change(client: &Client, at: &At, now: &Config, wanted: &[(&str, Option<String>)]) -> Result<()> {
    let differs = |config: &Config| -> Vec<(String, Option<String>)> {
        let other = wanted.iter().filter(|(key, value)| config.get(key) != *value);
        other.map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
    };
    let changes = differs(now);
    if changes.is_empty() {
        return Ok(());
    }
    let gone: Vec<&str> = changes.iter().filter(|(_, value)| value.is_none()).map(|(key, _)| key.as_str()).collect();
    let (gone, digest) = (gone.join(","), now.get("digest").unwrap_or_default());
    let mut form: Vec<(&str, &str)> =
        changes.iter().filter_map(|(key, value)| Some((key.as_str(), value.as_deref()?))).collect();
    form.extend([("delete", gone.as_str()), ("digest", digest.as_str())].iter().filter(|(_, value)| !value.is_empty()));
    match client.put::<Value>(&at.path(&["config"]), &form).await {
        Ok(_) => Ok(()),
        // A 500 may come after the configuration was written, and a lost answer too.
        Err(error @ (Error::Failed(_) | Error::OutcomeUnknown(_))) => {
            let written = config(client, at).await.is_ok_and(|after| differs(&after).is_empty());
            if written { Ok(()) } else { Err(error) }
        }
        Err(error) => Err(error),
    }
}
