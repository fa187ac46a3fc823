//! SQL for the key's check value.

use sqlx::PgPool;

type Result<T> = sqlx::Result<T>;

pub(super) async fn get(db: &PgPool) -> Result<Option<Vec<u8>>> {
    sqlx::query_scalar!("select sealed from key_check").fetch_optional(db).await
}

/// Inserts the first check value; keeps one that another process has inserted.
pub(super) async fn insert(db: &PgPool, sealed: &[u8]) -> Result<()> {
    sqlx::query!("insert into key_check (sealed) values ($1) on conflict do nothing", sealed)
        .execute(db)
        .await
        .map(drop)
}

/// Replaces the check value; false if it has changed since it was read.
pub(super) async fn replace(db: &PgPool, before: &[u8], sealed: &[u8]) -> Result<bool> {
    let done = sqlx::query!("update key_check set sealed = $2, sealed_at = now() where sealed = $1", before, sealed)
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}
