//! Business logic for snapshots.
//!
//! The host is checked before an operation is enqueued, so that mistakes are reported at once, and checked again by the
//! operation itself, when nothing else can happen to the server.

use hypervisor::Snapshot;
use kernel::core::Core;
use kernel::error::{Code, Error, Result};
use kernel::idempotency::{Once, OnceCheck};
use kernel::operations::WorkflowKind;

use super::model::{NewSnapshot, Rollback};
use super::room;
use super::workflows::{create, delete, rollback};
use crate::hosts::Hosts;
use crate::servers::actions::ServerAction;
use crate::servers::model::{ServerRecord, ServerState};
use crate::servers::service::{self, Accepted, StoredRequest};
use crate::servers::{ServerAccess, Servers};
use crate::tariffs;

/// A server's snapshots.
#[derive(Debug)]
pub struct ServerSnapshots {
    /// Those on its host, oldest first.
    pub on_host: Vec<Snapshot>,
    /// How many it may have at a time.
    pub limit: i32,
}

/// A server's snapshots.
pub async fn list(hosts: &Hosts, server: &ServerRecord) -> Result<ServerSnapshots> {
    let core = &hosts.core;
    let limit = limit(core, server).await?;
    // Without a guest there are none.
    let none = !server.reserved
        || matches!(server.status, ServerState::Creating | ServerState::Reinstalling | ServerState::Failed);
    Ok(ServerSnapshots { on_host: if none { Vec::new() } else { on_host(hosts, server).await? }, limit })
}

async fn limit(core: &Core, server: &ServerRecord) -> Result<i32> {
    let tariff = tariffs::store::tariff(&core.db, server.tariff_id).await?;
    Ok(tariff.map_or(0, |t| t.snapshots))
}

async fn on_host(hosts: &Hosts, server: &ServerRecord) -> Result<Vec<Snapshot>> {
    let driver = hosts.driver(server.host_id).await?;
    if !driver.capabilities().snapshots {
        return Err(no_snapshots());
    }
    driver.snapshots(&server.guest()).await.map_err(|error| match error {
        hypervisor::Error::Unsupported(_) => no_snapshots(),
        // It is being created or deleted, or someone has removed it from the host.
        hypervisor::Error::NotFound(_) => {
            Error::new(Code::Conflict, "The server has no guest on its host right now; check its status.")
        }
        other => other.into(),
    })
}

/// The error for a storage without support for snapshots.
pub(super) fn no_snapshots() -> Error {
    Error::new(Code::Invalid, "This server's storage does not support snapshots.")
}

/// The error for a rollback that the host would refuse: the message of a conflict is meant for the server's owner.
pub(super) fn refused(error: hypervisor::Error) -> Error {
    match error {
        hypervisor::Error::Conflict(words) => Error::new(Code::Conflict, words),
        other => other.into(),
    }
}

/// The error for a snapshot that does not exist.
pub(super) fn missing() -> Error {
    Error::not_found("snapshot")
}

/// Refuses another snapshot named `name` if the name is taken or the limit is reached.
pub(super) fn room_for(name: &str, there: &[Snapshot], limit: i32) -> Result<()> {
    if there.iter().any(|s| s.name == name) {
        return Err(Error::new(Code::AlreadyExists, format!("This server already has a snapshot named {name}.")));
    }
    if i64::try_from(there.len()).unwrap_or(i64::MAX) >= i64::from(limit) {
        let message = format!("This server has {} of at most {limit} snapshots; delete one first.", there.len());
        return Err(Error::new(Code::ResourceUnavailable, message));
    }
    Ok(())
}

/// The results of the check before a snapshot is taken.
struct SnapshotCheck {
    limit: i32,
    there: Vec<Snapshot>,
    /// What a snapshot taken now would hold.
    gib: i64,
}

/// Creates a snapshot.
pub async fn create(servers: &Servers, once: &Once, access: &ServerAccess, new: NewSnapshot) -> Result<Accepted> {
    let hosts = &servers.hosts;
    let core = &hosts.core;
    let seen = match once.check(core, check_create(hosts, access, &new.snapname)).await? {
        OnceCheck::New(seen) => seen,
        OnceCheck::Done(done) => return service::wait_for_task(core, once, done).await,
    };
    let data = create::Data::new(new.snapname.clone(), new.description, seen.limit);
    let stored = take(servers, once, access, &seen, &new.snapname, None, create::KIND, None, data).await?;
    service::wait_for_task(core, once, stored).await
}

/// Reserves space for a snapshot and enqueues the operation that takes it, both or neither. `generated`: the generated
/// name that is part of the response.
#[allow(clippy::too_many_arguments, reason = "a snapshot and its operation")]
async fn take<D: kernel::operations::Data>(
    servers: &Servers,
    once: &Once,
    access: &ServerAccess,
    seen: &SnapshotCheck,
    name: &str,
    generated: Option<&str>,
    kind: WorkflowKind,
    under_way: Option<ServerState>,
    data: D,
) -> Result<StoredRequest> {
    let core = &servers.hosts.core;
    let _turn = servers.placing.turn().await?;
    once.run(core, async |tx| {
        let server = service::lock(tx, access).await?;
        ServerAction::UseGuest.check(&access.caller, &server)?;
        room::take(tx, servers.settings.storage_margin_percent, &server, name, &seen.there, seen.gib).await?;
        let id = service::enqueue(core, tx, &server, access.caller.user, kind, under_way, data).await?;
        Ok(StoredRequest::new(id, generated))
    })
    .await
}

/// Checks whether the server can take a snapshot of this name.
async fn check_create(hosts: &Hosts, access: &ServerAccess, name: &str) -> Result<SnapshotCheck> {
    let (core, server) = (&hosts.core, &access.thing);
    ServerAction::UseGuest.check(&access.caller, server)?;
    let limit = limit(core, server).await?;
    let there = on_host(hosts, server).await?;
    room_for(name, &there, limit)?;
    let driver = hosts.driver(server.host_id).await?;
    let gib = room::size_now(&*driver, &server.guest(), server).await?;
    Ok(SnapshotCheck { limit, there, gib })
}

/// Rolls a server back to a snapshot.
pub async fn rollback(servers: &Servers, once: &Once, access: &ServerAccess, wish: &Rollback) -> Result<Accepted> {
    let hosts = &servers.hosts;
    let core = &hosts.core;
    let safety = wish.safety_snapshot.then(|| format!("before-{}", chrono::Utc::now().format("%Y%m%d-%H%M%S")));
    let seen = match once.check(core, check_rollback(hosts, access, &wish.snapname, safety.as_deref())).await? {
        OnceCheck::New(seen) => seen,
        OnceCheck::Done(done) => return service::wait_for_task(core, once, done).await,
    };
    let data = rollback::Data::new(wish.snapname.clone(), safety.clone(), seen.limit);
    let status = Some(ServerState::Restoring);
    match &safety {
        None => service::submit(core, once, access, rollback::KIND, status, data, None).await,
        Some(safety) => {
            let stored = take(servers, once, access, &seen, safety, Some(safety), rollback::KIND, status, data).await?;
            service::wait_for_task(core, once, stored).await
        }
    }
}

/// Checks whether the server can be rolled back to this snapshot, with a safety snapshot first.
async fn check_rollback(
    hosts: &Hosts,
    access: &ServerAccess,
    name: &str,
    safety: Option<&str>,
) -> Result<SnapshotCheck> {
    let (core, server) = (&hosts.core, &access.thing);
    ServerAction::UseGuest.check(&access.caller, server)?;
    let limit = limit(core, server).await?;
    let there = on_host(hosts, server).await?;
    if !there.iter().any(|s| s.name == name) {
        return Err(missing());
    }
    let driver = hosts.driver(server.host_id).await?;
    driver.check_rollback(&server.guest(), name).await.map_err(refused)?;
    let mut gib = 0;
    if let Some(safety) = safety {
        room_for(safety, &there, limit)?;
        gib = room::size_now(&*driver, &server.guest(), server).await?;
    }
    Ok(SnapshotCheck { limit, there, gib })
}

/// Deletes a snapshot.
pub async fn delete(hosts: &Hosts, access: &ServerAccess, name: &str) -> Result<Accepted> {
    let core = &hosts.core;
    let server = &access.thing;
    ServerAction::UseGuest.check(&access.caller, server)?;
    if !on_host(hosts, server).await?.iter().any(|s| s.name == name) {
        return Err(missing());
    }
    let (once, data) = (Once::default(), delete::Data::new(name.to_owned()));
    service::submit(core, &once, access, delete::KIND, None, data, None).await
}
