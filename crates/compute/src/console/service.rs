//! Business logic for consoles: who gets a ticket, what a ticket opens, and who may stay connected.

use std::net::IpAddr;
use std::time::Duration;

use accounts;
use hypervisor::{Console, GuestPower, Presence};
use kernel::auth::{Access, Caller, ClientAddress};
use kernel::core::Core;
use kernel::db;
use kernel::error::{Code, Error, Result};
use kernel::idempotency::{Once, OnceCheck};
use kernel::secrets;
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::Consoles;
use super::model::{CloseReason, ConsoleLink, NewTicket};
use super::store::{self, ConsoleConnection, RedeemedTicket};
use crate::ids::ServerId;
use crate::locks::CONSOLES;
use crate::servers;
use crate::servers::actions::{self, ServerAction};
use crate::servers::model::{ServerRecord, ServerState};

/// How long a connection counts as alive without a heartbeat: its process may have died.
pub(super) const ALIVE: Duration = Duration::from_secs(90);
/// The maximum number of an account's unused tickets.
const TICKETS: i64 = 50;
/// How long a host may take to open a console.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connected console on our side; the host has not been asked to open it yet.
#[derive(Debug)]
pub(super) struct ConsoleSession {
    pub held: ConsoleConnection,
    pub caller: Caller,
    pub server: ServerRecord,
    /// Time since the first connection.
    pub age: Duration,
    /// For reconnecting.
    pub ticket: SecretString,
}

/// Issues a ticket for the console of the server with this guest number.
pub async fn order(
    consoles: &Consoles,
    once: &Once,
    caller: &Caller,
    address: IpAddr,
    number: i64,
) -> Result<ConsoleLink> {
    let core = &consoles.core;
    let server = servers::service::accessible_by_number(core, caller, number, Access::Write).await?;
    ServerAction::Update.check(caller, &server)?;
    // Idempotency keys belong to the account: a token with fewer rights must not get the response to another one.
    let open = async {
        ServerAction::OpenConsole.check(caller, &server)?;
        match consoles.hosts.driver(server.host_id).await?.capabilities().console {
            true => Ok(()),
            false => Err(Error::new(Code::Invalid, "This server's host can't open consoles.")),
        }
    };
    if let OnceCheck::Done(answer) = once.check(core, open).await? {
        return Ok(answer);
    }
    let (ticket, hash) = secrets::new_token("ink_c_");
    let life = seconds(consoles.settings.console_ticket_seconds);
    let (id, user, account) = (Uuid::now_v7(), caller.user, caller.account);
    let (token, session) = (caller.token, caller.session);
    let way = NewTicket { id, server: server.id, user, account, token, session, address };
    once.run(core, async |tx| {
        accounts::store::lock_user(tx, user).await?;
        if !store::insert(tx, &way, &hash, life, TICKETS).await? {
            let words = "Too many consoles were requested but not opened; try again in half a minute.";
            return Err(Error { retry_after: Some(life), ..Error::new(Code::RateLimited, words) });
        }
        // Behind the #, so that neither a server's log nor another page gets to see it in a Referer.
        let base = consoles.accounts.settings.public_url.trim_end_matches('/');
        let url = format!("{base}/console/#{}", ticket.expose_secret());
        Ok(ConsoleLink { url })
    })
    .await
}

/// Uses up a ticket and authorises its owner, with a new ticket to reconnect with.
pub(super) async fn redeem(
    consoles: &Consoles,
    ticket: &SecretString,
    address: IpAddr,
) -> Result<ConsoleSession, CloseReason> {
    let core = &consoles.core;
    let client = ClientAddress(address);
    core.limits.guess(core, client).await.map_err(|e| CloseReason::TOO_MANY.with_text(&e.message))?;
    let hash = secrets::hash_token(ticket.expose_secret());
    // Before taking the global lock, so that clients without a valid ticket keep no one waiting.
    let good = store::is_good(&core.db, &hash, address).await;
    if !matches!(good, Ok(false)) {
        core.limits.uncount_lookup(client).await;
    }
    if !good.map_err(|e| internal_error(&e.into()))? {
        return Err(CloseReason::TICKET);
    }
    let used = connect(consoles, &hash, address).await.map_err(|e| internal_error(&e))?;
    let (used, (of_user, of_server)) = used.ok_or(CloseReason::TICKET)?;
    let held = used.held();
    let entered = async {
        let settings = &consoles.settings;
        if of_user > settings.console_limit_account.into() || of_server > settings.console_limit_server.into() {
            return Err(CloseReason::TOO_MANY);
        }
        let (caller, server) = check_access(consoles, &used.caller(), used.server).await?;
        let (ticket, hash) = secrets::new_token("ink_c_");
        store::offer(&core.db, held, &hash, seconds(settings.console_reconnect_seconds))
            .await
            .map_err(|e| internal_error(&e.into()))?;
        let age = Duration::try_from_secs_f64(used.age).unwrap_or_default();
        Ok(ConsoleSession { held, caller, server, age, ticket })
    };
    let entered = entered.await;
    if let Err(end) = &entered {
        disconnect(consoles, held, end).await;
    }
    entered
}

/// Uses up a ticket and returns how many connections the account and the server have, including this one.
async fn connect(
    consoles: &Consoles,
    hash: &[u8; 32],
    address: IpAddr,
) -> Result<Option<(RedeemedTicket, (i64, i64))>> {
    let core = &consoles.core;
    let mut tx = db::begin(&core.db).await?;
    // Serialised, so that each one counts those before it.
    CONSOLES.hold(&mut tx).await?;
    let Some(used) = store::redeem_ticket(&mut tx, hash, address, ALIVE).await? else { return Ok(None) };
    let counts = store::count(&mut tx, used.account, used.server).await?;
    tx.commit().await?;
    Ok(Some((used, counts)))
}

/// Whether a user may (still) use a server's console, and their current rights.
pub(super) async fn check_access(
    consoles: &Consoles,
    caller: &Caller,
    server: ServerId,
) -> Result<(Caller, ServerRecord), CloseReason> {
    let core = &consoles.core;
    let live = accounts::service::live(&consoles.accounts, std::slice::from_ref(caller))
        .await
        .map_err(|e| internal_error(&e))?;
    let caller = live.into_iter().next().ok_or(CloseReason::SIGNED_OUT)?;
    let server =
        servers::service::accessible(core, &caller, server, Access::Write).await.map_err(|e| match e.code {
            Code::NotFound => CloseReason::GONE,
            Code::Forbidden => CloseReason::FORBIDDEN,
            // Its account is suspended.
            Code::Conflict => CloseReason::FORBIDDEN.with_text(&e.message),
            _ => internal_error(&e),
        })?;
    if let Err(error) = ServerAction::Update.check(&caller, &server) {
        return Err(CloseReason::FORBIDDEN.with_text(&error.message));
    }
    match server.status {
        ServerState::Deleting | ServerState::Deleted => Err(CloseReason::GONE),
        _ => Ok((caller, server)),
    }
}

/// Asks the host to open the console.
pub(super) async fn open(consoles: &Consoles, server: &ServerRecord) -> Result<Console, CloseReason> {
    if let Err(refused) = actions::require_console(server.into()) {
        return Err(CloseReason::STOPPED.with_text(&refused.message));
    }
    let driver = consoles.hosts.driver(server.host_id).await.map_err(|e| internal_error(&e))?;
    match tokio::time::timeout(PATIENCE, driver.console(&server.guest())).await {
        Ok(Ok(console)) => Ok(console),
        Ok(Err(hypervisor::Error::Conflict(_))) => Err(CloseReason::STOPPED.with_text("The server is not running.")),
        Ok(Err(error)) => {
            tracing::warn!(server = server.id.0, %error, "the host did not open a console");
            Err(CloseReason::HOST.with_text(&Error::from(error).message))
        }
        Err(_) => Err(CloseReason::HOST.with_text("This server's host does not respond.")),
    }
}

/// Why the host has closed the console, as far as we can tell.
pub(super) async fn close_reason(consoles: &Consoles, visit: &ConsoleSession) -> CloseReason {
    let core = &consoles.core;
    if matches!(store::has_other_connection(&core.db, visit.held, visit.server.id).await, Ok(true)) {
        return CloseReason::TAKEN;
    }
    let Ok(driver) = consoles.hosts.driver(visit.server.host_id).await else { return CloseReason::OVER };
    let guest = visit.server.guest();
    match tokio::time::timeout(PATIENCE, driver.find(&guest)).await {
        Ok(Ok(Presence::Present { power: GuestPower::Stopped, .. })) => CloseReason::STOPPED,
        Ok(Ok(Presence::Absent)) => CloseReason::GONE,
        _ => CloseReason::OVER,
    }
}

/// Records a connection's heartbeat; false if a later one has taken over.
pub(super) async fn beat(consoles: &Consoles, held: ConsoleConnection) -> Result<bool> {
    let core = &consoles.core;
    Ok(store::beat(&core.db, held, ALIVE, seconds(consoles.settings.console_reconnect_seconds)).await?)
}

/// Ends a connection, for good or to be reconnected later. If this fails, the connection simply times out.
pub(super) async fn disconnect(consoles: &Consoles, held: ConsoleConnection, end: &CloseReason) {
    let core = &consoles.core;
    let left = match end.again {
        true => store::mark_disconnected(&core.db, held, seconds(consoles.settings.console_reconnect_seconds)).await,
        false => store::remove(&core.db, held).await,
    };
    if let Err(error) = left {
        tracing::warn!(%error, "could not record the end of a console");
    }
}

/// Deletes consoles that have ended.
pub async fn purge(core: &Core) -> Result<()> {
    Ok(store::purge(&core.db).await?)
}

/// Converts an error that is not a refusal into an end.
fn internal_error(error: &Error) -> CloseReason {
    if error.code.status() >= 500 {
        tracing::warn!(%error, "a console failed");
    }
    CloseReason::FAILED.with_text(&error.message)
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}
