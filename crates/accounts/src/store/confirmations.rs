//! SQL for confirmations of email addresses.

use std::time::Duration;

use kernel::ids::{AccountId, UserId};
use sqlx::{PgConnection, PgPool};

use super::Result;

/// Inserts a confirmation that was sent to an address.
pub(crate) async fn insert(
    tx: &mut PgConnection,
    hash: &[u8; 32],
    user: UserId,
    email: &str,
    life: Duration,
) -> Result<()> {
    sqlx::query!(
        "insert into address_confirmations (hash, user_id, email, expires_at)
         values ($1, $2, $3, now() + make_interval(secs => $4))",
        &hash[..],
        user.0,
        email,
        life.as_secs_f64()
    )
    .execute(tx)
    .await
    .map(drop)
}

/// The number of confirmations sent to the user within the last hour.
pub(crate) async fn count_recent(tx: &mut PgConnection, user: UserId) -> Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "n!" from address_confirmations
           where user_id = $1 and created_at > now() - interval '1 hour'"#,
        user.0
    )
    .fetch_one(tx)
    .await
}

/// Confirms the address that this code was sent to. Returns the user's own account, or `None` if the code is invalid or
/// has expired. A code can be used until it expires: links get opened twice.
pub(crate) async fn confirm(tx: &mut PgConnection, hash: &[u8; 32]) -> Result<Option<AccountId>> {
    sqlx::query_scalar!(
        r#"update users u set confirmed_at = coalesce(u.confirmed_at, now())
           from address_confirmations c
           where c.hash = $1 and c.expires_at > now() and u.id = c.user_id and lower(u.email) = lower(c.email)
           returning (select account_id from acting_for(u.id, null, null, null)) as "account!: AccountId""#,
        &hash[..]
    )
    .fetch_optional(tx)
    .await
}

/// Deletes expired confirmations.
pub(crate) async fn purge(db: &PgPool) -> Result<()> {
    sqlx::query!("delete from address_confirmations where expires_at < aged_to()").execute(db).await.map(drop)
}
