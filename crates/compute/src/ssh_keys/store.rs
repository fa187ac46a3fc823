//! SQL for SSH keys.

use sqlx::{PgConnection, PgPool};

use super::model::SshKey;
use crate::ids::{SshKeyId, UserId};

type Result<T> = sqlx::Result<T>;

pub(super) async fn list(db: &PgPool, user: UserId) -> Result<Vec<SshKey>> {
    sqlx::query_as!(
        SshKey,
        r#"select id as "id: SshKeyId", name, public_key, fingerprint, created_at from ssh_keys
           where user_id = $1 order by id"#,
        user.0
    )
    .fetch_all(db)
    .await
}

/// Locks the account against concurrent additions, and counts its keys.
pub(super) async fn lock_and_count(tx: &mut PgConnection, user: UserId) -> Result<i64> {
    sqlx::query!("select from users where id = $1 for no key update", user.0).fetch_one(&mut *tx).await?;
    sqlx::query_scalar!(r#"select count(*) as "n!" from ssh_keys where user_id = $1"#, user.0).fetch_one(tx).await
}

/// Adds a key; `None` if the account already has it.
pub(super) async fn insert(
    tx: &mut PgConnection,
    user: UserId,
    name: &str,
    public_key: &str,
    fingerprint: &str,
) -> Result<Option<SshKey>> {
    sqlx::query_as!(
        SshKey,
        r#"insert into ssh_keys (user_id, name, public_key, fingerprint) values ($1, $2, $3, $4)
           on conflict (user_id, fingerprint) do nothing
           returning id as "id: SshKeyId", name, public_key, fingerprint, created_at"#,
        user.0,
        name,
        public_key,
        fingerprint
    )
    .fetch_optional(tx)
    .await
}

pub(super) async fn public_key(tx: &mut PgConnection, user: UserId, id: SshKeyId) -> Result<Option<String>> {
    sqlx::query_scalar!("select public_key from ssh_keys where user_id = $1 and id = $2", user.0, id.0)
        .fetch_optional(tx)
        .await
}

/// Deletes a key; false if the account has no such key.
pub(super) async fn delete(tx: &mut PgConnection, user: UserId, id: SshKeyId) -> Result<bool> {
    let done = sqlx::query!("delete from ssh_keys where user_id = $1 and id = $2", user.0, id.0).execute(tx).await?;
    Ok(done.rows_affected() == 1)
}
