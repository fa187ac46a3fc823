//! The SQL of the sockets.

use sqlx::PgPool;
use uuid::Uuid;

use crate::accounts::Scopes;
use crate::accounts::model::{Caller, Role};
use crate::ids::{ServerId, UserId};

type Result<T> = sqlx::Result<T>;

/// Those of these callers who may still be here, with what they may do now. A login lives as long as its session, also
/// when the access token that was shown is long over; an API token lives by itself.
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

/// The operations that hold these servers.
pub(super) async fn active_operations(db: &PgPool, servers: &[ServerId]) -> Result<Vec<Uuid>> {
    let ids: Vec<i64> = servers.iter().map(|s| s.0).collect();
    sqlx::query_scalar!(
        "select id from operations
         where server_id = any ($1) and state in ('queued', 'running', 'undoing', 'stuck')",
        &ids
    )
    .fetch_all(db)
    .await
}

/// The latest operation of each of these servers.
pub(super) async fn latest_operations(db: &PgPool, servers: &[ServerId]) -> Result<Vec<Uuid>> {
    let ids: Vec<i64> = servers.iter().map(|s| s.0).collect();
    sqlx::query_scalar!(
        "select distinct on (server_id) id from operations where server_id = any ($1)
         order by server_id, created_at desc",
        &ids
    )
    .fetch_all(db)
    .await
}
