//! SQL for consoles.

use std::net::IpAddr;
use std::time::Duration;

use kernel::auth::Caller;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::model::NewTicket;
use crate::ids::{AccountId, ServerId, UserId};

type Result<T> = sqlx::Result<T>;

/// Stores a ticket; false if the account already has `most` unused tickets.
pub(super) async fn insert(
    db: &mut PgConnection,
    way: &NewTicket,
    ticket: &[u8; 32],
    life: Duration,
    most: i64,
) -> Result<bool> {
    let done = sqlx::query!(
        "insert into consoles (id, server_id, user_id, token_id, session_id, address, ticket, ticket_until,
                               account_id)
         select $1, $2, $3, $4, $5, $6, $7, now() + make_interval(secs => $8), $10
         where (select count(*) from consoles where user_id = $3 and ticket_until > now()) < $9",
        way.id,
        way.server.0,
        way.user.0,
        way.token,
        way.session,
        way.address.to_string(),
        &ticket[..],
        life.as_secs_f64(),
        most,
        way.account.0
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether this ticket is valid, checked before taking the lock.
pub(super) async fn is_good(db: &PgPool, ticket: &[u8; 32], address: IpAddr) -> Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (
               select 1 from consoles where ticket = $1 and ticket_until > now() and address = $2) as "good!""#,
        &ticket[..],
        address.to_string()
    )
    .fetch_one(db)
    .await
}

/// A valid ticket that has been used up.
#[derive(Debug)]
pub(super) struct RedeemedTicket {
    pub id: Uuid,
    pub server: ServerId,
    pub user: UserId,
    pub account: AccountId,
    pub token: Uuid,
    pub session: Option<Uuid>,
    /// The number of this connection.
    pub connection: i32,
    /// Seconds since the first connection.
    pub age: f64,
}

/// Uses up a ticket: if two clients present it at the same time, only one of them succeeds. The transaction has waited
/// for its turn, so `now()` may be a while ago.
pub(super) async fn redeem_ticket(
    tx: &mut PgConnection,
    ticket: &[u8; 32],
    address: IpAddr,
    alive: Duration,
) -> Result<Option<RedeemedTicket>> {
    sqlx::query_as!(
        RedeemedTicket,
        r#"update consoles set ticket = null, ticket_until = null, connection = connection + 1,
               opened_at = coalesce(opened_at, clock_timestamp()),
               alive_until = clock_timestamp() + make_interval(secs => $3)
           where ticket = $1 and ticket_until > clock_timestamp() and address = $2
           returning id, server_id as "server: ServerId", user_id as "user: UserId",
               account_id as "account: AccountId", token_id as token, session_id as session, connection,
               extract(epoch from clock_timestamp() - opened_at)::float8 as "age!""#,
        &ticket[..],
        address.to_string(),
        alive.as_secs_f64()
    )
    .fetch_optional(tx)
    .await
}

/// How many connected consoles the account and the server have.
pub(super) async fn count(tx: &mut PgConnection, account: AccountId, server: ServerId) -> Result<(i64, i64)> {
    let row = sqlx::query!(
        r#"select count(*) filter (where account_id = $1) as "of_account!",
                  count(*) filter (where server_id = $2) as "of_server!"
           from consoles where (account_id = $1 or server_id = $2) and alive_until > now()"#,
        account.0,
        server.0
    )
    .fetch_one(tx)
    .await?;
    Ok((row.of_account, row.of_server))
}

/// Stores a connected console's next ticket.
pub(super) async fn offer(db: &PgPool, held: ConsoleConnection, ticket: &[u8; 32], life: Duration) -> Result<()> {
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
pub(super) struct ConsoleConnection {
    pub id: Uuid,
    pub connection: i32,
}

/// Records a heartbeat of a connection, and extends its next ticket; false if a later connection has taken over.
pub(super) async fn beat(db: &PgPool, held: ConsoleConnection, alive: Duration, ticket: Duration) -> Result<bool> {
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

/// Records that a connection was lost: its ticket stays valid for a while.
pub(super) async fn mark_disconnected(db: &PgPool, held: ConsoleConnection, ticket: Duration) -> Result<()> {
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

/// Deletes a console that has ended for good.
pub(super) async fn remove(db: &PgPool, held: ConsoleConnection) -> Result<()> {
    sqlx::query!("delete from consoles where id = $1 and connection = $2", held.id, held.connection)
        .execute(db)
        .await
        .map(drop)
}

/// Whether another connection to this server's console is alive.
pub(super) async fn has_other_connection(db: &PgPool, held: ConsoleConnection, server: ServerId) -> Result<bool> {
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

/// Deletes consoles that no one can reconnect to.
pub(super) async fn purge(db: &PgPool) -> Result<()> {
    sqlx::query!(
        "delete from consoles where coalesce(ticket_until, '-infinity') < now()
             and coalesce(alive_until, created_at) < now() - interval '1 hour'"
    )
    .execute(db)
    .await
    .map(drop)
}

impl RedeemedTicket {
    /// The user and token that requested the ticket, for [`accounts::service::live`] to look up their current
    /// rights.
    pub(super) fn caller(&self) -> Caller {
        use kernel::auth::{MemberRole, Scopes};
        // The lowest access until it has been looked up.
        Caller {
            user: self.user,
            staff: None,
            account: self.account,
            role: MemberRole::Unknown,
            is_reseller: false,
            reseller: None,
            from_above: false,
            token_account: None,
            suspended: None,
            token: self.token,
            session: self.session,
            opened_by: None,
            scopes: Scopes::Only(vec![]),
        }
    }

    pub(super) fn held(&self) -> ConsoleConnection {
        ConsoleConnection { id: self.id, connection: self.connection }
    }
}
