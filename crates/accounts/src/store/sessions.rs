//! SQL for sessions and their tokens.

use std::net::IpAddr;
use std::time::Duration;

use kernel::ids::{AccountId, UserId};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::Result;
use crate::model::SessionView;

/// A user's live sessions, newest first: at most `most`. Where staff of the provider sit is not shown.
pub(crate) async fn list(db: &PgPool, user: UserId, current: Uuid, most: i64) -> Result<Vec<SessionView>> {
    sqlx::query_as!(
        SessionView,
        r#"select s.id, s.created_at, s.opened_by is not null as "by_provider!",
                  case when s.opened_by is null then s.address else '' end as "address!",
                  case when s.opened_by is null then s.user_agent else '' end as "user_agent!",
                  s.expires_at, s.id = $2 as "current!",
                  coalesce((select max(t.created_at) from tokens t where t.session_id = s.id), s.created_at)
                      as "last_used_at!"
           from sessions s where s.user_id = $1 and s.revoked_at is null and s.expires_at > now()
           order by s.id = $2 desc, s.created_at desc limit $3"#,
        user.0,
        current,
        most
    )
    .fetch_all(db)
    .await
}

/// Whether a session is valid now.
pub(crate) async fn is_live(db: &mut PgConnection, session: Uuid) -> Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from sessions where id = $1 and revoked_at is null and expires_at > clock_timestamp())
           as "live!""#,
        session
    )
    .fetch_one(db)
    .await
}

/// Ends a session of the user; false if it does not exist.
pub(crate) async fn revoke_own(db: &mut PgConnection, user: UserId, session: Uuid) -> Result<bool> {
    let done = sqlx::query!(
        "update sessions set revoked_at = now()
         where id = $1 and user_id = $2 and revoked_at is null and expires_at > now()",
        session,
        user.0
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Revokes all of the user's API tokens, and returns their number.
pub(crate) async fn revoke_api_tokens(db: &mut PgConnection, user: UserId) -> Result<u64> {
    let done = sqlx::query!(
        "update tokens set revoked_at = now()
         where user_id = $1 and kind = 'api' and revoked_at is null and (expires_at is null or expires_at > now())",
        user.0
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// The addresses of a user's recent logins. Those that staff opened are no sign that the user is there.
pub(crate) async fn session_addresses(db: &PgPool, user: UserId) -> Result<Vec<IpAddr>> {
    let addresses = sqlx::query_scalar!(
        r#"select address as "address!" from sessions where user_id = $1 and opened_by is null
           order by created_at desc limit 100"#,
        user.0
    )
    .fetch_all(db)
    .await?;
    Ok(addresses.iter().filter_map(|address| address.parse().ok()).collect())
}

/// Inserts a session that expires after `days`, by the database's clock, which also checks it.
pub(crate) async fn insert_session(
    db: &mut PgConnection,
    id: Uuid,
    user: UserId,
    by_cookie: bool,
    (address, user_agent): (&str, &str),
    days: i32,
) -> Result<()> {
    sqlx::query!(
        "insert into sessions (id, user_id, by_cookie, address, user_agent, expires_at)
         values ($1, $2, $3, $4, $5, now() + make_interval(days => $6))",
        id,
        user.0,
        by_cookie,
        address,
        user_agent,
        days
    )
    .execute(db)
    .await
    .map(drop)
}

/// Inserts a session that staff opened, which expires after `seconds`.
pub(crate) async fn insert_opened(
    db: &mut PgConnection,
    id: Uuid,
    (user, opened_by): (UserId, UserId),
    read_only: bool,
    (address, user_agent): (&str, &str),
    seconds: u32,
) -> Result<()> {
    sqlx::query!(
        "insert into sessions (id, user_id, opened_by, read_only, address, user_agent, expires_at)
         values ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7))",
        id,
        user.0,
        opened_by.0,
        read_only,
        address,
        user_agent,
        f64::from(seconds)
    )
    .execute(db)
    .await
    .map(drop)
}

/// Inserts a session's token that expires after `seconds`, and with the session at the latest. Returns the seconds for
/// which the session is valid, by the database's clock.
pub(crate) async fn insert_session_token(
    db: &mut PgConnection,
    kind: &str,
    hash: &[u8; 32],
    session: Uuid,
    seconds: Option<u32>,
) -> Result<i64> {
    sqlx::query_scalar!(
        r#"with session as (select id, user_id, expires_at from sessions where id = $4),
                inserted as (insert into tokens (id, kind, hash, user_id, session_id, expires_at)
                             select $1, $2, $3, user_id, id, least(expires_at, now() + make_interval(secs => $5))
                             from session)
           select floor(extract(epoch from expires_at - now()))::bigint as "left!" from session"#,
        Uuid::now_v7(),
        kind,
        &hash[..],
        session,
        seconds.map(f64::from)
    )
    .fetch_one(db)
    .await
}

/// A refresh token's row, locked until the transaction ends: of two concurrent uses, one sees the other's.
#[expect(clippy::struct_excessive_bools, reason = "each is a column of the query")]
pub(crate) struct RefreshRow {
    pub id: Uuid,
    pub user: UserId,
    /// The user's own account.
    pub account: AccountId,
    pub session: Uuid,
    pub used: bool,
    /// It was first used within the grace period.
    pub just_used: bool,
    /// From which address it was used first.
    pub used_from: Option<String>,
    /// A token that was issued for it, or later, has been used.
    pub succeeded: bool,
    pub live: bool,
}

pub(crate) async fn lock_refresh(
    db: &mut PgConnection,
    hash: &[u8; 32],
    by_cookie: bool,
    grace: Duration,
) -> Result<Option<RefreshRow>> {
    // now() is when this transaction began, and the one that has used the token may have begun later.
    sqlx::query_as!(
        RefreshRow,
        r#"select t.id, t.user_id as "user: UserId", s.id as session,
                  (select account_id from acting_for(u.id, null, null, null)) as "account!: AccountId",
                  t.used_at is not null as "used!",
                  coalesce(t.used_at between clock_timestamp() - make_interval(secs => $3) and clock_timestamp(), false)
                      as "just_used!",
                  t.used_from,
                  exists (select from tokens next where next.session_id = s.id and next.kind = 'refresh'
                          and next.created_at > t.created_at and next.used_at is not null) as "succeeded!",
                  (t.revoked_at is null and t.expires_at > now() and s.revoked_at is null and s.expires_at > now()
                   and u.disabled_at is null) as "live!"
           from tokens t join sessions s on s.id = t.session_id join users u on u.id = t.user_id
           where t.hash = $1 and t.kind = 'refresh' and s.by_cookie = $2 and u.deleted_at is null for update of t"#,
        &hash[..],
        by_cookie,
        grace.as_secs_f64()
    )
    .fetch_optional(db)
    .await
}

pub(crate) async fn mark_used(db: &mut PgConnection, token: Uuid, from: &str) -> Result<()> {
    sqlx::query!("update tokens set used_at = now(), used_from = $2 where id = $1", token, from)
        .execute(db)
        .await
        .map(drop)
}

pub(crate) async fn revoke_session(db: &mut PgConnection, session: Uuid) -> Result<()> {
    sqlx::query!("update sessions set revoked_at = now() where id = $1 and revoked_at is null", session)
        .execute(db)
        .await
        .map(drop)
}

pub(crate) async fn revoke_sessions(db: &mut PgConnection, user: UserId) -> Result<()> {
    sqlx::query!("update sessions set revoked_at = now() where user_id = $1 and revoked_at is null", user.0)
        .execute(db)
        .await
        .map(drop)
}

pub(crate) async fn revoke_other_sessions(db: &mut PgConnection, user: UserId, keep: Uuid) -> Result<()> {
    sqlx::query!(
        "update sessions set revoked_at = now() where user_id = $1 and id <> $2 and revoked_at is null",
        user.0,
        keep
    )
    .execute(db)
    .await
    .map(drop)
}
