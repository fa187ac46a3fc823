//! `/api/audit`.

use std::sync::Arc;

use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{Entry, ListEntries, Refused};
use super::service;
use crate::core::Core;
use crate::error::Result;
use crate::http::ErrorBody;
use crate::http::auth::Account;
use crate::http::extract::{Json, Query};
use crate::http::page::{Page, PageQuery};

pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(refused))
}

/// The audit log: all of it for a provider; what concerns them for a customer
///
/// `total` counts to 10,000, and pages go no further: for what is beyond, narrow the list. Of what was refused, the first
/// 20 of an account's in an hour are entries; `GET /api/audit/refused` has how many there were.
#[utoipa::path(get, path = "/audit", tag = "audit", operation_id = "listAuditEntries", params(ListEntries),
    responses((status = 200, body = Page<Entry>), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 422, body = ErrorBody)))]
async fn list(
    State(core): State<Arc<Core>>,
    Account(caller): Account,
    Query(query): Query<ListEntries>,
) -> Result<Json<Page<Entry>>> {
    Ok(Json(service::list(&core, &caller, &query).await?))
}

/// How many writes were refused, by hour and account: all of them for a provider; what concerns them for a customer
#[utoipa::path(get, path = "/audit/refused", tag = "audit", operation_id = "listRefusedWrites", params(PageQuery),
    responses((status = 200, body = Page<Refused>), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 422, body = ErrorBody)))]
async fn refused(
    State(core): State<Arc<Core>>,
    Account(caller): Account,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Refused>>> {
    Ok(Json(service::refusals(&core, &caller, query).await?))
}
