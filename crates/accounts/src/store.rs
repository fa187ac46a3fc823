//! SQL for users; below it for accounts, sessions, tokens and login limits.

pub(super) mod accounts;
pub(super) mod attempts;
pub(super) mod confirmations;
pub(super) mod sessions;
pub(super) mod tokens;

use kernel::auth::StaffRole;
use kernel::ids::{AccountId, UserId};
use sqlx::{PgConnection, PgExecutor, PgPool};

use super::model::{AlertMails, Language, UpdateMe, User};

pub use accounts::{lock as lock_accounts, suspension};

pub(super) type Result<T> = sqlx::Result<T>;

/// A query for users as this type has them, with what comes before and after the columns that all have.
macro_rules! users {
    ($type:ident, $before:literal, $after:literal $(, $argument:expr)*) => {
        sqlx::query_as!(
            $type,
            $before + r#" id as "id: UserId", email, name, staff_role as "staff_role: StaffRole",
                language as "language: Language", time_zone, alert_mails as "alert_mails: AlertMails", server_mails,
                confirmed_at as email_confirmed_at, created_at,
                (select account_id from acting_for(users.id, null, null, null)) as "account_id!: AccountId" "# + $after,
            $($argument),*
        )
    };
}
pub(crate) use users;

/// A user with the fields that only the login check may see.
pub(super) struct Credentials {
    pub user: User,
    pub password_hash: String,
    pub disabled: bool,
}

/// Adds a user, with their address confirmed or not; `None` if the address is taken. They need an account of their own.
pub(super) async fn insert_user(
    tx: &mut PgConnection,
    email: &str,
    name: &str,
    staff_role: Option<StaffRole>,
    password_hash: &str,
    is_confirmed: bool,
) -> Result<Option<UserId>> {
    sqlx::query_scalar!(
        r#"insert into users (email, name, staff_role, password_hash, confirmed_at)
           values ($1, $2, $3, $4, case when $5 then now() end)
           on conflict (lower(email)) do nothing returning id as "id: UserId""#,
        email,
        name,
        staff_role.map(StaffRole::as_str),
        password_hash,
        is_confirmed
    )
    .fetch_optional(tx)
    .await
}

/// Finds a user by id.
pub async fn user(db: impl PgExecutor<'_>, id: UserId) -> Result<Option<User>> {
    users!(User, "select", "from users where id = $1 and deleted_at is null", id.0).fetch_optional(db).await
}

/// Finds a user by email address, ignoring case.
pub async fn user_by_email(db: &PgPool, email: &str) -> Result<Option<User>> {
    users!(User, "select", "from users where lower(email) = lower($1) and deleted_at is null", email)
        .fetch_optional(db)
        .await
}

/// Changes a user's own settings; `None` leaves a setting unchanged.
pub(super) async fn update_user(tx: &mut PgConnection, id: UserId, update: &UpdateMe) -> Result<Option<User>> {
    users!(
        User,
        "update users set name = coalesce($2, name), language = coalesce($3, language),
                time_zone = coalesce($4, time_zone), alert_mails = coalesce($5, alert_mails),
                server_mails = coalesce($6, server_mails), updated_at = now()
         where id = $1 and deleted_at is null returning",
        "",
        id.0,
        update.name,
        update.language.map(Language::as_str),
        update.time_zone,
        update.alert_mails.map(AlertMails::as_str),
        update.server_mails
    )
    .fetch_optional(tx)
    .await
}

/// A user by email address, ignoring case, with what proves that it is them.
pub(super) async fn credentials(db: &PgPool, email: &str) -> Result<Option<Credentials>> {
    let row = sqlx::query!(
        r#"select id as "id: UserId", email, name, staff_role as "staff_role: StaffRole",
                  language as "language: Language", time_zone, alert_mails as "alert_mails: AlertMails", server_mails,
                  confirmed_at as email_confirmed_at, created_at,
                  (select account_id from acting_for(users.id, null, null, null)) as "account_id!: AccountId",
                  password_hash, disabled_at is not null as "disabled!"
           from users where lower(email) = lower($1) and deleted_at is null"#,
        email
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|r| Credentials {
        user: User {
            id: r.id,
            email: r.email,
            name: r.name,
            staff_role: r.staff_role,
            account_id: r.account_id,
            language: r.language,
            time_zone: r.time_zone,
            alert_mails: r.alert_mails,
            server_mails: r.server_mails,
            email_confirmed_at: r.email_confirmed_at,
            created_at: r.created_at,
        },
        password_hash: r.password_hash,
        disabled: r.disabled,
    }))
}

/// Locks a user until the transaction ends, so that checks against their limits run one at a time.
pub async fn lock_user(tx: &mut PgConnection, user: UserId) -> Result<()> {
    lock_users(tx, &[user]).await.map(drop)
}

/// Locks users in the order of their ids, and returns those that are there.
pub(super) async fn lock_users(tx: &mut PgConnection, users: &[UserId]) -> Result<Vec<UserId>> {
    let ids: Vec<i64> = users.iter().map(|id| id.0).collect();
    sqlx::query_scalar!(
        r#"select id as "id: UserId" from users where id = any($1) and deleted_at is null
           order by id for no key update"#,
        &ids
    )
    .fetch_all(tx)
    .await
}

/// Locks a user against changes of their password; whether they still have this hash and are not disabled.
pub(super) async fn lock_credentials(db: &mut PgConnection, user: UserId, hash: &str) -> Result<bool> {
    sqlx::query_scalar!(
        r#"select password_hash = $2 and disabled_at is null as "same!" from users where id = $1 for no key update"#,
        user.0,
        hash
    )
    .fetch_optional(db)
    .await
    .map(|same| same == Some(true))
}

pub(super) async fn set_password(db: &mut PgConnection, user: UserId, hash: &str) -> Result<()> {
    sqlx::query!("update users set password_hash = $2, updated_at = now() where id = $1", user.0, hash)
        .execute(db)
        .await
        .map(drop)
}

/// Deletes rows that expired some time ago.
pub(super) async fn purge(db: &PgPool) -> Result<()> {
    // A used refresh token is kept as long as its session, so that its theft is noticed.
    sqlx::query!(
        "delete from tokens where (kind = 'access' and expires_at < aged_to() - interval '1 day')
             or (kind = 'api' and least(expires_at, revoked_at) < aged_to() - interval '30 days')"
    )
    .execute(db)
    .await?;
    sqlx::query!("delete from sessions where expires_at < aged_to() - interval '1 day'").execute(db).await?;
    sqlx::query!("delete from login_links where expires_at < aged_to() - interval '1 day'").execute(db).await?;
    confirmations::purge(db).await?;
    sqlx::query!("delete from login_attempts where window_start < aged_to() - interval '1 day'").execute(db).await?;
    Ok(())
}
