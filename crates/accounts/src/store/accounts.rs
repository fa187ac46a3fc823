//! SQL for accounts.

use kernel::auth::MemberRole;
use kernel::ids::{AccountId, UserId};
use sqlx::{PgConnection, PgExecutor};

use super::Result;
use crate::members::model::{AccountKind, AccountRow};

/// A query for accounts. What comes after the columns names `accounts` a.
macro_rules! accounts {
    ($rest:literal $(, $argument:expr)*) => {
        sqlx::query_as!(
            AccountRow,
            r#"select a.id as "id: AccountId", a.uuid, a.kind as "kind: AccountKind", a.name,
                      a.owner_id as "owner_id: UserId", u.email as owner_email, a.parent_id as "parent_id: AccountId",
                      a.server_limit, a.suspended_at, a.suspend_reason, a.created_at
               from accounts a join users u on u.id = a.owner_id "# + $rest
            $(, $argument)*
        )
    };
}

/// An account, unless it was deleted.
pub(crate) async fn find(db: impl PgExecutor<'_>, id: AccountId) -> Result<Option<AccountRow>> {
    accounts!("where a.id = $1 and a.deleted_at is null", id.0).fetch_optional(db).await
}

/// All accounts, oldest first.
pub(crate) async fn all(db: impl PgExecutor<'_>) -> Result<Vec<AccountRow>> {
    accounts!("where a.deleted_at is null order by a.id").fetch_all(db).await
}

/// Adds a user's own account, of the same name: a customer of this reseller, if one is given.
pub(crate) async fn insert_own(tx: &mut PgConnection, user: UserId, parent: Option<AccountId>) -> Result<()> {
    let account = sqlx::query_scalar!(
        r#"insert into accounts (name, owner_id, parent_id)
           select left(coalesce(nullif(name, ''), email), 200), id, $2 from users where id = $1
           returning id as "id: AccountId""#,
        user.0,
        parent.map(|id| id.0)
    )
    .fetch_one(&mut *tx)
    .await?;
    set_own(tx, user, account).await
}

/// Sets how many servers an account may have.
pub(crate) async fn limit_servers(tx: &mut PgConnection, account: AccountId, limit: u16) -> Result<()> {
    sqlx::query!("update accounts set server_limit = $2 where id = $1", account.0, i32::from(limit))
        .execute(tx)
        .await
        .map(drop)
}

/// Makes this the account that a user acts for unless they name another one.
pub(crate) async fn set_own(tx: &mut PgConnection, user: UserId, account: AccountId) -> Result<()> {
    sqlx::query!("update users set account_id = $2 where id = $1", user.0, account.0).execute(tx).await.map(drop)
}

/// Locks accounts until the transaction ends, after the resellers whose customers they are: everybody takes these locks
/// in this order. Returns what is locked: an account may move to another reseller just then.
pub async fn lock(tx: &mut PgConnection, accounts: &[AccountId]) -> Result<Vec<AccountId>> {
    let ids: Vec<i64> = accounts.iter().map(|id| id.0).collect();
    sqlx::query_scalar!(
        r#"select id as "id: AccountId" from accounts
           where id = any($1) or id in (select parent_id from accounts where id = any($1))
           order by parent_id nulls first, id for no key update"#,
        &ids
    )
    .fetch_all(tx)
    .await
}

/// Why an account is suspended, by itself or with its reseller.
pub async fn suspension(tx: &mut PgConnection, account: AccountId) -> Result<Option<String>> {
    sqlx::query_scalar!("select suspension_of($1)", account.0).fetch_one(tx).await
}

/// What a user is in an account by themselves, if anything.
pub(crate) async fn role(tx: &mut PgConnection, account: AccountId, user: UserId) -> Result<Option<MemberRole>> {
    sqlx::query_scalar!(
        r#"select role as "role!: MemberRole" from account_roles where account_id = $1 and user_id = $2"#,
        account.0,
        user.0
    )
    .fetch_optional(tx)
    .await
}

/// The number of accounts that a user owns.
pub(crate) async fn count_own(tx: &mut PgConnection, user: UserId) -> Result<i64> {
    sqlx::query_scalar!(r#"select count(*) as "n!" from accounts where owner_id = $1 and deleted_at is null"#, user.0)
        .fetch_one(tx)
        .await
}
