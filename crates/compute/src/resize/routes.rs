//! `PUT /api/server/{id}/resize`: section 10 of the server-management API.

use std::sync::Arc;

use axum::extract::State;
use kernel::auth::{AccessRow, Admission};
use kernel::error::Result;
use kernel::http::ErrorBody;
use kernel::http::extract::Json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::ResizeServer;
use super::service;
use super::wire::Resizing;
use crate::ids::ServerId;
use crate::servers::{ServerAccess, Servers};

pub(super) fn routes() -> OpenApiRouter<Arc<Servers>> {
    OpenApiRouter::new().routes(routes!(resize))
}

/// Who may call what.
pub(super) const ACCESS: &[AccessRow] = &[("PUT", "/api/server/{id}/resize", Admission::Owned)];

/// Change a server's size
///
/// To another tariff, or to single values as far as its tariff allows. Containers are changed while they run; a virtual
/// machine is restarted if `allowRestart` permits it. A disk never shrinks.
#[utoipa::path(put, path = "/server/{id}/resize", tag = "servers", operation_id = "resizeServer",
    request_body = ResizeServer, params(("id" = ServerId, Path, description = "The server's id")),
    responses((status = 200, body = Resizing), (status = 409, body = ErrorBody), (status = 507, body = ErrorBody)))]
async fn resize(
    State(servers): State<Arc<Servers>>,
    access: ServerAccess,
    Json(wish): Json<ResizeServer>,
) -> Result<Json<Resizing>> {
    Ok(Json(service::resize(&servers, &access, &wish).await?.into()))
}
