//! SQL for idempotency keys.

use sqlx::{PgConnection, PgPool};

use super::RequestKey;

type Result<T> = sqlx::Result<T>;

/// Inserts a key; false if it exists. Concurrent requests with the same key wait for each other here.
pub(super) async fn insert(tx: &mut PgConnection, named: &RequestKey) -> Result<bool> {
    let done = sqlx::query!(
        "insert into idempotency_keys (user_id, key, request_hash) values ($1, $2, $3) on conflict do nothing",
        named.user.0,
        named.key,
        named.fingerprint.as_bytes()
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The request fingerprint and the response stored under a key.
pub(super) async fn get(db: &mut PgConnection, named: &RequestKey) -> Result<Option<(Vec<u8>, Option<Vec<u8>>)>> {
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
pub(super) async fn lock(tx: &mut PgConnection, named: &RequestKey) -> Result<()> {
    sqlx::query!("select key from idempotency_keys where user_id = $1 and key = $2 for update", named.user.0, named.key)
        .fetch_optional(tx)
        .await
        .map(drop)
}

pub(super) async fn set_answer(tx: &mut PgConnection, named: &RequestKey, sealed: &[u8]) -> Result<()> {
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

/// Stored responses of the keys after `after`, in the order of the keys.
pub(super) async fn answers(db: &PgPool, after: &(i64, String), limit: i64) -> Result<Vec<(i64, String, Vec<u8>)>> {
    let rows = sqlx::query!(
        r#"select user_id, key, answer_sealed as "sealed!" from idempotency_keys
           where answer_sealed is not null and (user_id, key) > ($1, $2) order by user_id, key limit $3"#,
        after.0,
        after.1,
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|r| (r.user_id, r.key, r.sealed)).collect())
}

/// Replaces a stored response by the same one sealed with another key; false if it has changed meanwhile.
pub(super) async fn replace_answer(db: &PgPool, user: i64, key: &str, before: &[u8], sealed: &[u8]) -> Result<bool> {
    let done = sqlx::query!(
        "update idempotency_keys set answer_sealed = $4 where user_id = $1 and key = $2 and answer_sealed = $3",
        user,
        key,
        before,
        sealed
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes keys older than a day and, for an account with more than `most`, the oldest ones early.
pub(super) async fn purge(db: &PgPool, most: i64) -> Result<()> {
    sqlx::query!("delete from idempotency_keys where created_at < aged_to() - interval '24 hours'").execute(db).await?;
    sqlx::query!(
        "delete from idempotency_keys k using (
             select o.user_id, l.created_at from (
                 select user_id from idempotency_keys group by user_id having count(*) > $1) o
             cross join lateral (
                 select created_at from idempotency_keys i where i.user_id = o.user_id
                 order by created_at desc offset $1 limit 1) l) over
         where k.user_id = over.user_id and k.created_at <= over.created_at",
        most
    )
    .execute(db)
    .await
    .map(drop)
}
