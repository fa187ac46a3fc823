//! Business logic for sizes: what may be sold, whether there is capacity, and what needs a restart.

use std::collections::BTreeMap;

use kernel::auth::Caller;
use kernel::db;
use kernel::error::{Code, Error, Result};
use kernel::idempotency::Once;
use sqlx::PgConnection;

use super::model::ResizeServer;
use super::{store, workflow};
use crate::ids::TariffId;
use crate::servers::actions::ServerAction;
use crate::servers::model::{ServerRecord, ServerState};
use crate::servers::service::{self, Accepted, StoredRequest};
use crate::servers::size::ServerSize;
use crate::servers::{self, ServerAccess, Servers, placement};
use crate::tariffs;
use crate::tariffs::model::Tariff;

/// Outcome of a request for another size.
#[derive(Debug)]
pub enum Resized {
    /// The server already has that size.
    Unchanged,
    /// The request was accepted.
    Accepted {
        /// The operation that changes the size.
        accepted: Accepted,
        /// Whether the server is restarted for it.
        restart: bool,
    },
}

/// Accepts a change of size: capacity and operation in one transaction.
pub async fn resize(servers: &Servers, access: &ServerAccess, wish: &ResizeServer) -> Result<Resized> {
    let (hosts, margin) = (&servers.hosts, servers.settings.storage_margin_percent);
    let core = &hosts.core;
    let can = hosts.driver(access.thing.host_id).await?.capabilities();
    let turn = servers.placing.turn().await?;
    let mut tx = db::begin(&core.db).await?;
    let server = service::lock(&mut tx, access).await?;
    ServerAction::UseGuest.check(&access.caller, &server)?;
    let from = ServerSize::of(&server);
    let (to, tariff) = wanted(&mut tx, &access.caller, &server, wish).await?;
    if to.disk < from.disk {
        let message = format!("The disk has {} GiB and can't shrink to {}.", from.disk, to.disk);
        return Err(Error::field(if tariff.is_some() { "tariffId" } else { "disk" }, message));
    }
    if to == from && tariff.is_none_or(|t| t == server.tariff_id) {
        return Ok(Resized::Unchanged);
    }
    let live = if server.kind == "vm" { can.vm_live_resize } else { can.live_resize };
    let power = (to.cores, to.memory) != (from.cores, from.memory);
    let restart = power && server.status != ServerState::Stopped && !live;
    if restart && !wish.allow_restart {
        return Err(Error::field(
            "allowRestart",
            "This server must be restarted to change its cores or memory: send true to allow it.",
        ));
    }
    placement::lock(&mut tx).await?;
    if !store::has_room(&mut tx, &server, from, from.max(to), margin).await? {
        return Err(Error::new(
            Code::ResourceUnavailable,
            "This server's node has no capacity for that size at the moment; choose a smaller one.",
        ));
    }
    let data = workflow::Data::new(from, to, tariff, restart);
    let status = restart.then_some(ServerState::Resizing);
    let id = service::enqueue(core, &mut tx, &server, access.caller.user, workflow::KIND, status, data).await?;
    servers::store::set_size(&mut tx, server.id, from.max(to), None).await?;
    tx.commit().await?;
    drop(turn);
    let accepted = service::wait_for_task(core, &Once::default(), StoredRequest::new(id, None)).await?;
    Ok(Resized::Accepted { accepted, restart })
}

/// The requested size and, if a tariff was requested, that tariff.
async fn wanted(
    tx: &mut PgConnection,
    caller: &Caller,
    server: &ServerRecord,
    wish: &ResizeServer,
) -> Result<(ServerSize, Option<TariffId>)> {
    let Some(id) = wish.tariff_id else {
        let own = ServerSize::of(server);
        let to = ServerSize {
            cores: wish.cores.unwrap_or(own.cores),
            memory: wish.memory.unwrap_or(own.memory),
            disk: wish.disk.unwrap_or(own.disk),
            ..own
        };
        return check_resource_limits(tx, caller, server, to).await.map(|()| (to, None));
    };
    if wish.cores.is_some() || wish.memory.is_some() || wish.disk.is_some() {
        return Err(Error::field("tariffId", "Can't be combined with cores, memory or disk: a tariff sets them."));
    }
    let tariff = tariffs::store::tariff(tx, id).await?.filter(|t| t.enabled && t.kind.as_str() == server.kind);
    let tariff = tariff
        .ok_or_else(|| Error::field("tariffId", format!("No such tariff is available for {} servers.", server.kind)))?;
    let Tariff { cores, memory, disk, bandwidth, .. } = tariff;
    Ok((ServerSize { cores, memory, disk, bandwidth }, Some(id)))
}

/// With single values, customers get no more than the tariff's maximum, but keep what they have.
async fn check_resource_limits(
    tx: &mut PgConnection,
    caller: &Caller,
    server: &ServerRecord,
    to: ServerSize,
) -> Result<()> {
    if caller.is_provider() {
        return Ok(());
    }
    let tariff = tariffs::store::tariff(tx, server.tariff_id).await?.ok_or_else(|| Error::not_found("tariff"))?;
    let own = ServerSize::of(server);
    let parts = [
        ("cores", to.cores.into(), tariff.max_cores.unwrap_or(tariff.cores).max(own.cores).into()),
        ("memory", to.memory, tariff.max_memory.unwrap_or(tariff.memory).max(own.memory)),
        ("disk", to.disk, tariff.max_disk.unwrap_or(tariff.disk).max(own.disk)),
    ];
    let over: BTreeMap<String, String> = parts
        .into_iter()
        .filter(|(_, wanted, most): &(_, i64, i64)| wanted > most)
        .map(|(part, _, most)| {
            (part.to_owned(), format!("The tariff allows at most {most}; choose another tariff for more."))
        })
        .collect();
    if over.is_empty() { Ok(()) } else { Err(Error::fields(over)) }
}
