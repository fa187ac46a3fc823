//! `/api/server/{id}/snapshots`: sections 11 to 14 of the server-management API.

use std::sync::Arc;

use axum::extract::State;
use kernel::auth::{AccessRow, Admission};
use kernel::error::Result;
use kernel::http::ErrorBody;
use kernel::http::extract::Json;
use kernel::idempotency::Post;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{NamedSnapshot, NewSnapshot, Rollback};
use super::service;
use super::wire::{SnapshotAction, SnapshotList};
use crate::ids::ServerId;
use crate::servers::{ServerAccess, Servers};

pub(super) fn routes() -> OpenApiRouter<Arc<Servers>> {
    OpenApiRouter::new().routes(routes!(list, create, delete)).routes(routes!(rollback))
}

/// Who may call what.
pub(super) const ACCESS: &[AccessRow] = &[
    ("GET", "/api/server/{id}/snapshots", Admission::Owned),
    ("POST", "/api/server/{id}/snapshots", Admission::Owned),
    ("DELETE", "/api/server/{id}/snapshots", Admission::Owned),
    ("POST", "/api/server/{id}/snapshots/rollback", Admission::Owned),
];

/// A server's snapshots, as reported by its host now
#[utoipa::path(get, path = "/server/{id}/snapshots", tag = "snapshots", operation_id = "listSnapshots",
    params(("id" = ServerId, Path, description = "The server's id")),
    responses((status = 200, body = SnapshotList), (status = 422, body = ErrorBody), (status = 502, body = ErrorBody)))]
async fn list(State(servers): State<Arc<Servers>>, access: ServerAccess) -> Result<Json<SnapshotList>> {
    Ok(Json(service::list(&servers.hosts, &access.thing).await?.into()))
}

/// Create a snapshot of a server's disks
#[utoipa::path(post, path = "/server/{id}/snapshots", tag = "snapshots", operation_id = "createSnapshot",
    request_body = NewSnapshot, params(("id" = ServerId, Path, description = "The server's id")),
    responses((status = 200, body = SnapshotAction), (status = 502, body = ErrorBody),
        (status = 507, body = ErrorBody)))]
async fn create(
    State(servers): State<Arc<Servers>>,
    access: ServerAccess,
    Post(once, new): Post<NewSnapshot>,
) -> Result<Json<SnapshotAction>> {
    let name = new.snapname.clone();
    Ok(Json(SnapshotAction::new(service::create(&servers, &once, &access, new).await?, name)))
}

/// Roll a server's disks back to a snapshot
///
/// Everything written since is lost, unless `safetySnapshot` requests a snapshot of it first. The server's size stays.
#[utoipa::path(post, path = "/server/{id}/snapshots/rollback", tag = "snapshots", operation_id = "rollBackServer",
    request_body = Rollback, params(("id" = ServerId, Path, description = "The server's id")),
    responses((status = 200, body = SnapshotAction), (status = 502, body = ErrorBody),
        (status = 507, body = ErrorBody)))]
async fn rollback(
    State(servers): State<Arc<Servers>>,
    access: ServerAccess,
    Post(once, wish): Post<Rollback>,
) -> Result<Json<SnapshotAction>> {
    let accepted = service::rollback(&servers, &once, &access, &wish).await?;
    Ok(Json(SnapshotAction::new(accepted, wish.snapname)))
}

/// Delete a snapshot
#[utoipa::path(delete, path = "/server/{id}/snapshots", tag = "snapshots", operation_id = "deleteSnapshot",
    request_body = NamedSnapshot, params(("id" = ServerId, Path, description = "The server's id")),
    responses((status = 200, body = SnapshotAction), (status = 409, body = ErrorBody),
        (status = 502, body = ErrorBody)))]
async fn delete(
    State(servers): State<Arc<Servers>>,
    access: ServerAccess,
    Json(wish): Json<NamedSnapshot>,
) -> Result<Json<SnapshotAction>> {
    let accepted = service::delete(&servers.hosts, &access, &wish.snapname).await?;
    Ok(Json(SnapshotAction::new(accepted, wish.snapname)))
}
