//! `GET /api/server/{id}/metrics` and `/traffic`.

use std::sync::Arc;

use axum::extract::State;
use compute::servers::ServerAccess;
use kernel::auth::{AccessRow, Admission};
use kernel::core::Core;
use kernel::error::Result;
use kernel::http::extract::{Json, Query};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{Metrics, ServerTraffic, ShowMetrics};
use super::service;
use crate::ids::ServerId;

pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new().routes(routes!(metrics)).routes(routes!(traffic))
}

/// Who may call what.
pub(super) const ACCESS: &[AccessRow] =
    &[("GET", "/api/server/{id}/metrics", Admission::Owned), ("GET", "/api/server/{id}/traffic", Admission::Owned)];

/// Get a server's metrics over time
///
/// Individual samples are kept for 48 hours, 5-minute steps for 30 days, and hourly steps for two years.
#[utoipa::path(get, path = "/server/{id}/metrics", tag = "servers", operation_id = "getServerMetrics",
    params(("id" = ServerId, Path, description = "The server's id"), ShowMetrics),
    responses((status = 200, body = Metrics)))]
async fn metrics(
    State(core): State<Arc<Core>>,
    access: ServerAccess,
    Query(query): Query<ShowMetrics>,
) -> Result<Json<Metrics>> {
    Ok(Json(service::metrics(&core, access.thing.id, &query).await?))
}

/// Get a server's traffic by month
///
/// Metered with every sweep of its host. Traffic between the last sweep and a restart of the guest is not counted,
/// since the restart resets its counters.
#[utoipa::path(get, path = "/server/{id}/traffic", tag = "servers", operation_id = "getServerTraffic",
    params(("id" = ServerId, Path, description = "The server's id")), responses((status = 200, body = ServerTraffic)))]
async fn traffic(State(core): State<Arc<Core>>, access: ServerAccess) -> Result<Json<ServerTraffic>> {
    Ok(Json(service::traffic(&core, access.thing.id).await?))
}
