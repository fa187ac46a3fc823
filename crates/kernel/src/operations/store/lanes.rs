//! The SQL of lanes that are checked, as hosts are by sweeps.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::Result;

/// Adds a lane that has not been checked yet.
pub(in crate::operations) async fn add_lane(db: impl PgExecutor<'_>, lane: &str) -> Result<()> {
    sqlx::query!("insert into operation_lanes (lane) values ($1) on conflict do nothing", lane)
        .execute(db)
        .await
        .map(drop)
}

pub(in crate::operations) async fn remove_lane(db: impl PgExecutor<'_>, lane: &str) -> Result<()> {
    sqlx::query!("delete from operation_lanes where lane = $1", lane).execute(db).await.map(drop)
}

/// Records that a lane was checked. Only the first check after a time in which no process ran matters, so the others
/// write nothing, unless a wrong clock wrote the last one.
pub(in crate::operations) async fn lane_checked(db: impl PgExecutor<'_>, lane: &str, at: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "update operation_lanes set checked_at = $2
         where lane = $1 and (checked_at is null or checked_at > $2 or exists (
             select from installation i where checked_at <= i.silent_to and i.silent_to < $2))",
        lane,
        at
    )
    .execute(db)
    .await
    .map(drop)
}

/// Moves an operation to another lane, and with it the one that waits behind it.
pub(in crate::operations) async fn set_lane(tx: &mut PgConnection, id: Uuid, lane: &str) -> Result<()> {
    sqlx::query!(
        "update operations o set lane = $2 from operations moved
         where moved.id = $1 and o.subject_kind = moved.subject_kind and o.subject_id = moved.subject_id
           and (o.id = moved.id or o.state = 'waiting')",
        id,
        lane
    )
    .execute(tx)
    .await
    .map(drop)
}
