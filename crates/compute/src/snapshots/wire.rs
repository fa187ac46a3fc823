//! Responses of the server-management API about snapshots.

use serde::Serialize;
use uuid::Uuid;

use super::service::ServerSnapshots;
use crate::servers::service::Accepted;
use crate::servers::wire::{SUCCESS, task_id};

/// A server's snapshots.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct SnapshotList {
    /// `success`.
    pub status: &'static str,
    /// Oldest first.
    pub data: Vec<Snapshot>,
    /// How many the server may have at a time.
    pub limit: i32,
}

impl From<ServerSnapshots> for SnapshotList {
    fn from(snapshots: ServerSnapshots) -> Self {
        let data = snapshots.on_host.into_iter().map(Into::into).collect();
        Self { status: SUCCESS, data, limit: snapshots.limit }
    }
}

/// One snapshot.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Snapshot {
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

/// The response to an operation on a snapshot.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SnapshotAction {
    /// `success`: the request was accepted.
    pub status: &'static str,
    /// The host's own task id, or the operation's id if the host has none (yet).
    pub task_id: String,
    /// The snapshot's name.
    pub snapname: String,
    /// The name of the snapshot that is taken before the rollback, if one was requested.
    pub safety_snapshot: Option<String>,
    /// The operation, for `GET /api/operations/{id}`.
    pub operation_id: Uuid,
}

impl SnapshotAction {
    /// The response to an accepted request about the snapshot of this name.
    pub(super) fn new(accepted: Accepted, snapname: String) -> Self {
        let (task_id, operation_id) = (task_id(&accepted), accepted.operation);
        Self { status: SUCCESS, task_id, snapname, safety_snapshot: accepted.generated, operation_id }
    }
}
