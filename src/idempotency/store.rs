//! The SQL of idempotency keys.

use sqlx::{PgConnection, PgPool};

use super::Named;

type Result<T> = sqlx::Result<T>;

/// Takes a key; false when it is taken. Two requests at one time wait for each other here.
pub(super) async fn insert(tx: &mut PgConnection, named: &Named) -> Result<bool> {
    let done = sqlx::query!(
        "insert into idempotency_keys (user_id, key, request_hash) values ($1, $2, $3) on conflict do nothing",
        named.user.0,
        named.key,
        &named.fingerprint[..]
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The request and the answer that a key stands for.
pub(super) async fn get(db: &mut PgConnection, named: &Named) -> Result<Option<(Vec<u8>, Option<Vec<u8>>)>> {
    let row = sqlx::query!(
        "select request_hash, answer_sealed from idempotency_keys where user_id = $1 and key = $2",
        named.user.0,
        named.key
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|r| (r.request_hash, r.answer_sealed)))
}

/// Locks a key until the transaction ends.
pub(super) async fn lock(tx: &mut PgConnection, named: &Named) -> Result<()> {
    sqlx::query!("select key from idempotency_keys where user_id = $1 and key = $2 for update", named.user.0, named.key)
        .fetch_optional(tx)
        .await
        .map(drop)
}

pub(super) async fn set_answer(tx: &mut PgConnection, named: &Named, sealed: &[u8]) -> Result<()> {
    sqlx::query!(
        "update idempotency_keys set answer_sealed = $3 where user_id = $1 and key = $2",
        named.user.0,
        named.key,
        sealed
    )
    .execute(tx)
    .await
    .map(drop)
}

pub(super) async fn purge(db: &PgPool) -> Result<()> {
    sqlx::query!("delete from idempotency_keys where created_at < aged_to() - interval '24 hours'")
        .execute(db)
        .await
        .map(drop)
}
