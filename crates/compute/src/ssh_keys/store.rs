//! SQL for SSH keys.

use sqlx::{PgConnection, PgPool};

use super::model::{SshKey, SshKeyRecord};
use crate::ids::{AccountId, SshKeyId};

type Result<T> = sqlx::Result<T>;

pub(super) async fn list(db: &PgPool, account: AccountId) -> Result<Vec<SshKey>> {
    sqlx::query_as!(
        SshKey,
        r#"select id as "id: SshKeyId", name, public_key, fingerprint, created_at from ssh_keys
           where account_id = $1 order by id"#,
        account.0
    )
    .fetch_all(db)
    .await
}

/// A key and whose it is.
pub(super) async fn find(db: &PgPool, id: SshKeyId) -> Result<Option<SshKeyRecord>> {
    sqlx::query_as!(
        SshKeyRecord,
        r#"select k.id as "id: SshKeyId", a.id as "account: AccountId", a.parent_id as "reseller: AccountId"
           from ssh_keys k join accounts a on a.id = k.account_id where k.id = $1"#,
        id.0
    )
    .fetch_optional(db)
    .await
}

/// Locks the account against concurrent additions, and counts its keys.
pub(super) async fn lock_and_count(tx: &mut PgConnection, account: AccountId) -> Result<i64> {
    sqlx::query!("select from accounts where id = $1 for no key update", account.0).fetch_one(&mut *tx).await?;
    sqlx::query_scalar!(r#"select count(*) as "n!" from ssh_keys where account_id = $1"#, account.0).fetch_one(tx).await
}

/// Adds a key; `None` if the account already has it.
pub(super) async fn insert(
    tx: &mut PgConnection,
    account: AccountId,
    name: &str,
    public_key: &str,
    fingerprint: &str,
) -> Result<Option<SshKey>> {
    sqlx::query_as!(
        SshKey,
        r#"insert into ssh_keys (account_id, name, public_key, fingerprint) values ($1, $2, $3, $4)
           on conflict (account_id, fingerprint) do nothing
           returning id as "id: SshKeyId", name, public_key, fingerprint, created_at"#,
        account.0,
        name,
        public_key,
        fingerprint
    )
    .fetch_optional(tx)
    .await
}

pub(super) async fn public_key(tx: &mut PgConnection, account: AccountId, id: SshKeyId) -> Result<Option<String>> {
    sqlx::query_scalar!("select public_key from ssh_keys where account_id = $1 and id = $2", account.0, id.0)
        .fetch_optional(tx)
        .await
}

/// Deletes a key; false if the account has no such key.
pub(super) async fn delete(tx: &mut PgConnection, account: AccountId, id: SshKeyId) -> Result<bool> {
    let done =
        sqlx::query!("delete from ssh_keys where account_id = $1 and id = $2", account.0, id.0).execute(tx).await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes the keys of deleted accounts.
pub(super) async fn purge(db: &PgPool) -> Result<()> {
    sqlx::query!("delete from ssh_keys k using accounts a where a.id = k.account_id and a.deleted_at is not null")
        .execute(db)
        .await
        .map(drop)
}
