//! `/api/audit`.

use std::sync::Arc;

use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{Entry, ListEntries};
use super::service;
use crate::app::App;
use crate::error::Result;
use crate::http::ErrorBody;
use crate::http::auth::Account;
use crate::http::extract::{Json, Query};
use crate::http::page::Page;

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(list))
}

/// The audit log: all of it for a provider; what concerns them for a customer
///
/// `total` counts to 10,000, and pages go no further: for what is beyond, narrow the list.
#[utoipa::path(get, path = "/audit", tag = "audit", operation_id = "listAuditEntries", params(ListEntries),
    responses((status = 200, body = Page<Entry>), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 422, body = ErrorBody)))]
async fn list(
    State(app): State<Arc<App>>,
    Account(caller): Account,
    Query(query): Query<ListEntries>,
) -> Result<Json<Page<Entry>>> {
    Ok(Json(service::list(&app, &caller, &query).await?))
}
