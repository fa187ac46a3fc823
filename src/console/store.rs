//! The SQL of consoles.

use std::net::IpAddr;
use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::model::Way;
use crate::auth::Caller;
use crate::ids::{ServerId, UserId};

type Result<T> = sqlx::Result<T>;

/// Notes a ticket; false where the account has `most` of them already that were not used.
pub(super) async fn insert(
    db: &mut PgConnection,
    way: &Way,
    ticket: &[u8; 32],
    life: Duration,
    most: i64,
) -> Result<bool> {
    let done = sqlx::query!(
        "insert into consoles (id, server_id, user_id, token_id, session_id, address, ticket, ticket_until)
         select $1, $2, $3, $4, $5, $6, $7, now() + make_interval(secs => $8)
         where (select count(*) from consoles where user_id = $3 and ticket_until > now()) < $9",
        way.id,
        way.server.0,
        way.user.0,
        way.token,
        way.session,
        way.address.to_string(),
        &ticket[..],
        life.as_secs_f64(),
        most
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether this ticket is good, as it looks before anybody waits for anybody.
pub(super) async fn is_good(db: &PgPool, ticket: &[u8; 32], address: IpAddr) -> Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select 1 from consoles where ticket = $1 and ticket_until > now() and address = $2) as "good!""#,
        &ticket[..],
        address.to_string()
    )
    .fetch_one(db)
    .await
}

/// A ticket that was good, which it is no more.
#[derive(Debug)]
pub(super) struct Used {
    pub id: Uuid,
    pub server: ServerId,
    pub user: UserId,
    pub token: Uuid,
    pub session: Option<Uuid>,
    /// Which connection this is.
    pub connection: i32,
    /// Seconds since the first one.
    pub age: f64,
}

/// Uses a ticket up: of two who show it at one time, one gets nothing.
pub(super) async fn use_up(
    tx: &mut PgConnection,
    ticket: &[u8; 32],
    address: IpAddr,
    alive: Duration,
) -> Result<Option<Used>> {
    sqlx::query_as!(
        Used,
        r#"update consoles set ticket = null, ticket_until = null, connection = connection + 1,
               opened_at = coalesce(opened_at, now()), alive_until = now() + make_interval(secs => $3)
           where ticket = $1 and ticket_until > now() and address = $2
           returning id, server_id as "server: ServerId", user_id as "user: UserId", token_id as token,
               session_id as session, connection, extract(epoch from now() - opened_at)::float8 as "age!""#,
        &ticket[..],
        address.to_string(),
        alive.as_secs_f64()
    )
    .fetch_optional(tx)
    .await
}

/// How many connected consoles the account and the server have.
pub(super) async fn count(tx: &mut PgConnection, user: UserId, server: ServerId) -> Result<(i64, i64)> {
    let row = sqlx::query!(
        r#"select count(*) filter (where user_id = $1) as "of_user!", count(*) filter (where server_id = $2) as "of_server!"
           from consoles where (user_id = $1 or server_id = $2) and alive_until > now()"#,
        user.0,
        server.0
    )
    .fetch_one(tx)
    .await?;
    Ok((row.of_user, row.of_server))
}

/// Gives a connected console its next ticket.
pub(super) async fn offer(db: &PgPool, held: Held, ticket: &[u8; 32], life: Duration) -> Result<()> {
    sqlx::query!(
        "update consoles set ticket = $3, ticket_until = now() + make_interval(secs => $4)
         where id = $1 and connection = $2",
        held.id,
        held.connection,
        &ticket[..],
        life.as_secs_f64()
    )
    .execute(db)
    .await
    .map(drop)
}

/// One connection of a console.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub id: Uuid,
    pub connection: i32,
}

/// A sign of life of a connection, and of its next ticket; false where a later one has it.
pub(super) async fn beat(db: &PgPool, held: Held, alive: Duration, ticket: Duration) -> Result<bool> {
    let done = sqlx::query!(
        "update consoles set alive_until = now() + make_interval(secs => $3),
             ticket_until = case when ticket is not null then now() + make_interval(secs => $4) end
         where id = $1 and connection = $2",
        held.id,
        held.connection,
        alive.as_secs_f64(),
        ticket.as_secs_f64()
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A connection was lost: its ticket is good for a while.
pub(super) async fn let_go(db: &PgPool, held: Held, ticket: Duration) -> Result<()> {
    sqlx::query!(
        "update consoles set alive_until = null,
             ticket_until = case when ticket is not null then now() + make_interval(secs => $3) end
         where id = $1 and connection = $2",
        held.id,
        held.connection,
        ticket.as_secs_f64()
    )
    .execute(db)
    .await
    .map(drop)
}

/// A console has ended for good.
pub(super) async fn remove(db: &PgPool, held: Held) -> Result<()> {
    sqlx::query!("delete from consoles where id = $1 and connection = $2", held.id, held.connection)
        .execute(db)
        .await
        .map(drop)
}

/// Whether somebody else's connection to this server's console is alive.
pub(super) async fn others(db: &PgPool, held: Held, server: ServerId) -> Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select 1 from consoles where server_id = $1 and alive_until > now()
                          and (id <> $2 or connection <> $3)) as "there!""#,
        server.0,
        held.id,
        held.connection
    )
    .fetch_one(db)
    .await
}

/// Forgets what nobody can take up any more.
pub(super) async fn purge(db: &PgPool) -> Result<()> {
    sqlx::query!(
        "delete from consoles where coalesce(ticket_until, '-infinity') < now()
             and coalesce(alive_until, created_at) < now() - interval '1 hour'"
    )
    .execute(db)
    .await
    .map(drop)
}

impl Used {
    /// Who asked for the ticket, for [`crate::accounts::service::live`] to say what they may do now.
    pub(super) fn caller(&self) -> Caller {
        use crate::auth::{Role, Scopes};
        // The least there is, until it was looked up.
        let (role, scopes) = (Role::Customer, Scopes::Only(Vec::new()));
        Caller { user: self.user, role, token: self.token, session: self.session, scopes }
    }

    /// The connection that it opened.
    pub(super) fn held(&self) -> Held {
        Held { id: self.id, connection: self.connection }
    }
}
