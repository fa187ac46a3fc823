//! Locks on guests.
//!
//! There are two kinds. A task that changes a guest holds a file lock on its node ("can't lock file"), which ends
//! with the task. And backups, migrations, snapshots and the like write a `lock` into the guest's configuration. That
//! one stays if its task is killed, and only a person can lift it. So the node's tasks tell whether a lock in the
//! configuration will pass.

use hypervisor::{Error, GuestKind, Result};

use crate::api::{GuestStatus, TaskRow};
use crate::client::Client;
use crate::place::{self, LocatedGuest, Place};
use crate::rows::{Rows, rows};

/// The lock of a machine whose memory was saved to disk: its next start restores the memory and lifts the lock.
const HIBERNATED: &str = "suspended";

/// Refuses a guest whose configuration is locked, with [`Error::Locked`] if that will pass.
pub(crate) async fn check_unlocked(client: &Client, found: &LocatedGuest) -> Result<()> {
    match found.status.lock.as_str() {
        "" => Ok(()),
        lock => Err(held(client, &found.at, lock).await?),
    }
}

/// The same for calls that work on a hibernated machine too: starting and deleting it.
pub(crate) async fn free_or_hibernated(client: &Client, found: &LocatedGuest) -> Result<()> {
    if found.at.kind == GuestKind::Vm && found.status.lock == HIBERNATED {
        Ok(())
    } else {
        check_unlocked(client, found).await
    }
}

/// The error for a guest that was seen with this lock.
pub(crate) async fn held(client: &Client, at: &Place, lock: &str) -> Result<Error> {
    let (what, tool) = if at.kind == GuestKind::Lxc { ("CT", "pct") } else { ("VM", "qm") };
    let (node, vmid) = (&at.node, &at.vmid);
    if lock == HIBERNATED && at.kind == GuestKind::Vm {
        return Ok(Error::Conflict(format!(
            "{what} {vmid} is hibernated: start it first, or discard its saved memory (qm unlock {vmid} on {node})"
        )));
    }
    let passing = || Ok(Error::Locked(format!("{what} {vmid} on {node} is locked ({lock})")));
    if is_at_work(client, at).await? {
        return passing();
    }
    // The task may have ended, and its lock with it, between the two reads.
    let now = client.get::<GuestStatus>(&at.path(&["status", "current"]), &[]).await;
    if now.is_ok_and(|status| status.lock == lock) {
        let lift = if lock == "mounted" { "unmount" } else { "unlock" };
        return Ok(Error::StaleLock(format!(
            "{what} {vmid} on {node} is locked ({lock}), but no task is working on it: check what was left unfinished, \
             then remove the lock with {tool} {lift} {vmid}"
        )));
    }
    passing()
}

/// Whether a running task may work on a guest. A backup job is one task for many guests and names none of them; a
/// clone's task names its source.
async fn is_at_work(client: &Client, at: &Place) -> Result<bool> {
    const OF_OTHER_NAMES: &[&str] = &["vzdump", "qmclone", "vzclone"];
    let query = [("source", "active"), ("limit", "1000")];
    let Rows { read, incomplete } = rows::<TaskRow>(client, &["nodes", &at.node, "tasks"], &query).await?;
    let works = |row: &TaskRow| OF_OTHER_NAMES.contains(&row.kind.as_str()) || place::is_work_on(row, &at.vmid);
    Ok(incomplete || read.iter().any(|row| row.is_running() && works(row)))
}
