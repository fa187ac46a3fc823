//! The space that snapshots take. While a guest overwrites its disk, a snapshot keeps the old contents: so in addition
//! to the server's own disk, each one holds what its guest had in use when it was taken, in whole GiB. That is the most
//! that the node can need for it, and it is reserved on the node like disks are.

use hypervisor::{Driver, GuestRef, Snapshot};
use kernel::error::{Code, Error, Result};
use sqlx::PgConnection;

use crate::servers::model::ServerRecord;
use crate::servers::placement;
use crate::servers::store::snapshot_room;

/// How many GiB a snapshot taken now would hold: the whole disk, if the host can't report how much is in use.
pub(super) async fn size_now(driver: &dyn Driver, at: &GuestRef, server: &ServerRecord) -> hypervisor::Result<i64> {
    let used = driver.disk_used(at).await?;
    Ok(used.map_or(server.disk_gib, |used| i64::try_from(used.div_ceil(1 << 30)).unwrap_or(i64::MAX)))
}

/// Reserves space for a snapshot in the request's transaction, which has locked the server. `margin`: percentage of its
/// storage that must stay free.
pub(super) async fn take(
    tx: &mut PgConnection,
    margin: u32,
    server: &ServerRecord,
    name: &str,
    there: &[Snapshot],
    gib: i64,
) -> Result<()> {
    placement::lock(tx).await?;
    snapshot_room::reconcile(tx, server.id, there, gib).await?;
    let storage = snapshot_room::storage(tx, server, gib, margin).await?;
    match storage {
        Some(storage) if !storage.fits => Err(no_space()),
        Some(storage) if !storage.free => Err(nearly_full()),
        // Nothing is known of a node that no sweep has seen yet.
        _ => Ok(snapshot_room::record_size(tx, server.id, name, gib).await?),
    }
}

/// Corrects what a snapshot that has just been taken holds: its guest may have grown since space was reserved for it.
/// False if the node has no space for the difference.
pub(super) async fn correct(
    tx: &mut PgConnection,
    margin: u32,
    server: &ServerRecord,
    name: &str,
    gib: i64,
) -> sqlx::Result<bool> {
    placement::lock(tx).await?;
    // Anything that the guest has deleted since is still in the snapshot.
    let noted = snapshot_room::recorded_size(tx, server.id, name).await?.unwrap_or(0);
    let gib = gib.max(noted);
    let more = gib - noted;
    if more > 0
        && let Some(storage) = snapshot_room::storage(tx, server, more, margin).await?
        && !storage.fits
    {
        return Ok(false);
    }
    snapshot_room::record_size(tx, server.id, name, gib).await?;
    Ok(true)
}

/// The error for a storage that has no space for another snapshot.
pub(super) fn no_space() -> Error {
    Error::new(
        Code::ResourceUnavailable,
        "This server's storage has no space for another snapshot at the moment: delete one, or free disk space in the \
         server, since a snapshot takes as much as is in use.",
    )
}

fn nearly_full() -> Error {
    Error::new(
        Code::ResourceUnavailable,
        "This server's storage is nearly full, so no snapshots can be taken at the moment; the provider has to free \
         some space.",
    )
}
