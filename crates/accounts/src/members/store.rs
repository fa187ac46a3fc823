//! SQL for accounts as their members see and change them.

pub(super) mod members;

use kernel::auth::{Caller, MemberRole, StaffRole};
use kernel::db;
use kernel::ids::{AccountId, UserId};
use kernel::listing::{COUNTED, Window};
use sqlx::{PgConnection, PgExecutor, PgPool};

use super::model::{AccountKind, AccountRow, AccountView, ListAccounts};
use crate::store::Result;

/// A user's standing in an account.
#[derive(Debug, Clone)]
pub(super) struct AccountReach {
    /// The role that they act in.
    pub role: MemberRole,
    /// Their role in the reseller whose customer it is.
    pub above: Option<MemberRole>,
    /// Why that reseller is suspended, if it is, as its own members know it.
    pub reseller_suspended: Option<String>,
    /// Why the account is suspended, by itself or with its reseller, as its members know it.
    pub suspended: Option<String>,
}

/// A user's standing in an account; `None` if they may not know of it.
pub(super) async fn reach(db: impl PgExecutor<'_>, who: &Caller, account: AccountId) -> Result<Option<AccountReach>> {
    sqlx::query_as!(
        AccountReach,
        r#"select r.role as "role!: MemberRole",
                  (select d.role from account_roles d
                   where d.account_id = a.parent_id and d.user_id = $1 and ($3::bigint is null or d.account_id = $3))
                      as "above: MemberRole",
                  p.suspend_reason as "reseller_suspended?", r.suspend_reason as "suspended?"
           from accounts a
           cross join lateral acting_for($1, $2, $3, a.id) r
           left join accounts p on p.id = a.parent_id
           where a.id = $4 and a.deleted_at is null"#,
        who.user.0,
        who.staff.map(StaffRole::as_str),
        who.token_account.map(|id| id.0),
        account.0
    )
    .fetch_optional(db)
    .await
}

/// A page of the accounts that a user can act for, oldest first, with their total.
pub(super) async fn list(
    db: &PgPool,
    who: &Caller,
    query: &ListAccounts,
    window: Window,
) -> Result<(Vec<AccountView>, i64)> {
    let mut tx = db::begin_list_query(db).await?;
    let staff = who.staff.filter(|staff| *staff != StaffRole::Unknown);
    macro_rules! accounts {
        ($run:ident, $query:ident, ($($of:tt)*), $before:literal, $after:literal $(, $more:expr)*) => {
            sqlx::$query!(
                $($of)*
                "with mine as materialized (
                     select account_id from account_roles
                     where user_id = $1 and ($3::bigint is null or account_id = $3)) "
                + $before
                + " from accounts a join users u on u.id = a.owner_id
                    where a.deleted_at is null
                      and ($2::text is not null or a.id = any(array(select account_id from mine))
                           or a.parent_id = any(array(select account_id from mine)))
                      and ($4::text is null or strpos(lower(a.name), lower($4)) > 0
                           or strpos(lower(u.email), lower($4)) > 0)
                      and ($5::text is null or a.kind = $5) and ($6::bigint is null or a.parent_id = $6)"
                + $after,
                who.user.0,
                staff.map(StaffRole::as_str),
                who.token_account.map(|id| id.0),
                query.q,
                query.kind.map(AccountKind::as_str),
                query.parent_id.map(|id| id.0)
                $(, $more)*
            )
            .$run(&mut *tx)
            .await?
        };
    }
    // The page first: each account's role is looked up, and only theirs.
    let rows = accounts!(
        fetch_all,
        query_as,
        (AccountView,),
        ", page as (select a.id",
        r#" and a.id > coalesce($9::bigint, 0) order by a.id limit $7 offset $8)
           select a.id as "id: AccountId", a.uuid, a.kind as "kind: AccountKind", a.name,
                  a.owner_id as "owner_id: UserId", u.email as owner_email, a.parent_id as "parent_id: AccountId",
                  a.server_limit, a.suspended_at, a.suspend_reason, a.created_at, r.role as "role!: MemberRole"
           from page join accounts a using (id) join users u on u.id = a.owner_id
           cross join lateral acting_for($1, $2, $3, a.id) r
           order by a.id"#,
        window.limit,
        window.offset,
        query.after.map(|id| id.0)
    );
    let total = accounts!(
        fetch_one,
        query_scalar,
        (),
        r#"select count(*) as "n!" from (select 1"#,
        " limit $7) counted",
        COUNTED
    );
    Ok((rows, total))
}

/// A new account.
#[derive(Debug)]
pub(super) struct InsertedAccount<'a> {
    pub kind: AccountKind,
    pub name: &'a str,
    pub owner: UserId,
    pub parent: Option<AccountId>,
    pub server_limit: Option<i32>,
}

/// Adds an account.
pub(super) async fn insert(tx: &mut PgConnection, new: &InsertedAccount<'_>) -> Result<AccountId> {
    sqlx::query_scalar!(
        r#"insert into accounts (kind, name, owner_id, parent_id, server_limit) values ($1, $2, $3, $4, $5)
           returning id as "id: AccountId""#,
        new.kind.as_str(),
        new.name,
        new.owner.0,
        new.parent.map(|id| id.0),
        new.server_limit
    )
    .fetch_one(tx)
    .await
}

/// Stores what may be changed of an account; `None` leaves its kind as it is, which only a newer version may know.
pub(super) async fn update(tx: &mut PgConnection, account: &AccountRow, kind: Option<AccountKind>) -> Result<()> {
    sqlx::query!(
        "update accounts set name = $2, kind = coalesce($3, kind), parent_id = $4, server_limit = $5, updated_at = now()
         where id = $1",
        account.id.0,
        account.name,
        kind.map(AccountKind::as_str),
        account.parent_id.map(|id| id.0),
        account.server_limit
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Makes a user the owner.
pub(super) async fn set_owner(tx: &mut PgConnection, account: AccountId, owner: UserId) -> Result<()> {
    sqlx::query!("update accounts set owner_id = $2, updated_at = now() where id = $1", account.0, owner.0)
        .execute(tx)
        .await
        .map(drop)
}

/// Marks an account as suspended for this reason, or with `None` as no longer so.
pub(super) async fn suspend(tx: &mut PgConnection, account: AccountId, reason: Option<&str>) -> Result<()> {
    sqlx::query!(
        "update accounts set suspended_at = case when $2::text is not null then now() end, suspend_reason = $2,
             updated_at = now()
         where id = $1",
        account.0,
        reason
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Locks the customers of a reseller by id; returns each with why it is suspended, by itself or with the reseller.
pub(super) async fn lock_customers(tx: &mut PgConnection, of: AccountId) -> Result<Vec<(AccountId, Option<String>)>> {
    let customers = sqlx::query!(
        r#"select id as "id: AccountId", suspension_of(id) as reason from accounts
           where parent_id = $1 and deleted_at is null order by id for no key update"#,
        of.0
    )
    .fetch_all(tx)
    .await?;
    Ok(customers.into_iter().map(|customer| (customer.id, customer.reason)).collect())
}

/// The number of customers of an account, without these.
pub(super) async fn count_customers(tx: &mut PgConnection, of: AccountId, without: &[AccountId]) -> Result<i64> {
    let without: Vec<i64> = without.iter().map(|id| id.0).collect();
    sqlx::query_scalar!(
        r#"select count(*) as "n!" from accounts where parent_id = $1 and deleted_at is null and id <> all($2)"#,
        of.0,
        &without
    )
    .fetch_one(tx)
    .await
}

/// Deletes an account, with its members.
pub(super) async fn delete(tx: &mut PgConnection, account: AccountId) -> Result<()> {
    sqlx::query!("delete from account_members where account_id = $1", account.0).execute(&mut *tx).await?;
    sqlx::query!(
        "update accounts set name = 'deleted', deleted_at = now(), updated_at = now() where id = $1",
        account.0
    )
    .execute(tx)
    .await
    .map(drop)
}
