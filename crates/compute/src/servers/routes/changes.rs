//! Routes that rename, label, protect, reinstall and suspend a server, and set its reverse DNS names.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::State;
use kernel::error::Result;
use kernel::http::ErrorBody;
use kernel::http::auth::ProviderCaller;
use kernel::http::extract::{Json, Path};
use kernel::idempotency::{Once, Post};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::addresses::model::{NameAddress, NamedAddress};
use crate::ids::ServerId;
use crate::servers::changes as service;
use crate::servers::model::{ReinstallServer, ServerView, SuspendServer, UpdateServer};
use crate::servers::wire::{Reinstalling, Suspension};
use crate::servers::{ServerAccess, Servers, suspension};

pub(super) fn routes() -> OpenApiRouter<Arc<Servers>> {
    OpenApiRouter::new()
        .routes(routes!(update))
        .routes(routes!(reinstall))
        .routes(routes!(suspend))
        .routes(routes!(unsuspend))
        .routes(routes!(addresses))
        .routes(routes!(name_address))
}

/// Rename, label or protect a server
#[utoipa::path(patch, path = "/server/{id}", tag = "servers", operation_id = "updateServer",
    request_body = UpdateServer, params(("id" = ServerId, Path, description = "The server's id")),
    responses((status = 200, body = ServerView)))]
async fn update(
    State(servers): State<Arc<Servers>>,
    access: ServerAccess,
    Json(update): Json<UpdateServer>,
) -> Result<Json<ServerView>> {
    Ok(Json(service::update(&servers, &access, update).await?))
}

/// Reinstall a server from an image
///
/// Everything on its disks and all its snapshots are deleted; its addresses and its size stay. Root's new password is
/// shown only once. Refused with 409 while the server is protected, here or on its host; nothing is deleted before it
/// is certain that the new guest can be created.
#[utoipa::path(post, path = "/server/{id}/reinstall", tag = "servers", operation_id = "reinstallServer",
    request_body = ReinstallServer, params(("id" = ServerId, Path, description = "The server's id")),
    responses((status = 200, body = Reinstalling)))]
async fn reinstall(
    State(servers): State<Arc<Servers>>,
    access: ServerAccess,
    Post(once, wish): Post<ReinstallServer>,
) -> Result<Json<Reinstalling>> {
    Ok(Json(service::reinstall(&servers.hosts, &once, &access, wish).await?.try_into()?))
}

/// Suspend a server (provider)
///
/// It is stopped, and its owner can view it but not change anything until the suspension ends.
#[utoipa::path(post, path = "/server/{id}/suspend", tag = "servers", operation_id = "suspendServer",
    request_body = SuspendServer, params(("id" = ServerId, Path, description = "The server's id")),
    responses((status = 200, body = Suspension)))]
async fn suspend(
    State(servers): State<Arc<Servers>>,
    _: ProviderCaller,
    access: ServerAccess,
    Post(once, wish): Post<SuspendServer>,
) -> Result<Json<Suspension>> {
    let suspended = suspension::suspend(&servers.hosts.core, &once, &access, &wish.reason).await?;
    Ok(Json(Suspension::new("suspend", &suspended)))
}

/// End a suspension (provider); a server that was running before is started
#[utoipa::path(post, path = "/server/{id}/unsuspend", tag = "servers", operation_id = "unsuspendServer",
    params(("id" = ServerId, Path, description = "The server's id")), responses((status = 200, body = Suspension)))]
async fn unsuspend(
    State(servers): State<Arc<Servers>>,
    _: ProviderCaller,
    access: ServerAccess,
    once: Once,
) -> Result<Json<Suspension>> {
    Ok(Json(Suspension::new("unsuspend", &suspension::unsuspend(&servers.hosts.core, &once, &access).await?)))
}

/// A server's addresses and their reverse DNS names
#[utoipa::path(get, path = "/server/{id}/addresses", tag = "servers", operation_id = "listServerAddresses",
    params(("id" = ServerId, Path, description = "The server's id")),
    responses((status = 200, body = Vec<NamedAddress>)))]
async fn addresses(State(servers): State<Arc<Servers>>, access: ServerAccess) -> Result<Json<Vec<NamedAddress>>> {
    Ok(Json(service::addresses(&servers.hosts.core, &access).await?))
}

/// Set the reverse DNS name of one of a server's addresses
///
/// It is stored here for the DNS server that serves the reverse zone; the server itself is not changed. Accounts may
/// use names in the domains that the provider allows them; providers may use any.
#[utoipa::path(put, path = "/server/{id}/addresses/{address}", tag = "servers", operation_id = "setReverseName",
    request_body = NameAddress,
    params(("id" = ServerId, Path, description = "The server's id"),
        ("address" = String, Path, description = "The address")),
    responses((status = 200, body = Vec<NamedAddress>), (status = 409, body = ErrorBody)))]
async fn name_address(
    State(servers): State<Arc<Servers>>,
    access: ServerAccess,
    Path((_id, address)): Path<(ServerId, IpAddr)>,
    Json(wish): Json<NameAddress>,
) -> Result<Json<Vec<NamedAddress>>> {
    Ok(Json(service::name_address(&servers.hosts, &access, address, wish.reverse_dns.as_deref()).await?))
}
