//! The SQL of the live view.

use sqlx::PgPool;
use uuid::Uuid;

use crate::ids::ServerId;

type Result<T> = sqlx::Result<T>;

/// The operations in progress on these servers.
pub(super) async fn active_operations(db: &PgPool, servers: &[ServerId]) -> Result<Vec<Uuid>> {
    let ids: Vec<i64> = servers.iter().map(|s| s.0).collect();
    sqlx::query_scalar!(
        "select id from operations
         where server_id = any ($1) and state in ('queued', 'running', 'undoing', 'stuck')",
        &ids
    )
    .fetch_all(db)
    .await
}

/// The latest operation of each of these servers.
pub(super) async fn latest_operations(db: &PgPool, servers: &[ServerId]) -> Result<Vec<Uuid>> {
    let ids: Vec<i64> = servers.iter().map(|s| s.0).collect();
    sqlx::query_scalar!(
        "select distinct on (server_id) id from operations where server_id = any ($1)
         order by server_id, created_at desc",
        &ids
    )
    .fetch_all(db)
    .await
}
