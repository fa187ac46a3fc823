//! SQL for accounts, sessions, tokens and login limits.

pub(super) mod confirmations;
pub(super) mod sessions;

use std::net::IpAddr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use kernel::auth::{Caller, Role, Scopes};
use kernel::ids::UserId;
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::model::{AccountSummary, AlertMails, ApiToken, User};

type Result<T> = sqlx::Result<T>;

/// A user with the fields that only the login check may see.
pub(super) struct Credentials {
    pub user: User,
    pub password_hash: String,
    pub disabled: bool,
}

/// Adds an account, with its address confirmed or not; `None` if the address is taken.
pub(super) async fn insert_user(
    db: &mut PgConnection,
    email: &str,
    name: &str,
    role: Role,
    password_hash: &str,
    is_confirmed: bool,
) -> Result<Option<User>> {
    sqlx::query_as!(
        User,
        r#"insert into users (email, name, role, password_hash, confirmed_at)
           values ($1, $2, $3, $4, case when $5 then now() end)
           on conflict (lower(email)) do nothing
           returning id as "id: UserId", email, name, role as "role: Role", server_limit,
                  alert_mails as "alert_mails: AlertMails", confirmed_at as email_confirmed_at, created_at"#,
        email,
        name,
        role.as_str(),
        password_hash,
        is_confirmed
    )
    .fetch_optional(db)
    .await
}

/// Finds an account by id.
pub async fn user(db: impl PgExecutor<'_>, id: UserId) -> Result<Option<User>> {
    sqlx::query_as!(
        User,
        r#"select id as "id: UserId", email, name, role as "role: Role", server_limit,
                  alert_mails as "alert_mails: AlertMails", confirmed_at as email_confirmed_at, created_at
           from users where id = $1"#,
        id.0
    )
    .fetch_optional(db)
    .await
}

/// Finds an account by email address, ignoring case.
pub async fn user_by_email(db: &PgPool, email: &str) -> Result<Option<User>> {
    sqlx::query_as!(
        User,
        r#"select id as "id: UserId", email, name, role as "role: Role", server_limit,
                  alert_mails as "alert_mails: AlertMails", confirmed_at as email_confirmed_at, created_at
           from users where lower(email) = lower($1)"#,
        email
    )
    .fetch_optional(db)
    .await
}

/// Changes an account's own settings; `None` leaves a setting unchanged.
pub(super) async fn update_user(
    tx: &mut PgConnection,
    id: UserId,
    alert_mails: Option<AlertMails>,
) -> Result<Option<User>> {
    sqlx::query_as!(
        User,
        r#"update users set alert_mails = coalesce($2, alert_mails) where id = $1
           returning id as "id: UserId", email, name, role as "role: Role", server_limit,
                     alert_mails as "alert_mails: AlertMails", confirmed_at as email_confirmed_at, created_at"#,
        id.0,
        alert_mails.map(AlertMails::as_str)
    )
    .fetch_optional(tx)
    .await
}

/// Sets the maximum number of servers of an account; false if it does not exist.
pub(super) async fn set_server_limit(tx: &mut PgConnection, id: UserId, servers: i32) -> Result<bool> {
    let done = sqlx::query!("update users set server_limit = $2 where id = $1", id.0, servers).execute(tx).await?;
    Ok(done.rows_affected() == 1)
}

/// All accounts, oldest first.
pub(super) async fn users(db: &PgPool) -> Result<Vec<AccountSummary>> {
    let rows = sqlx::query!(
        r#"select id as "id: UserId", email, name, role as "role: Role", server_limit,
                  alert_mails as "alert_mails: AlertMails", confirmed_at as email_confirmed_at, created_at, disabled_at
           from users order by id"#
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| AccountSummary {
            user: User {
                id: r.id,
                email: r.email,
                name: r.name,
                role: r.role,
                server_limit: r.server_limit,
                alert_mails: r.alert_mails,
                email_confirmed_at: r.email_confirmed_at,
                created_at: r.created_at,
            },
            disabled_at: r.disabled_at,
        })
        .collect())
}

pub(super) async fn disable_user(db: &mut PgConnection, user: UserId) -> Result<()> {
    sqlx::query!(
        "update users set disabled_at = now(), updated_at = now() where id = $1 and disabled_at is null",
        user.0
    )
    .execute(db)
    .await
    .map(drop)
}

pub(super) async fn credentials(db: &PgPool, email: &str) -> Result<Option<Credentials>> {
    let row = sqlx::query!(
        r#"select id as "id: UserId", email, name, role as "role: Role", server_limit,
                  alert_mails as "alert_mails: AlertMails", confirmed_at as email_confirmed_at, created_at, password_hash,
                  disabled_at is not null as "disabled!"
           from users where lower(email) = lower($1)"#,
        email
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|r| Credentials {
        user: User {
            id: r.id,
            email: r.email,
            name: r.name,
            role: r.role,
            server_limit: r.server_limit,
            alert_mails: r.alert_mails,
            email_confirmed_at: r.email_confirmed_at,
            created_at: r.created_at,
        },
        password_hash: r.password_hash,
        disabled: r.disabled,
    }))
}

/// Locks an account until the transaction ends, so that checks against its limits run one at a time.
pub async fn lock_account(tx: &mut PgConnection, user: UserId) -> Result<()> {
    sqlx::query!("select from users where id = $1 for no key update", user.0).fetch_optional(tx).await.map(drop)
}

/// Locks an account against changes of its password; whether it still has this hash and is not disabled.
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

/// Inserts a session that expires after `days`, by the database's clock, which also checks it.
pub(super) async fn insert_session(
    db: &mut PgConnection,
    id: Uuid,
    user: UserId,
    address: &str,
    user_agent: &str,
    days: i32,
) -> Result<()> {
    sqlx::query!(
        "insert into sessions (id, user_id, address, user_agent, expires_at)
         values ($1, $2, $3, $4, now() + make_interval(days => $5))",
        id,
        user.0,
        address,
        user_agent,
        days
    )
    .execute(db)
    .await
    .map(drop)
}

/// Inserts a session's token that expires after `seconds`, and with the session at the latest.
pub(super) async fn insert_session_token(
    db: &mut PgConnection,
    kind: &str,
    hash: &[u8; 32],
    session: Uuid,
    seconds: Option<u32>,
) -> Result<()> {
    sqlx::query!(
        "insert into tokens (id, kind, hash, user_id, session_id, expires_at)
         select $1, $2, $3, user_id, id, least(expires_at, now() + make_interval(secs => $5))
         from sessions where id = $4",
        Uuid::now_v7(),
        kind,
        &hash[..],
        session,
        seconds.map(f64::from)
    )
    .execute(db)
    .await
    .map(drop)
}

/// A refresh token's row, locked until the transaction ends: of two concurrent uses, one sees the other's.
pub(super) struct RefreshRow {
    pub id: Uuid,
    pub user: UserId,
    pub session: Uuid,
    pub used: bool,
    /// It was used a moment ago, from the same address.
    pub just_here: bool,
    pub live: bool,
}

pub(super) async fn lock_refresh(
    db: &mut PgConnection,
    hash: &[u8; 32],
    from: &str,
    grace: Duration,
) -> Result<Option<RefreshRow>> {
    // now() is when this transaction began, and the one that has used the token may have begun later.
    sqlx::query_as!(
        RefreshRow,
        r#"select t.id, t.user_id as "user: UserId", s.id as session,
                  t.used_at is not null as "used!",
                  coalesce(t.used_from = $2 and t.used_at between clock_timestamp() - make_interval(secs => $3)
                               and clock_timestamp(), false)
                      and not exists (select from tokens next where next.session_id = s.id and next.kind = 'refresh'
                                      and next.created_at > t.created_at and next.used_at is not null) as "just_here!",
                  (t.revoked_at is null and t.expires_at > now() and s.revoked_at is null and s.expires_at > now()
                   and u.disabled_at is null) as "live!"
           from tokens t join sessions s on s.id = t.session_id join users u on u.id = t.user_id
           where t.hash = $1 and t.kind = 'refresh' for update of t"#,
        &hash[..],
        from,
        grace.as_secs_f64()
    )
    .fetch_optional(db)
    .await
}

pub(super) async fn mark_used(db: &mut PgConnection, token: Uuid, from: &str) -> Result<()> {
    sqlx::query!("update tokens set used_at = now(), used_from = $2 where id = $1", token, from)
        .execute(db)
        .await
        .map(drop)
}

pub(super) async fn revoke_session(db: &mut PgConnection, session: Uuid) -> Result<()> {
    sqlx::query!("update sessions set revoked_at = now() where id = $1 and revoked_at is null", session)
        .execute(db)
        .await
        .map(drop)
}

pub(super) async fn revoke_sessions(db: &mut PgConnection, user: UserId) -> Result<()> {
    sqlx::query!("update sessions set revoked_at = now() where user_id = $1 and revoked_at is null", user.0)
        .execute(db)
        .await
        .map(drop)
}

pub(super) async fn revoke_other_sessions(db: &mut PgConnection, user: UserId, keep: Uuid) -> Result<()> {
    sqlx::query!(
        "update sessions set revoked_at = now() where user_id = $1 and id <> $2 and revoked_at is null",
        user.0,
        keep
    )
    .execute(db)
    .await
    .map(drop)
}

/// A live access or API token, with its account.
pub(super) struct TokenRow {
    pub id: Uuid,
    pub user: UserId,
    pub role: Role,
    pub session: Option<Uuid>,
    pub scopes: Vec<String>,
    pub stale_use: bool,
    /// Seconds until it expires, if it does.
    pub seconds_left: Option<f64>,
}

pub(super) async fn live_token(db: &PgPool, hash: &[u8; 32]) -> Result<Option<TokenRow>> {
    sqlx::query_as!(
        TokenRow,
        r#"select t.id, t.user_id as "user: UserId", u.role as "role: Role", t.session_id as session, t.scopes,
                  (t.kind = 'api' and (t.last_used_at is null
                      or t.last_used_at not between now() - interval '1 minute' and now()))
                      as "stale_use!",
                  extract(epoch from least(t.expires_at, s.expires_at) - now())::float8 as seconds_left
           from tokens t join users u on u.id = t.user_id left join sessions s on s.id = t.session_id
           where t.hash = $1 and t.kind in ('access', 'api') and t.revoked_at is null
             and (t.expires_at is null or t.expires_at > now())
             and (s.id is null or (s.revoked_at is null and s.expires_at > now()))
             and u.disabled_at is null"#,
        &hash[..]
    )
    .fetch_optional(db)
    .await
}

/// Those callers that are still authenticated, with their current rights. A login lives as long as its session, even if
/// the access token it was opened with has expired; an API token has a lifetime of its own.
pub(super) async fn live_callers(db: &PgPool, callers: &[Caller]) -> Result<Vec<Caller>> {
    let tokens: Vec<Uuid> = callers.iter().map(|c| c.token).collect();
    let sessions: Vec<Option<Uuid>> = callers.iter().map(|c| c.session).collect();
    let rows = sqlx::query!(
        r#"select distinct g.token as "token!", g.session, u.id as "user: UserId", u.role as "role: Role",
                  coalesce(t.scopes, '{}') as "scopes!"
           from unnest($1::uuid[], $2::uuid[]) as g (token, session)
           left join tokens t on t.id = g.token
           left join sessions s on s.id = g.session
           join users u on u.id = coalesce(s.user_id, t.user_id)
           where u.disabled_at is null and t.revoked_at is null
             and case when g.session is null then t.id is not null and (t.expires_at is null or t.expires_at > now())
                      else s.revoked_at is null and s.expires_at > now() end"#,
        &tokens,
        &sessions as &[Option<Uuid>]
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| Caller {
            user: r.user,
            role: r.role,
            token: r.token,
            session: r.session,
            scopes: if r.session.is_some() { Scopes::All } else { Scopes::from_stored(&r.scopes) },
        })
        .collect())
}

/// Records that an API token was used. Skipped if the row is locked: that transaction records something better.
pub(super) async fn touch_token(db: &PgPool, token: Uuid) -> Result<()> {
    sqlx::query!(
        "update tokens set last_used_at = now()
         where id = (select id from tokens where id = $1 for no key update skip locked)",
        token
    )
    .execute(db)
    .await
    .map(drop)
}

pub(super) async fn insert_api_token(
    db: impl PgExecutor<'_>,
    user: UserId,
    hash: &[u8; 32],
    name: &str,
    scopes: &[String],
    expires_at: Option<DateTime<Utc>>,
) -> Result<ApiToken> {
    sqlx::query_as!(
        ApiToken,
        r#"insert into tokens (id, kind, hash, user_id, name, scopes, expires_at) values ($1, 'api', $2, $3, $4, $5, $6)
           returning id, name as "name!", scopes, created_at, expires_at, last_used_at"#,
        Uuid::now_v7(),
        &hash[..],
        user.0,
        name,
        scopes,
        expires_at
    )
    .fetch_one(db)
    .await
}

pub(super) async fn api_tokens(db: impl PgExecutor<'_>, user: UserId) -> Result<Vec<ApiToken>> {
    sqlx::query_as!(
        ApiToken,
        r#"select id, name as "name!", scopes, created_at, expires_at, last_used_at from tokens
           where user_id = $1 and kind = 'api' and revoked_at is null and (expires_at is null or expires_at > now())
           order by id"#,
        user.0
    )
    .fetch_all(db)
    .await
}

/// Revokes an account's own API token; false if it does not exist.
pub(super) async fn revoke_api_token(tx: &mut PgConnection, user: UserId, token: Uuid) -> Result<bool> {
    let done = sqlx::query!(
        "update tokens set revoked_at = now() where id = $1 and user_id = $2 and kind = 'api' and revoked_at is null",
        token,
        user.0
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// What is counted, and for whom. The database's `lower` finds accounts, so the database's `lower` makes their keys.
pub(super) type AttemptKey<'a> = (&'static str, &'a str);

/// The addresses of an account's recent logins.
pub(super) async fn session_addresses(db: &PgPool, user: UserId) -> Result<Vec<IpAddr>> {
    let addresses = sqlx::query_scalar!(
        r#"select address as "address!" from sessions where user_id = $1 order by created_at desc limit 100"#,
        user.0
    )
    .fetch_all(db)
    .await?;
    Ok(addresses.iter().filter_map(|address| address.parse().ok()).collect())
}

/// Counts one attempt of `who` (an `account:`, an `address:` and the like) in the current window of 15 minutes. Returns
/// the count, and for how many more seconds the window lasts. One statement, so that parallel attempts count each
/// other.
pub(super) async fn count_attempt(db: &PgPool, (what, who): AttemptKey<'_>) -> Result<(i32, i64)> {
    // now() is when this statement began; the one that it waited for may have begun later, and started the window.
    let row = sqlx::query!(
        r#"insert into login_attempts as l (key, window_start, attempts) values ($1 || lower($2), now(), 1)
           on conflict (key) do update set
               attempts = case when l.window_start not between now() - interval '15 minutes' and clock_timestamp()
                               then 1 else l.attempts + 1 end,
               window_start = case when l.window_start not between now() - interval '15 minutes' and clock_timestamp()
                                   then now() else l.window_start end
           returning attempts,
               ceil(extract(epoch from window_start + interval '15 minutes' - now()))::bigint as "seconds!""#,
        what,
        who
    )
    .fetch_one(db)
    .await?;
    Ok((row.attempts, row.seconds))
}

/// Takes back one attempt after a success.
pub(super) async fn uncount_attempt(db: &PgPool, (what, who): AttemptKey<'_>) -> Result<()> {
    sqlx::query!(
        "update login_attempts set attempts = greatest(attempts - 1, 0) where key = $1 || lower($2)",
        what,
        who
    )
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
    confirmations::purge(db).await?;
    sqlx::query!("delete from login_attempts where window_start < aged_to() - interval '1 day'").execute(db).await?;
    Ok(())
}
