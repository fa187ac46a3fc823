//! SQL for users as staff manage them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use kernel::auth::{MemberRole, StaffRole};
use kernel::db;
use kernel::http::patch::Patch;
use kernel::ids::{AccountId, UserId};
use kernel::listing::{COUNTED, Window};
use sqlx::{PgConnection, PgExecutor, PgPool};

use super::model::{ListUsers, UpdateUser, UserAccount, UserSummary};
use crate::members::model::AccountKind;
use crate::model::{AlertMails, Language};
use crate::store::{Result, users};

/// All users, oldest first.
pub(super) async fn all(db: &PgPool) -> Result<Vec<UserSummary>> {
    users!(UserSummary, "select", ", disabled_at from users where deleted_at is null order by id").fetch_all(db).await
}

/// One user, unless they were deleted.
pub(super) async fn find(db: impl PgExecutor<'_>, id: UserId) -> Result<Option<UserSummary>> {
    users!(UserSummary, "select", ", disabled_at from users where id = $1 and deleted_at is null", id.0)
        .fetch_optional(db)
        .await
}

/// A part of the users that the query selects, oldest first, with their total.
pub(super) async fn list(db: &PgPool, query: &ListUsers, window: Window) -> Result<(Vec<UserSummary>, i64)> {
    let mut tx = db::begin_list_query(db).await?;
    // The page first: each user's own account is looked up, and only theirs.
    let rows = users!(
        UserSummary,
        "with page as (
             select id from users
             where deleted_at is null and id > coalesce($4::bigint, 0)
               and ($1::text is null or strpos(lower(email), lower($1)) > 0 or strpos(lower(name), lower($1)) > 0)
             order by id limit $2 offset $3) select",
        ", disabled_at from page join users using (id) order by id",
        query.q,
        window.limit,
        window.offset,
        query.after.map(|id| id.0)
    )
    .fetch_all(&mut *tx)
    .await?;
    let total = sqlx::query_scalar!(
        r#"select count(*) as "n!" from (
               select 1 from users
               where deleted_at is null
                 and ($1::text is null or strpos(lower(email), lower($1)) > 0 or strpos(lower(name), lower($1)) > 0)
               limit $2) counted"#,
        query.q,
        COUNTED
    )
    .fetch_one(&mut *tx)
    .await?;
    Ok((rows, total))
}

/// The accounts that a user has a role in: their own first.
pub(super) async fn accounts_of(db: impl PgExecutor<'_>, user: UserId) -> Result<Vec<UserAccount>> {
    sqlx::query_as!(
        UserAccount,
        r#"select a.id as "id: AccountId", a.kind as "kind: AccountKind", a.name, r.role as "role!: MemberRole"
           from account_roles r join accounts a on a.id = r.account_id
           where r.user_id = $1 order by r.role <> 'owner', a.id"#,
        user.0
    )
    .fetch_all(db)
    .await
}

/// What a user is at the moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct LockedUser {
    pub staff_role: Option<StaffRole>,
    pub is_disabled: bool,
}

impl LockedUser {
    /// Whether they run the installation.
    pub(super) fn is_admin(self) -> bool {
        self.staff_role == Some(StaffRole::Admin) && !self.is_disabled
    }
}

/// Locks a user until the transaction ends; `None` if there is none.
pub(super) async fn lock(tx: &mut PgConnection, user: UserId) -> Result<Option<LockedUser>> {
    sqlx::query_as!(
        LockedUser,
        r#"select staff_role as "staff_role: StaffRole", disabled_at is not null as "is_disabled!" from users
           where id = $1 and deleted_at is null for no key update"#,
        user.0
    )
    .fetch_optional(tx)
    .await
}

/// Whether there is another admin of the installation.
pub(super) async fn is_other_admin(tx: &mut PgConnection, user: UserId) -> Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from users where id <> $1 and staff_role = 'admin' and disabled_at is null)
               as "other!""#,
        user.0
    )
    .fetch_one(tx)
    .await
}

/// Changes a user. What is omitted stays as it is, a role that only a newer version knows included.
pub(super) async fn update(tx: &mut PgConnection, user: UserId, to: &UpdateUser) -> Result<()> {
    sqlx::query!(
        "update users set name = coalesce($2, name), staff_role = case when $3 then staff_role else $4 end,
             disabled_at = case $5::bool when true then coalesce(disabled_at, now()) when false then null
                                         else disabled_at end,
             updated_at = now()
         where id = $1",
        user.0,
        to.name,
        to.staff_role == Patch::Keep,
        to.staff_role.value().map(|role| role.as_str()),
        to.disabled
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Locks the accounts that a user owns, resellers first.
pub(super) async fn lock_own_accounts(tx: &mut PgConnection, user: UserId) -> Result<Vec<AccountId>> {
    sqlx::query_scalar!(
        r#"select id as "id: AccountId" from accounts where owner_id = $1 and deleted_at is null
           order by parent_id nulls first, id for no key update"#,
        user.0
    )
    .fetch_all(tx)
    .await
}

/// Deletes a user: all that is left is their id. What they own is deleted elsewhere.
pub(super) async fn delete(tx: &mut PgConnection, user: UserId) -> Result<()> {
    sqlx::query!("delete from account_members where user_id = $1", user.0).execute(&mut *tx).await?;
    sqlx::query!("delete from address_confirmations where user_id = $1", user.0).execute(&mut *tx).await?;
    sqlx::query!("delete from login_links where user_id = $1 or opened_by = $1", user.0).execute(&mut *tx).await?;
    sqlx::query!(
        "update users set email = 'deleted-' || id || '@invalid', name = '', password_hash = '!', staff_role = null,
             confirmed_at = null, disabled_at = coalesce(disabled_at, now()), deleted_at = now(), updated_at = now()
         where id = $1",
        user.0
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Inserts a link for a user's login, and returns when it expires.
pub(super) async fn insert_link(
    tx: &mut PgConnection,
    hash: &[u8; 32],
    (user, opened_by): (UserId, UserId),
    reason: &str,
    life: Duration,
) -> Result<DateTime<Utc>> {
    sqlx::query_scalar!(
        "insert into login_links (hash, user_id, opened_by, reason, expires_at)
         values ($1, $2, $3, $4, now() + make_interval(secs => $5)) returning expires_at",
        &hash[..],
        user.0,
        opened_by.0,
        reason,
        life.as_secs_f64()
    )
    .fetch_one(tx)
    .await
}

/// Locks the user whose login an unused link opens; false if there is no such link.
pub(super) async fn lock_user_of_link(tx: &mut PgConnection, hash: &[u8; 32]) -> Result<bool> {
    let found = sqlx::query!(
        "select from users where id = (select user_id from login_links where hash = $1 and used_at is null)
         for no key update",
        &hash[..]
    )
    .fetch_optional(tx)
    .await?;
    Ok(found.is_some())
}

/// A link that was just used.
#[derive(Debug)]
pub(super) struct UsedLink {
    pub user: UserId,
    pub opened_by: UserId,
    /// What its opener is now.
    pub opener: Option<StaffRole>,
    pub reason: String,
}

/// Uses a link that is valid, if its opener still is staff who may open one, and its user is neither disabled nor
/// staff.
pub(super) async fn use_link(tx: &mut PgConnection, hash: &[u8; 32]) -> Result<Option<UsedLink>> {
    sqlx::query_as!(
        UsedLink,
        r#"update login_links l set used_at = now()
           from users u, users o
           where l.hash = $1 and l.used_at is null and l.expires_at > clock_timestamp()
             and u.id = l.user_id and u.disabled_at is null and u.staff_role is null
             and o.id = l.opened_by and o.disabled_at is null and o.staff_role in ('admin', 'support')
           returning l.user_id as "user: UserId", l.opened_by as "opened_by: UserId",
                     o.staff_role as "opener: StaffRole", l.reason"#,
        &hash[..]
    )
    .fetch_optional(tx)
    .await
}
