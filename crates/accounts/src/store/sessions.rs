//! SQL for an account's own sessions.

use kernel::ids::UserId;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::Result;
use crate::model::SessionView;

/// The account's live sessions, newest first: at most `most`.
pub(crate) async fn list(db: &PgPool, user: UserId, current: Uuid, most: i64) -> Result<Vec<SessionView>> {
    sqlx::query_as!(
        SessionView,
        r#"select s.id, s.created_at, s.address, s.user_agent, s.expires_at, s.id = $2 as "current!",
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

/// Ends a session of the account; false if it does not exist.
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

/// Revokes all of the account's API tokens, and returns their number.
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
