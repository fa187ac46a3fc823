//! Request and response types for snapshots, as the server-management API has them.

use garde::Validate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use kernel::http::text;

/// A server's snapshots.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct SnapshotList {
    /// `success`.
    pub status: &'static str,
    /// Oldest first.
    pub data: Vec<Snapshot>,
    /// How many the server may have at a time.
    pub limit: i32,
}

/// One snapshot.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: String,
    /// When it was taken, in seconds since 1970.
    pub snaptime: i64,
    /// Whether the server can be rolled back to it: false while it is being created or deleted, and permanently if that
    /// never finished; then it can only be deleted.
    pub usable: bool,
    /// The snapshot that it is based on; null if the host doesn't report it.
    pub parent: Option<String>,
    /// Its size in bytes; null if the host doesn't report it.
    pub size: Option<u64>,
}

impl From<hypervisor::Snapshot> for Snapshot {
    fn from(s: hypervisor::Snapshot) -> Self {
        let snaptime = s.taken_at.timestamp();
        let usable = s.usable;
        Self { name: s.name, description: s.description, snaptime, usable, parent: s.parent, size: s.size }
    }
}

/// A snapshot to create.
#[derive(Debug, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSnapshot {
    /// Its name: a letter, then letters, digits, `-` and `_`, 2 to 40 characters in total.
    #[garde(custom(name))]
    #[schema(example = "backup-2024-01-01")]
    pub snapname: String,
    /// Its description.
    #[serde(default)]
    #[garde(length(chars, max = 500), custom(text::plain))]
    pub description: String,
}

/// A snapshot to roll back to.
#[derive(Debug, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// Its name.
    #[garde(custom(name))]
    pub snapname: String,
    /// Takes a snapshot of the current state first, so that nothing is lost; false if omitted.
    #[serde(default, rename = "safetySnapshot")]
    #[garde(skip)]
    pub safety_snapshot: bool,
}

/// The name of a snapshot.
#[derive(Debug, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedSnapshot {
    /// Its name.
    #[garde(custom(name))]
    pub snapname: String,
}

/// The response to an operation on a snapshot.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotAction {
    /// `success`: the request was accepted.
    pub status: String,
    /// The host's own task id, or the operation's id if the host has none (yet).
    pub task_id: String,
    /// The snapshot's name.
    pub snapname: String,
    /// The name of the snapshot that is taken before the rollback, if one was requested.
    pub safety_snapshot: Option<String>,
    /// The operation, for `GET /api/operations/{id}`.
    pub operation_id: Uuid,
}

/// A name that every kind of host accepts. Proxmox VE is the strictest: a configuration id of at most 40 characters,
/// but not `current` or `vzdump`, which it reserves; `pending` is a section of its configuration files.
fn name(text: &str, (): &()) -> garde::Result {
    let reserved = ["current", "vzdump", "pending"].iter().any(|r| text.eq_ignore_ascii_case(r));
    let letters = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if (2..=40).contains(&text.len()) && text.starts_with(|c: char| c.is_ascii_alphabetic()) && letters && !reserved {
        return Ok(());
    }
    Err(garde::Error::new(
        "must have 2 to 40 letters, digits, - and _, begin with a letter, and not be current, pending or vzdump",
    ))
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_those_that_every_host_takes() {
        for good in ["backup-2024-01-01", "backup-1704067200000", "a1", "A_b"] {
            assert!(super::name(good, &()).is_ok(), "{good}");
        }
        for bad in ["", "a", "1a", "a b", "a/b", "..", "current", "Current", "vzdump", "копия", "a\n", &"a".repeat(41)]
        {
            assert!(super::name(bad, &()).is_err(), "{bad:?}");
        }
    }
}
