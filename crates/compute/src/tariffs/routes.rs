//! `/api/tariffs`: the catalogue of tariffs, and its administration.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use kernel::auth::{AccessRow, Admission};
use kernel::core::Core;
use kernel::error::Result;
use kernel::http::ErrorBody;
use kernel::http::auth::{ProviderCaller, UserCaller};
use kernel::http::extract::{Json, Path, Query};
use kernel::http::page::CatalogueQuery;
use kernel::idempotency::Post;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{NewTariff, Tariff, UpdateTariff};
use super::service;
use crate::ids::TariffId;

pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, update, delete))
}

/// Who may call what.
pub(super) const ACCESS: &[AccessRow] = &[
    ("GET", "/api/tariffs", Admission::User),
    ("POST", "/api/tariffs", Admission::Provider),
    ("GET", "/api/tariffs/{id}", Admission::User),
    ("PUT", "/api/tariffs/{id}", Admission::Provider),
    ("DELETE", "/api/tariffs/{id}", Admission::Provider),
];

/// Tariffs: those that can be ordered; all of them for a provider
#[utoipa::path(get, path = "/tariffs", tag = "catalogue", operation_id = "listTariffs", params(CatalogueQuery),
    responses((status = 200, body = Vec<Tariff>), (status = 403, body = ErrorBody)))]
async fn list(
    State(core): State<Arc<Core>>,
    UserCaller(caller): UserCaller,
    Query(query): Query<CatalogueQuery>,
) -> Result<(HeaderMap, Json<Vec<Tariff>>)> {
    Ok(query.of(service::visible(&core, &caller).await?))
}

/// One tariff
#[utoipa::path(get, path = "/tariffs/{id}", tag = "catalogue", operation_id = "getTariff",
    params(("id" = TariffId, Path, description = "The tariff's id")),
    responses((status = 200, body = Tariff), (status = 403, body = ErrorBody)))]
async fn show(
    State(core): State<Arc<Core>>,
    UserCaller(caller): UserCaller,
    Path(id): Path<TariffId>,
) -> Result<Json<Tariff>> {
    Ok(Json(service::find(&core, &caller, id).await?))
}

/// Create a tariff
#[utoipa::path(post, path = "/tariffs", tag = "catalogue", operation_id = "createTariff", request_body = NewTariff,
    responses((status = 201, body = Tariff)))]
async fn create(
    State(core): State<Arc<Core>>,
    _: ProviderCaller,
    Post(once, new): Post<NewTariff>,
) -> Result<(StatusCode, Json<Tariff>)> {
    Ok((StatusCode::CREATED, Json(service::create(&core, &once, new).await?)))
}

/// Change some fields of a tariff
#[utoipa::path(put, path = "/tariffs/{id}", tag = "catalogue", operation_id = "updateTariff",
    params(("id" = TariffId, Path, description = "The tariff's id")), request_body = UpdateTariff,
    responses((status = 200, body = Tariff), (status = 409, body = ErrorBody)))]
async fn update(
    State(core): State<Arc<Core>>,
    _: ProviderCaller,
    Path(id): Path<TariffId>,
    Json(update): Json<UpdateTariff>,
) -> Result<Json<Tariff>> {
    Ok(Json(service::update(&core, id, update).await?))
}

/// Delete a tariff that was never used
#[utoipa::path(delete, path = "/tariffs/{id}", tag = "catalogue", operation_id = "deleteTariff",
    params(("id" = TariffId, Path, description = "The tariff's id")),
    responses((status = 204), (status = 409, body = ErrorBody)))]
async fn delete(State(core): State<Arc<Core>>, _: ProviderCaller, Path(id): Path<TariffId>) -> Result<StatusCode> {
    service::delete(&core, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
