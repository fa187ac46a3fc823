//! `/api/operations`.

use std::sync::Arc;

use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Operations;
use super::model::{ListOperations, OperationView};
use super::service::{self, LogLine};
use super::store::OperationRow;
use crate::auth::{AccessRow, Admission};
use crate::error::Result;
use crate::http::ErrorBody;
use crate::http::auth::{MemberCaller, ProviderCaller};
use crate::http::extract::{Json, Path, Query};
use crate::http::owned::Owned;
use crate::http::page::{Page, PageQuery};
use crate::idempotency::Once;
use crate::listing::Place;

pub(super) fn routes() -> OpenApiRouter<Arc<Operations>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(log))
        .routes(routes!(retry))
        .routes(routes!(abandon))
}

/// Who may call what.
pub(super) const ACCESS: &[AccessRow] = &[
    ("GET", "/api/operations", Admission::Member),
    ("GET", "/api/operations/{id}", Admission::Owned),
    ("GET", "/api/operations/{id}/log", Admission::Provider),
    ("POST", "/api/operations/{id}/retry", Admission::Provider),
    ("POST", "/api/operations/{id}/abandon", Admission::Provider),
];

/// Operations, newest first: on what the account owns; for staff, everybody's
///
/// `total` counts up to 10,000, and pages end there: filter the list to get further, or continue it with `after`.
#[utoipa::path(get, path = "/operations", tag = "operations", operation_id = "listOperations", params(ListOperations),
    responses((status = 200, body = Page<OperationView>), (status = 403, body = ErrorBody)))]
async fn list(
    State(operations): State<Arc<Operations>>,
    MemberCaller(caller): MemberCaller,
    Query(query): Query<ListOperations>,
) -> Result<Json<Page<OperationView>>> {
    let page = PageQuery { page: query.page, limit: query.limit }.or_after(query.after.as_ref())?;
    let (data, total) = service::list(&operations.core, &caller, &query, page.window()).await?;
    Ok(Json(Page::new(data, total, page).continued(|operation| Place { at: operation.created_at, id: operation.id })))
}

/// State of an operation
#[utoipa::path(get, path = "/operations/{id}", tag = "operations", operation_id = "getOperation",
    params(("id" = Uuid, Path, description = "The operation's id")), responses((status = 200, body = OperationView)))]
async fn get(Owned { caller, thing }: Owned<OperationRow>) -> Json<OperationView> {
    Json(thing.view(caller.sees_everything()))
}

/// The last thousand lines of an operation's log (provider)
#[utoipa::path(get, path = "/operations/{id}/log", tag = "operations", operation_id = "getOperationLog",
    params(("id" = Uuid, Path, description = "The operation's id")),
    responses((status = 200, body = Vec<LogLine>), (status = 403, body = ErrorBody)))]
async fn log(
    State(operations): State<Arc<Operations>>,
    _: ProviderCaller,
    Path(id): Path<Uuid>,
) -> Result<Json<Vec<LogLine>>> {
    Ok(Json(service::log(&operations.core, id).await?))
}

/// Retry a stuck operation (provider)
#[utoipa::path(post, path = "/operations/{id}/retry", tag = "operations", operation_id = "retryOperation",
    params(("id" = Uuid, Path, description = "The operation's id")), responses((status = 200, body = OperationView)))]
async fn retry(
    State(operations): State<Arc<Operations>>,
    _: ProviderCaller,
    Path(id): Path<Uuid>,
    once: Once,
) -> Result<Json<OperationView>> {
    Ok(Json(service::retry(&operations, &once, id).await?))
}

/// Abandon a stuck operation (provider)
///
/// It ends as failed. Nothing more is done and nothing is undone; its subject shows what is really there. For
/// operations that must not continue: after the database was restored, or if someone did the work manually.
#[utoipa::path(post, path = "/operations/{id}/abandon", tag = "operations", operation_id = "abandonOperation",
    params(("id" = Uuid, Path, description = "The operation's id")), responses((status = 200, body = OperationView)))]
async fn abandon(
    State(operations): State<Arc<Operations>>,
    _: ProviderCaller,
    Path(id): Path<Uuid>,
    once: Once,
) -> Result<Json<OperationView>> {
    Ok(Json(service::abandon(&operations, &once, id).await?))
}
