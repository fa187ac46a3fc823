//! Who may do what with a server, and what a server's state allows.

use std::collections::BTreeSet;
use std::time::Duration;

use kernel::auth::{Access, Caller, Owner};
use kernel::core::Core;
use kernel::error::{Error, Result};
use sqlx::PgConnection;

use super::actions::ServerAction;
use super::model::ServerRecord;
use super::{ServerAccess, store, subject};
use crate::hosts::Hosts;
use crate::ids::ServerId;

/// How long a request waits for its host to report that the guest is protected.
const PROTECTION_WAIT: Duration = Duration::from_secs(3);

fn check(caller: &Caller, server: ServerId, owner: Owner, level: Access) -> Result<()> {
    caller.check(subject::KIND, Some(&subject::subject(server)), owner, level)
}

/// Checks callers that have an id but no row. Deleted servers count: their history stays their owner's.
pub async fn authorize(core: &Core, caller: &Caller, server: ServerId, level: Access) -> Result<()> {
    let owner = store::owner(&core.db, server).await?.ok_or_else(|| Error::not_found("server"))?;
    check(caller, server, owner, level)
}

/// Which of their servers each of many callers may not access at this level, and why; all in one query.
pub async fn refused(
    core: &Core,
    asked: &[(Caller, Vec<ServerId>)],
    level: Access,
) -> Result<Vec<Vec<(ServerId, Error)>>> {
    let servers: BTreeSet<ServerId> = asked.iter().flat_map(|(_, servers)| servers).copied().collect();
    if servers.is_empty() {
        return Ok(asked.iter().map(|_| vec![]).collect());
    }
    let owners = store::owners(&core.db, &Vec::from_iter(servers)).await?;
    let refused = |caller: &Caller, server: ServerId| {
        let owner = owners.get(&server).ok_or_else(|| Error::not_found("server"));
        owner.and_then(|owner| check(caller, server, *owner, level)).err().map(|error| (server, error))
    };
    let of = |(caller, servers): &(Caller, Vec<ServerId>)| servers.iter().filter_map(|s| refused(caller, *s)).collect();
    Ok(asked.iter().map(of).collect())
}

/// A server that is not deleted, if the caller may access it at this level.
pub async fn accessible(core: &Core, caller: &Caller, id: ServerId, level: Access) -> Result<ServerRecord> {
    Ok(ServerAccess::of(core, caller, store::live(&core.db, id).await?, level).await?.thing)
}

/// The same by guest number.
pub async fn accessible_by_number(core: &Core, caller: &Caller, number: i64, level: Access) -> Result<ServerRecord> {
    Ok(ServerAccess::of(core, caller, store::by_number(&core.db, number).await?, level).await?.thing)
}

/// Locks the server's row and checks it again, since it may have been suspended or deleted after the request was
/// authorised.
pub async fn lock(tx: &mut PgConnection, access: &ServerAccess) -> Result<ServerRecord> {
    let server = store::lock(tx, access.thing.id).await?.ok_or_else(|| Error::not_found("server"))?;
    ServerAction::Update.check(&access.caller, &server)?;
    Ok(server)
}

/// Refuses to remove a guest for this if the server's condition does not allow it, or the host protects the guest and
/// says so right away. Any other answer, or none, is left to the operation, which asks again before it touches anything.
pub(super) async fn check_removal(hosts: &Hosts, access: &ServerAccess, action: ServerAction) -> Result<()> {
    let server = &access.thing;
    action.check(&access.caller, server)?;
    if !server.reserved {
        return Ok(());
    }
    let asked = async { hosts.driver(server.host_id).await.ok()?.check_delete(&server.guest()).await.err() };
    match tokio::time::timeout(PROTECTION_WAIT, asked).await {
        Ok(Some(error @ hypervisor::Error::Protected(_))) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Leaves the status of a server whose operation was abandoned to the next sweep.
pub async fn let_show(tx: &mut PgConnection, server: ServerId) -> Result<()> {
    Ok(store::let_show(tx, server).await?)
}

pub(super) fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}
