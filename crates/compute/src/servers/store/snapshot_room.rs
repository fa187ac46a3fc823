//! SQL for the space that a server's snapshots hold beside its disk. Only the host knows which snapshots exist.

use hypervisor::Snapshot;
use sqlx::PgConnection;

use super::Result;
use crate::ids::ServerId;
use crate::servers::model::ServerRecord;

/// The state of the storage that a server is on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StorageCheck {
    /// Whether the additional space is available according to our records.
    pub fits: bool,
    /// Whether more than the margin is actually free, as of the last sweep.
    pub free: bool,
}

/// Checks, under the placement lock, whether a server's node has space for this many additional GiB.
pub(crate) async fn storage(
    tx: &mut PgConnection,
    server: &ServerRecord,
    gib: i64,
    margin_percent: u32,
) -> Result<Option<StorageCheck>> {
    sqlx::query_as!(
        StorageCheck,
        r#"select used.disk_gib + $3 <= n.disk_gib * h.disk_overcommit as "fits!", has_margin(n, $4) as "free!"
           from nodes n
           join hosts h on h.id = n.host_id
           join node_use used on used.host_id = n.host_id and used.name = n.name
           where n.host_id = $1 and n.name = $2"#,
        server.host_id.0,
        server.node,
        gib as i64,
        i64::from(margin_percent)
    )
    .fetch_optional(tx)
    .await
}

/// Records what a snapshot holds, or will hold; a later value replaces it.
pub(crate) async fn record_size(tx: &mut PgConnection, server: ServerId, name: &str, gib: i64) -> Result<()> {
    sqlx::query!(
        "insert into snapshot_room (server_id, name, gib) values ($1, $2, $3)
         on conflict (server_id, name) do update set gib = excluded.gib, noted_at = now()",
        server.0,
        name,
        gib
    )
    .execute(tx)
    .await
    .map(drop)
}

/// The recorded size of a snapshot.
pub(crate) async fn recorded_size(tx: &mut PgConnection, server: ServerId, name: &str) -> Result<Option<i64>> {
    sqlx::query_scalar!("select gib from snapshot_room where server_id = $1 and name = $2", server.0, name)
        .fetch_optional(tx)
        .await
}

/// Deletes the record of a snapshot that is gone.
pub(crate) async fn release(tx: &mut PgConnection, server: ServerId, name: &str) -> Result<()> {
    sqlx::query!("delete from snapshot_room where server_id = $1 and name = $2", server.0, name)
        .execute(tx)
        .await
        .map(drop)
}

/// Deletes the records of all of a server's snapshots, which are gone.
pub(crate) async fn free_all(tx: &mut PgConnection, server: ServerId) -> Result<()> {
    sqlx::query!("delete from snapshot_room where server_id = $1", server.0).execute(tx).await.map(drop)
}

/// Reconciles our records with the host: snapshots that were deleted there hold nothing, and those without a record
/// (taken before there were any, or manually) hold `gib`. One that was recorded just now may not exist yet.
pub(crate) async fn reconcile(tx: &mut PgConnection, server: ServerId, there: &[Snapshot], gib: i64) -> Result<()> {
    let names: Vec<String> = there.iter().map(|s| s.name.clone()).collect();
    sqlx::query!(
        "with gone as (
             delete from snapshot_room
             where server_id = $1 and name <> all ($2) and noted_at < now() - interval '5 minutes')
         insert into snapshot_room (server_id, name, gib) select $1, name, $3 from unnest($2::text[]) as name
         on conflict (server_id, name) do nothing",
        server.0,
        &names,
        gib
    )
    .execute(tx)
    .await
    .map(drop)
}
