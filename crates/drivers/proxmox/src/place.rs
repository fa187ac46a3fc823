//! Where a guest is in the API, and reading and changing it there.

use hypervisor::{Error, GuestKind, GuestPower, GuestRef, Result};
use serde_json::Value;

use crate::api::{GuestConfig, GuestStatus, TaskRow};
use crate::client::Client;
use crate::rows::{Rows, rows};

/// Kinds of tasks that only show a guest to somebody.
const CONSOLES: &[&str] = &["vncproxy", "vncshell", "termproxy", "spiceproxy", "spiceshell"];

pub(crate) fn word(kind: GuestKind) -> &'static str {
    match kind {
        GuestKind::Lxc => "lxc",
        GuestKind::Vm => "qemu",
    }
}

/// The node, kind and number in a guest's API path.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) node: String,
    pub(crate) kind: GuestKind,
    pub(crate) vmid: String,
}

impl Place {
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

/// One of our guests and its current location.
#[derive(Debug, Clone)]
pub(crate) struct LocatedGuest {
    pub(crate) at: Place,
    pub(crate) status: GuestStatus,
    /// Whether its creation has ended.
    pub(crate) whole: bool,
}

impl LocatedGuest {
    pub(crate) fn power(&self) -> GuestPower {
        match self.status.power() {
            GuestPower::Stopped if !self.whole => GuestPower::Unknown,
            power => power,
        }
    }

    /// Refuses a container with a full disk: its node writes into it before each start, so it would not come up again.
    pub(crate) fn check_room(&self) -> Result<()> {
        if self.status.is_disk_full() {
            let Place { node, vmid, .. } = &self.at;
            return Err(Error::DiskFull(format!("{vmid} on {node} has no room left in its root disk")));
        }
        Ok(())
    }
}

pub(crate) async fn config(client: &Client, at: &Place) -> Result<GuestConfig> {
    client.get(&at.path(&["config"]), &[]).await
}

/// The running tasks that work on a guest. One that can't be read counts as one, of no kind.
pub(crate) async fn active(client: &Client, at: &Place) -> Result<Vec<TaskRow>> {
    let query = [("vmid", at.vmid.as_str()), ("source", "active")];
    let Rows { mut read, incomplete } = rows::<TaskRow>(client, &["nodes", &at.node, "tasks"], &query).await?;
    read.retain(|row| row.is_running() && is_work_on(row, &at.vmid));
    read.extend(incomplete.then(TaskRow::default));
    Ok(read)
}

/// Whether a task works on this guest, and does not only show it to somebody.
pub(crate) fn is_work_on(row: &TaskRow, vmid: &str) -> bool {
    row.id == vmid && !CONSOLES.contains(&row.kind.as_str())
}

/// Whether a guest's storages have a feature.
pub(crate) async fn has_feature(client: &Client, at: &Place, feature: &str) -> Result<bool> {
    let answer: Value = client.get(&at.path(&["feature"]), &[("feature", feature)]).await?;
    let has = answer.get("hasFeature");
    Ok(has.is_some_and(|v| v.as_bool() == Some(true) || v.as_i64() == Some(1) || v.as_str() == Some("1")))
}

/// Changes what differs from `wanted` in a guest's configuration; `None` deletes a key. The digest of `now` guards
/// against losing another change.
pub(crate) async fn change(
    client: &Client,
    at: &Place,
    now: &GuestConfig,
    wanted: &[(&str, Option<String>)],
) -> Result<()> {
    let differs = |config: &GuestConfig| -> Vec<(String, Option<String>)> {
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
        // The configuration may have been written before a 500 or a lost answer.
        Err(error @ (Error::Failed(_) | Error::OutcomeUnknown(_))) => {
            let written = config(client, at).await.is_ok_and(|after| differs(&after).is_empty());
            if written { Ok(()) } else { Err(error) }
        }
        Err(error) => Err(error),
    }
}
