//! `/api/audit`.

use std::sync::Arc;

use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{AuditEntry, ListEntries, RefusedWrites};
use super::service;
use crate::auth::{AccessRow, Admission};
use crate::core::Core;
use crate::error::Result;
use crate::http::ErrorBody;
use crate::http::auth::AccountCaller;
use crate::http::extract::{Json, Query};
use crate::http::page::{Page, PageQuery};
use crate::listing::Place;

pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(refused))
}

/// Who may call what.
pub(super) const ACCESS: &[AccessRow] =
    &[("GET", "/api/audit", Admission::Account), ("GET", "/api/audit/refused", Admission::Account)];

/// List audit entries: a provider sees all, a customer only those about themselves
///
/// `total` counts up to 10,000, and pages end there: filter the list to get further, or continue it with `after`. Only
/// the first 20 refused writes per account and hour are entries; `GET /api/audit/refused` has their total number.
#[utoipa::path(get, path = "/audit", tag = "audit", operation_id = "listAuditEntries", params(ListEntries),
    responses((status = 200, body = Page<AuditEntry>), (status = 403, body = ErrorBody)))]
async fn list(
    State(core): State<Arc<Core>>,
    AccountCaller(caller): AccountCaller,
    Query(query): Query<ListEntries>,
) -> Result<Json<Page<AuditEntry>>> {
    let page = PageQuery { page: query.page, limit: query.limit }.or_after(query.after.as_ref())?;
    let (entries, total) = service::list(&core, &caller, &query, page.window()).await?;
    Ok(Json(Page::new(entries, total, page).continued(|entry| Place { at: entry.at, id: entry.id })))
}

/// Count refused writes by hour and account: a provider sees all, a customer only those about themselves
#[utoipa::path(get, path = "/audit/refused", tag = "audit", operation_id = "listRefusedWrites", params(PageQuery),
    responses((status = 200, body = Page<RefusedWrites>), (status = 403, body = ErrorBody)))]
async fn refused(
    State(core): State<Arc<Core>>,
    AccountCaller(caller): AccountCaller,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<RefusedWrites>>> {
    let (refused, total) = service::refusals(&core, &caller, page.window()).await?;
    Ok(Json(Page::new(refused, total, page)))
}
