//! `/api/hosts/{id}/unknown-guests`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use kernel::auth::{AccessRow, Admission};
use kernel::error::{Error, Result};
use kernel::http::ErrorBody;
use kernel::http::auth::ProviderCaller;
use kernel::http::extract::{Json, Path};
use kernel::idempotency::Post;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{AdoptGuest, UnknownGuest};
use super::service;
use crate::ids::HostId;
use crate::servers::model::ServerView;
use crate::servers::{self, Servers};

pub(super) fn routes() -> OpenApiRouter<Arc<Servers>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(adopt))
}

/// Who may call what.
pub(super) const ACCESS: &[AccessRow] = &[
    ("GET", "/api/hosts/{id}/unknown-guests", Admission::Provider),
    ("POST", "/api/hosts/{id}/unknown-guests/{number}/adopt", Admission::Provider),
];

/// Guests on a host that carry our marker but belong to no server
///
/// A restored database leaves them behind, and so does a guest that was restored manually. As long as such a guest
/// exists, its addresses and its number are not assigned to anything else.
#[utoipa::path(get, path = "/hosts/{id}/unknown-guests", tag = "hosts", operation_id = "listUnknownGuests",
    params(("id" = HostId, Path, description = "The host's id")),
    responses((status = 200, body = Vec<UnknownGuest>), (status = 403, body = ErrorBody)))]
async fn list(
    State(servers): State<Arc<Servers>>,
    _: ProviderCaller,
    Path(id): Path<HostId>,
) -> Result<Json<Vec<UnknownGuest>>> {
    Ok(Json(service::of_host(&servers.hosts.core, id).await?))
}

/// Turn such a guest into a server
///
/// The guest is unchanged: it keeps its marker, its number and its addresses.
#[utoipa::path(post, path = "/hosts/{id}/unknown-guests/{number}/adopt", tag = "hosts", operation_id = "adoptGuest",
    request_body = AdoptGuest,
    params(("id" = HostId, Path, description = "The host's id"),
        ("number" = i64, Path, description = "The guest's number")),
    responses((status = 201, body = ServerView)))]
async fn adopt(
    State(servers): State<Arc<Servers>>,
    ProviderCaller(caller): ProviderCaller,
    Path((id, number)): Path<(HostId, i64)>,
    Post(once, wish): Post<AdoptGuest>,
) -> Result<(StatusCode, Json<ServerView>)> {
    let core = &servers.hosts.core;
    let server = service::adopt(core, &once, id, number, wish).await?;
    let view = async { servers::service::view(&servers, &caller, &mut *core.db.acquire().await?, server).await };
    Ok((StatusCode::CREATED, Json(view.await.map_err(Error::after_commit)?)))
}
