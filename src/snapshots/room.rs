//! The room that snapshots take. While a guest writes its disk anew, a snapshot keeps what was there when it was taken: so
//! each holds, beside the server's own disk, what its guest had in use at that moment, in whole GiB. That is what the node
//! can come to need at most, and it is taken from the node as disks are.

use hypervisor::{Driver, GuestRef, Snapshot};
use sqlx::PgConnection;

use super::store;
use crate::core::Core;
use crate::error::{Code, Error, Result};
use crate::servers::model::ServerRecord;
use crate::servers::placement;

/// How many GiB a snapshot taken now would hold: all of the disk, where the host can't tell what is in use.
pub(super) async fn of_now(driver: &dyn Driver, at: &GuestRef, server: &ServerRecord) -> hypervisor::Result<i64> {
    let used = driver.disk_used(at).await?;
    Ok(used.map_or(server.disk_gib, |used| i64::try_from(used.div_ceil(1 << 30)).unwrap_or(i64::MAX)))
}

/// Takes room for a snapshot, in the request's transaction, which holds the server.
pub(super) async fn take(
    core: &Core,
    tx: &mut PgConnection,
    server: &ServerRecord,
    name: &str,
    there: &[Snapshot],
    gib: i64,
) -> Result<()> {
    placement::lock(tx).await?;
    store::put_right(tx, server.id, there, gib).await?;
    let storage = store::storage(tx, server, gib, core.config.storage_margin_percent).await?;
    match storage {
        Some(storage) if !storage.fits => Err(none()),
        Some(storage) if !storage.free => Err(nearly_full()),
        // A node that no sweep has seen yet tells nothing.
        _ => Ok(store::note(tx, server.id, name, gib).await?),
    }
}

/// Puts right what a snapshot that has just been taken holds: its guest may have grown since room was taken for it. False
/// where the node has no room for the difference.
pub(super) async fn settle(
    core: &Core,
    tx: &mut PgConnection,
    server: &ServerRecord,
    name: &str,
    gib: i64,
) -> sqlx::Result<bool> {
    placement::lock(tx).await?;
    // What it deleted since is in the snapshot all the same.
    let noted = store::noted(tx, server.id, name).await?.unwrap_or(0);
    let gib = gib.max(noted);
    let more = gib - noted;
    if more > 0
        && let Some(storage) = store::storage(tx, server, more, core.config.storage_margin_percent).await?
        && !storage.fits
    {
        return Ok(false);
    }
    store::note(tx, server.id, name, gib).await?;
    Ok(true)
}

/// What to say where there is no room for one more.
pub(super) fn none() -> Error {
    Error::new(
        Code::ResourceUnavailable,
        "The storage that this server is on has no room for another snapshot of it at the moment: delete one, or free space in \
         the server, since a snapshot takes as much as is in use.",
    )
}

fn nearly_full() -> Error {
    Error::new(
        Code::ResourceUnavailable,
        "The storage that this server is on is nearly full, so it takes no snapshots at the moment; the provider has to free \
         some of it.",
    )
}
