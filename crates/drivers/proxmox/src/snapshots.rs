//! Snapshots.
//!
//! Proxmox VE restores a guest's *configuration* together with its disks: size, network and tags. Ours must not: a
//! resize since the snapshot would be lost, and with it what the customer pays for. Only the description stays, so a
//! roll-back first saves there what must stay (what is saved already is an earlier attempt's, and right); once the
//! task has ended, [`settle`] restores what was saved and removes it, in whichever process of ours.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::DateTime;
use hypervisor::{Error, GuestPower, GuestRef, Result, Snapshot, Snapshots, Task};
use serde::{Deserialize, Serialize};

use crate::api::{GIB, GuestConfig, figure, text};
use crate::client::Client;
use crate::explain::explained;
use crate::place::{self, LocatedGuest, Place};
use crate::rows::{Rows, rows};
use crate::size::{disk_size, grow, root_disk};
use crate::tasks::{self, Followed, PveFollowUp, TaskOutcome, Upid, chained, plain};
use crate::{Proxmox, lookup, marker, power};

/// Configuration keys that a roll-back must not change.
const KEPT: &[&str] = &[
    "cores",
    "sockets",
    "memory",
    "balloon",
    "swap",
    "net0",
    "ipconfig0",
    "nameserver",
    "searchdomain",
    "tags",
    "hostname",
    "name",
    "onboot",
];

/// The longest description, in characters.
const DESCRIPTION: usize = 8192;

/// The settings that a rollback must not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Keep {
    running: bool,
    disk_gib: u64,
    config: BTreeMap<String, String>,
}

impl Keep {
    fn of(found: &LocatedGuest, config: &GuestConfig) -> Result<Self> {
        let (_, root) = root_disk(found.at.kind, config)?;
        let kept = KEPT.iter().filter_map(|key| Some(((*key).to_owned(), config.get(key)?)));
        let running = found.power() == GuestPower::Running;
        Ok(Self { running, disk_gib: disk_size(&root).div_ceil(GIB), config: kept.collect() })
    }
}

fn check(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let letter = name.starts_with(|c: char| c.is_ascii_alphabetic());
    if !letter || !(2..=40).contains(&name.len()) || !name.chars().all(plain) || matches!(name, "current" | "vzdump") {
        return Err(Error::Invalid(format!(
            "{name:?} is not a valid snapshot name: 2 to 40 letters, digits, - and _, starting with a letter"
        )));
    }
    Ok(())
}

#[derive(Debug, Deserialize)]
struct SnapshotRow {
    name: String,
    #[serde(default, deserialize_with = "text")]
    description: String,
    #[serde(default, deserialize_with = "figure")]
    snaptime: Option<u64>,
    #[serde(default, deserialize_with = "text")]
    parent: String,
    /// `prepare` or `delete`, while that is under way, and for good if it never ends.
    #[serde(default, deserialize_with = "text")]
    snapstate: String,
}

impl SnapshotRow {
    fn is_usable(&self) -> bool {
        self.snapstate.is_empty()
    }

    fn parent(&self) -> Option<&str> {
        Some(self.parent.as_str()).filter(|name| !name.is_empty())
    }

    fn time(&self) -> i64 {
        self.snaptime.and_then(|at| i64::try_from(at).ok()).unwrap_or_default()
    }
}

async fn listed(client: &Client, at: &Place) -> Result<Rows<SnapshotRow>> {
    let mut rows: Rows<SnapshotRow> = rows(client, &at.path(&["snapshot"]), &[]).await?;
    // The "you are here" entry.
    rows.read.retain(|row| row.name != "current");
    Ok(rows)
}

#[async_trait]
impl Snapshots for Proxmox {
    async fn snapshots(&self, guest: &GuestRef) -> Result<Vec<Snapshot>> {
        let client = &self.client;
        let found = lookup::require(client, guest).await?;
        let mut rows = listed(client, &found.at).await?.read;
        // Of several in one second, a parent comes before its child.
        let depth = |row: &SnapshotRow, rows: &[SnapshotRow]| {
            let mut parent = row.parent();
            let mut depth = 0;
            while let Some(row) =
                parent.and_then(|name| rows.iter().find(|row| row.name == name)).filter(|_| depth < rows.len())
            {
                parent = row.parent();
                depth += 1;
            }
            depth
        };
        let order: BTreeMap<String, (i64, usize)> =
            rows.iter().map(|row| (row.name.clone(), (row.time(), depth(row, &rows)))).collect();
        rows.sort_by_key(|row| order.get(&row.name).copied());
        Ok(rows
            .into_iter()
            .map(|row| Snapshot {
                description: row.description.strip_suffix('\n').unwrap_or(&row.description).to_owned(),
                usable: row.is_usable(),
                parent: row.parent().map(str::to_owned),
                taken_at: DateTime::from_timestamp(row.time(), 0).unwrap_or_default(),
                name: row.name,
                size: None,
            })
            .collect())
    }

    async fn create_snapshot(&self, guest: &GuestRef, name: &str, description: &str) -> Result<Task> {
        let client = &self.client;
        explained(client, guest, async {
            check(name)?;
            let found = lookup::require(client, guest).await?;
            if listed(client, &found.at).await?.read.iter().any(|row| row.name == name) {
                return Err(Error::AlreadyExists(format!("snapshot {name} of {}", guest.vmid)));
            }
            if !place::has_feature(client, &found.at, "snapshot").await? {
                return Err(Error::Unsupported(format!("the storage of {} does not support snapshots", guest.vmid)));
            }
            let form = [("snapname", name), ("description", description)];
            client.post(&found.at.path(&["snapshot"]), &form).await.map(plain)
        })
        .await
    }

    async fn rollback(&self, guest: &GuestRef, name: &str) -> Result<Task> {
        let client = &self.client;
        explained(client, guest, async {
            check(name)?;
            let found = lookup::require(client, guest).await?;
            let at = &found.at;
            if let Some(row) = place::active(client, at).await?.into_iter().find(|row| row.kind.ends_with("rollback")) {
                return Ok(chained(&row.upid, PveFollowUp::Settled, guest));
            }
            let (config, description) = prepare(client, guest, &found, name).await?;
            if description.is_some() {
                place::change(client, at, &config, &[("description", description)]).await?;
            }
            let upid: String = client.post(&at.path(&["snapshot", name, "rollback"]), &[]).await?;
            Ok(chained(&upid, PveFollowUp::Settled, guest))
        })
        .await
    }

    async fn check_rollback(&self, guest: &GuestRef, name: &str) -> Result<()> {
        let client = &self.client;
        let found = lookup::require(client, guest).await?;
        prepare(client, guest, &found, name).await.map(drop)
    }

    async fn delete_snapshot(&self, guest: &GuestRef, name: &str) -> Result<Task> {
        let client = &self.client;
        explained(client, guest, async {
            check(name)?;
            let found = lookup::require(client, guest).await?;
            let there = listed(client, &found.at).await?;
            if !there.incomplete && !there.read.iter().any(|row| row.name == name) {
                return Ok(Task::Done);
            }
            client.delete(&found.at.path(&["snapshot", name]), &[]).await.map(plain)
        })
        .await
    }
}

/// The configuration before a roll-back, and the description to write first, unless it is written already.
async fn prepare(
    client: &Client,
    guest: &GuestRef,
    found: &LocatedGuest,
    name: &str,
) -> Result<(GuestConfig, Option<String>)> {
    let there = listed(client, &found.at).await?.read;
    let Some(row) = there.iter().find(|row| row.name == name) else {
        return Err(Error::NotFound(format!("snapshot {name} of {}", guest.vmid)));
    };
    if !row.is_usable() {
        return Err(Error::Conflict(format!(
            "The snapshot {name} is incomplete: its creation or deletion has not finished. Delete it if that stays so."
        )));
    }
    let config = place::config(client, &found.at).await?;
    if marker::kept(&config.description()).is_some() {
        return Ok((config, None));
    }
    let keep = serde_json::to_string(&Keep::of(found, &config)?).map_err(|e| Error::Failed(e.to_string()))?;
    let description = marker::with_kept(&config.description(), Some(&keep));
    let over = description.chars().count().saturating_sub(DESCRIPTION);
    if over > 0 {
        return Err(Error::Conflict(format!(
            "The provider's notes on this server's host are too long for a rollback, which adds to them: they must be \
             shortened by {over} characters first."
        )));
    }
    Ok((config, Some(description)))
}

/// The roll-back's task has ended: undo what it must not change.
pub(crate) async fn settle(client: &Client, upid: &Upid, end: TaskOutcome, found: &LocatedGuest) -> Result<Followed> {
    let at = &found.at;
    let config = place::config(client, at).await?;
    let description = config.description();
    let Some(keep) = marker::kept(&description) else { return Ok(end.into()) };
    let keep: Keep = serde_json::from_str(keep)
        .map_err(|e| Error::Failed(format!("the settings kept by the rollback of {} can't be read: {e}", at.vmid)))?;
    let wanted: Vec<_> = KEPT.iter().map(|key| (*key, keep.config.get(*key).cloned())).collect();
    place::change(client, at, &config, &wanted).await?;
    let (key, root) = root_disk(at.kind, &config)?;
    if disk_size(&root) < keep.disk_gib * GIB {
        let grow = || grow(client, at, &key, keep.disk_gib);
        let grown = tasks::submit_next(client, upid, found, &["resize"], grow).await?;
        return Ok(Followed::or(grown, Error::Failed("the disk was not restored to its size".to_owned())));
    }
    if keep.running && found.status.power() == GuestPower::Stopped {
        return power::start_after(client, upid, found).await;
    }
    let config = place::config(client, at).await?;
    let description = marker::with_kept(&config.description(), None);
    place::change(client, at, &config, &[("description", Some(description))]).await?;
    Ok(end.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_proxmox_takes() {
        for good in ["one", "zulu", "a1", "before-upgrade_2"] {
            assert!(check(good).is_ok(), "{good}");
        }
        let long = "a".repeat(41);
        for bad in ["", "a", "1a", "a/b", "..", "a b", "a\nb", "current", "vzdump", "a.b", &long] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
