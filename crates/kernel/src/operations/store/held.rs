//! Operations that a person must decide about.

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Result, changed};

/// Marks everything in progress stuck, whoever is working on it: their later writes are fenced off. Those that are
/// stuck already get the message too; those that waited end. Returns how many there were.
pub(in crate::operations) async fn mark_all_stuck(tx: &mut PgConnection, message: &str, detail: &str) -> Result<u64> {
    let rows = sqlx::query!(
        "with held as (
             update operations set state = 'stuck', attempts = 0, lease_owner = null, lease_until = null,
                 fence = fence + 1000, error_code = 'CONFLICT', error_message = $1,
                 error_detail = concat_ws(E'\\n', $2::text, error_detail), updated_at = now()
             where state in ('queued', 'running', 'undoing', 'stuck') returning id, step),
         logged as (
             insert into operation_log (operation_id, level, step, message)
             select id, 'error', step, $2 || ' A person must look.' from held),
         dropped as (
             update operations set state = 'failed', data = 'null', error_code = 'CONFLICT',
                 error_message = 'It waited for another operation when the database was restored. Ask for it again.',
                 ended_at = now(), updated_at = now()
             where state = 'waiting' returning id)
         select pg_notify('operation_changed', id::text)
         from (select id from held union all select id from dropped) told",
        message,
        detail
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.len() as u64)
}

/// Ends a stuck operation as it is; false if it is not stuck.
pub(in crate::operations) async fn abandon(tx: &mut PgConnection, id: Uuid) -> Result<bool> {
    let done = sqlx::query!(
        "update operations set state = 'failed', data = $2, lease_owner = null, lease_until = null, ended_at = now(),
               updated_at = now()
           where id = $1 and state = 'stuck'",
        id,
        Value::Null
    )
    .execute(&mut *tx)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    changed(tx, id).await?;
    Ok(true)
}
