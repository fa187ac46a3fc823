//! `/api/mails`.

use std::sync::Arc;

use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::model::{ListMails, MailView};
use super::service;
use crate::auth::{AccessRow, Admission};
use crate::core::Core;
use crate::error::Result;
use crate::http::ErrorBody;
use crate::http::auth::ProviderCaller;
use crate::http::extract::{Json, Path, Query};
use crate::http::page::{Page, PageQuery};
use crate::idempotency::Once;
use crate::listing::Place;

pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(retry))
}

/// Who may call what.
pub(super) const ACCESS: &[AccessRow] =
    &[("GET", "/api/mails", Admission::Provider), ("POST", "/api/mails/{id}/retry", Admission::Provider)];

/// List the emails of the last 90 days (provider)
#[utoipa::path(get, path = "/mails", tag = "mails", operation_id = "listMails", params(ListMails),
    responses((status = 200, body = Page<MailView>), (status = 403, body = ErrorBody)))]
async fn list(
    State(core): State<Arc<Core>>,
    _: ProviderCaller,
    Query(query): Query<ListMails>,
) -> Result<Json<Page<MailView>>> {
    let page = PageQuery { page: query.page, limit: query.limit }.or_after(query.after.as_ref())?;
    let (mails, total) = service::list(&core, &query, page.window()).await?;
    Ok(Json(Page::new(mails, total, page).continued(|mail| Place { at: mail.created_at, id: mail.id })))
}

/// Retry an email at once that failed, may have been sent, or is still queued (provider)
#[utoipa::path(post, path = "/mails/{id}/retry", tag = "mails", operation_id = "retryMail",
    params(("id" = Uuid, Path, description = "The email's id")), responses((status = 200, body = MailView)))]
async fn retry(
    State(core): State<Arc<Core>>,
    _: ProviderCaller,
    Path(id): Path<Uuid>,
    once: Once,
) -> Result<Json<MailView>> {
    Ok(Json(service::retry(&core, &once, id).await?))
}
