//! Operations that a person is to decide about.

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Result, changed};
use crate::ids::ServerId;

/// Puts everything that is under way into a person's hands, whoever is at work on it: what they write from now on counts
/// for nothing. Those that are stuck already are told of it, too; those that waited for their turn end. Gives how many it was.
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
         select pg_notify('operation_changed', id::text) from (select id from held union all select id from dropped) told",
        message,
        detail
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.len() as u64)
}

/// Ends a stuck operation as it stands; gives its server, or `None` where it is not stuck.
pub(in crate::operations) async fn abandon(tx: &mut PgConnection, id: Uuid) -> Result<Option<ServerId>> {
    let server = sqlx::query_scalar!(
        r#"update operations set state = 'failed', data = $2, lease_owner = null, lease_until = null, ended_at = now(),
               updated_at = now()
           where id = $1 and state = 'stuck' returning server_id as "server: ServerId""#,
        id,
        Value::Null
    )
    .fetch_optional(&mut *tx)
    .await?;
    if server.is_some() {
        changed(tx, id).await?;
    }
    Ok(server)
}
