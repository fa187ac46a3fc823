//! Looking guests up.
//!
//! A guest's number is unique in its cluster, but the guest may have moved since we last saw it, and each node says
//! "no such configuration file" about the other nodes' guests. So absence counts only when the list of a cluster with
//! quorum does not have the guest, every online node was asked and said no, and the number is free.

use futures_util::future::try_join_all;
use hypervisor::{Error, GuestPower, GuestRef, Result};
use serde_json::Value;

use crate::api::{GuestStatus, Membership, Resource};
use crate::client::Client;
use crate::error::unless_no_config;
use crate::place::{LocatedGuest, Place, config, word};
use crate::resources::{self, ClusterResources};
use crate::rows::{Rows, rows};
use crate::{locks, marker};

#[derive(Debug)]
pub(crate) enum Lookup {
    /// It exists and carries our marker.
    Ours(LocatedGuest),
    /// A guest of its number is being created and does not have its marker yet.
    Coming(Place),
    /// It certainly does not exist.
    Absent,
}

async fn status(client: &Client, node: &str, guest: &GuestRef) -> Result<Option<GuestStatus>> {
    unless_no_config(client.get(&Place::new(node, guest).path(&["status", "current"]), &[]).await)
}

/// Looks for a guest everywhere; any other guest of its number is [`Error::NotOurs`].
pub(crate) async fn lookup(client: &Client, guest: &GuestRef) -> Result<Lookup> {
    let Some((at, status)) = locate(client, guest).await? else { return Ok(Lookup::Absent) };
    let making = |lock: &str| matches!(lock, "create" | "clone");
    let tagged = marker::find(&status.tags, guest.vmid);
    if tagged == Some(guest.marker) {
        let whole = !making(&status.lock);
        return Ok(Lookup::Ours(LocatedGuest { at, status, whole }));
    }
    let not_ours = || Err(Error::NotOurs(format!("{} {}", word(guest.kind), guest.vmid)));
    if tagged.is_some() {
        return not_ours();
    }
    let config = config(client, &at).await?;
    match marker::find(&config.description(), guest.vmid) {
        // It does not have its tag yet; or somebody removed it, and the next start restores it.
        Some(uuid) if uuid == guest.marker => {
            let whole = !making(&config.lock()) && !marker::is_making(&config.description());
            Ok(Lookup::Ours(LocatedGuest { at, status, whole }))
        }
        None if making(&config.lock()) => Ok(Lookup::Coming(at)),
        // The rest of a guest whose disks are gone already. It no longer says whose it was.
        None if config.lock() == "destroyed" => Err(locks::held(client, &at, "destroyed").await?),
        _ => not_ours(),
    }
}

async fn locate(client: &Client, guest: &GuestRef) -> Result<Option<(Place, GuestStatus)>> {
    let at_home = match guest.node.as_str() {
        "" => Ok(None),
        node => status(client, node, guest).await,
    };
    match at_home {
        Ok(Some(status)) => return Ok(Some((Place::new(&guest.node, guest), status))),
        // The guests of a node that is down or gone may have moved to others.
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
            Some(status) => Ok(Some((Place::new(&row.node, guest), status))),
            None => Err(Error::Locked(format!("{} is being moved or deleted", guest.vmid))),
        },
        (None, _) => absent(client, guest, &list).await.map(|()| None),
    }
}

/// Succeeds where it is certain that no node has a guest of this number. The configurations of guests on nodes that
/// are down belong to the cluster, which lists them too.
async fn absent(client: &Client, guest: &GuestRef, list: &ClusterResources) -> Result<()> {
    let unknown = |text: String| Err(Error::Unreachable(format!("unknown whether {} exists: {text}", guest.vmid)));
    let nodes: Vec<_> = list.nodes().collect();
    if nodes.is_empty() {
        return unknown("the cluster lists no nodes".to_owned());
    }
    if list.may_hide(guest.vmid) {
        return unknown("a row of the cluster's list can't be read".to_owned());
    }
    let (up, down): (Vec<&Resource>, Vec<&Resource>) = nodes.iter().copied().partition(|node| node.status == "online");
    // With nodes missing, this may be half of a split cluster with an outdated list.
    if let Some(node) = down.first()
        && !is_quorate(client).await?
    {
        return unknown(format!("node {} is {}, and the cluster has no quorum", node.node, node.status));
    }
    if !guest.node.is_empty() && !nodes.iter().any(|node| node.node == guest.node) {
        return unknown(format!("its node {} is not in the cluster", guest.node));
    }
    // All at once: the client limits how many run at a time.
    let mut asked = Vec::with_capacity(up.len());
    for node in up {
        asked.push(not_on(client, Place::new(&node.node, guest)));
    }
    try_join_all(asked).await?;
    // Last, what the cluster says: it sees what our rights hide, and what moved meanwhile.
    if is_number_free(client, guest.vmid).await? {
        Ok(())
    } else {
        Err(Error::Locked(format!("{} is taken by a guest that we can't see", guest.vmid)))
    }
}

/// Whether the answering node is in its cluster's majority, or standalone.
async fn is_quorate(client: &Client) -> Result<bool> {
    let Rows { read, incomplete } = rows::<Membership>(client, &["cluster", "status"], &[]).await?;
    // A row that can't be read may be the one that says no.
    Ok(!incomplete && read.iter().filter(|row| row.kind == "cluster").all(|row| row.quorate))
}

async fn not_on(client: &Client, at: Place) -> Result<()> {
    match unless_no_config(config(client, &at).await)? {
        None => Ok(()),
        Some(_) => Err(Error::Locked(format!("{} is being moved", at.vmid))),
    }
}

pub(crate) async fn is_number_free(client: &Client, vmid: i64) -> Result<bool> {
    match client.get::<Value>(&["cluster", "nextid"], &[("vmid", &vmid.to_string())]).await {
        Ok(_) => Ok(true),
        Err(Error::AlreadyExists(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// `None` is evidence.
pub(crate) async fn get(client: &Client, guest: &GuestRef) -> Result<Option<LocatedGuest>> {
    match lookup(client, guest).await? {
        Lookup::Ours(found) => Ok(Some(found)),
        Lookup::Coming(_) => Err(Error::Locked(format!("{} is being made", guest.vmid))),
        Lookup::Absent => Ok(None),
    }
}

pub(crate) async fn require(client: &Client, guest: &GuestRef) -> Result<LocatedGuest> {
    get(client, guest).await?.ok_or_else(|| Error::NotFound(format!("{} {}", word(guest.kind), guest.vmid)))
}

pub(crate) async fn require_running(client: &Client, guest: &GuestRef) -> Result<LocatedGuest> {
    let found = require(client, guest).await?;
    if found.power() == GuestPower::Running {
        Ok(found)
    } else {
        Err(Error::Conflict(format!("{} is not running", guest.vmid)))
    }
}
