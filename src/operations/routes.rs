//! `/api/operations`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Operations;
use super::model::OperationView;
use super::service::{self, LogLine};
use crate::error::Result;
use crate::http::ErrorBody;
use crate::http::auth::{Anyone, Provider};
use crate::http::extract::{Json, Path, Query};
use crate::http::page::{PageQuery, TOTAL};
use crate::idempotency::Once;

pub(super) fn routes() -> OpenApiRouter<Arc<Operations>> {
    OpenApiRouter::new()
        .routes(routes!(stuck))
        .routes(routes!(get))
        .routes(routes!(log))
        .routes(routes!(retry))
        .routes(routes!(abandon))
}

/// Operations that wait for a person, oldest first (provider)
///
/// In pages; the header `X-Total-Count` tells how many there are in all.
#[utoipa::path(get, path = "/operations", tag = "operations", operation_id = "listStuckOperations", params(PageQuery),
    responses((status = 200, body = Vec<OperationView>), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 422, body = ErrorBody)))]
async fn stuck(
    State(operations): State<Arc<Operations>>,
    _: Provider,
    Query(query): Query<PageQuery>,
) -> Result<(HeaderMap, Json<Vec<OperationView>>)> {
    let (operations, total) = service::stuck(&operations.core, query).await?;
    Ok((HeaderMap::from_iter([(TOTAL, total.into())]), Json(operations)))
}

/// How an operation stands
#[utoipa::path(get, path = "/operations/{id}", tag = "operations", operation_id = "getOperation", params(("id" = Uuid, Path, description = "The operation's id")),
    responses((status = 200, body = OperationView), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
async fn get(
    State(operations): State<Arc<Operations>>,
    Anyone(caller): Anyone,
    Path(id): Path<Uuid>,
) -> Result<Json<OperationView>> {
    Ok(Json(service::get(&operations, &caller, id).await?))
}

/// An operation's log, its last thousand lines (provider)
#[utoipa::path(get, path = "/operations/{id}/log", tag = "operations", operation_id = "getOperationLog", params(("id" = Uuid, Path, description = "The operation's id")),
    responses((status = 200, body = Vec<LogLine>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn log(
    State(operations): State<Arc<Operations>>,
    _: Provider,
    Path(id): Path<Uuid>,
) -> Result<Json<Vec<LogLine>>> {
    Ok(Json(service::log(&operations.core, id).await?))
}

/// Take a stuck operation up again (provider)
#[utoipa::path(post, path = "/operations/{id}/retry", tag = "operations", operation_id = "retryOperation", params(("id" = Uuid, Path, description = "The operation's id")),
    responses((status = 200, body = OperationView), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn retry(
    State(operations): State<Arc<Operations>>,
    _: Provider,
    Path(id): Path<Uuid>,
    once: Once,
) -> Result<Json<OperationView>> {
    Ok(Json(service::retry(&operations, &once, id).await?))
}

/// Give a stuck operation up (provider)
///
/// It ends as failed. Nothing more of it is done and nothing is taken back; its server shows what the next sweep finds. For
/// what must not be done any more: after the database was restored, or where somebody did it by hand.
#[utoipa::path(post, path = "/operations/{id}/abandon", tag = "operations", operation_id = "abandonOperation", params(("id" = Uuid, Path, description = "The operation's id")),
    responses((status = 200, body = OperationView), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn abandon(
    State(operations): State<Arc<Operations>>,
    _: Provider,
    Path(id): Path<Uuid>,
    once: Once,
) -> Result<Json<OperationView>> {
    Ok(Json(service::abandon(&operations, &once, id).await?))
}
