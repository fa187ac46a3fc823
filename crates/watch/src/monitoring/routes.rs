//! `GET /api/server/{id}/status`: section 4 of the server-management API.

use std::sync::Arc;

use axum::extract::State;
use compute::servers::ServerAccess;
use kernel::auth::{AccessRow, Admission};
use kernel::core::Core;
use kernel::error::Result;
use kernel::http::extract::Json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::service;
use super::wire::ServerStatus;
use crate::ids::ServerId;

pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new().routes(routes!(status))
}

/// Who may call what.
pub(super) const ACCESS: &[AccessRow] = &[("GET", "/api/server/{id}/status", Admission::Owned)];

/// A server's status, and its metrics at the last sweep
#[utoipa::path(get, path = "/server/{id}/status", tag = "servers", operation_id = "getServerStatus",
    params(("id" = ServerId, Path, description = "The server's id")), responses((status = 200, body = ServerStatus)))]
async fn status(State(core): State<Arc<Core>>, access: ServerAccess) -> Result<Json<ServerStatus>> {
    Ok(Json(ServerStatus::new(&access.thing, service::stats(&core, access.thing.id).await?)))
}
