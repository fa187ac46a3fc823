//! `GET /api/server/{id}/metrics` and `/traffic`.

use std::sync::Arc;

use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{Metrics, ShowMetrics, Traffic};
use super::service;
use crate::core::Core;
use crate::error::Result;
use crate::http::ErrorBody;
use crate::http::extract::{Json, Query};
use crate::ids::ServerId;
use crate::servers::ServerAccess;

pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new().routes(routes!(metrics)).routes(routes!(traffic))
}

/// A server's figures over time
///
/// The last 48 hours are kept look by look, 30 days in steps of 5 minutes, two years in steps of an hour.
#[utoipa::path(get, path = "/server/{id}/metrics", tag = "servers", operation_id = "getServerMetrics", params(("id" = ServerId, Path, description = "The server's id"), ShowMetrics),
    responses((status = 200, body = Metrics), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
async fn metrics(
    State(core): State<Arc<Core>>,
    access: ServerAccess,
    Query(query): Query<ShowMetrics>,
) -> Result<Json<Metrics>> {
    Ok(Json(service::metrics(&core, access.server.id, &query).await?))
}

/// A server's traffic by month
///
/// Counted with every look at the host. What passed between the last look and a restart of the guest is lost with its
/// counters.
#[utoipa::path(get, path = "/server/{id}/traffic", tag = "servers", operation_id = "getServerTraffic", params(("id" = ServerId, Path, description = "The server's id")),
    responses((status = 200, body = Traffic), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
async fn traffic(State(core): State<Arc<Core>>, access: ServerAccess) -> Result<Json<Traffic>> {
    Ok(Json(service::traffic(&core, access.server.id).await?))
}
