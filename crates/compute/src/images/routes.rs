//! `/api/images`: the catalogue of operating systems, and its administration.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use kernel::auth::{AccessRow, Admission};
use kernel::error::Result;
use kernel::http::ErrorBody;
use kernel::http::auth::{ProviderCaller, UserCaller};
use kernel::http::extract::{Json, Path, Query};
use kernel::http::page::CatalogueQuery;
use kernel::idempotency::Post;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{ImageView, NewImage, UpdateImage};
use super::service;
use crate::hosts::Hosts;
use crate::ids::ImageId;

pub(super) fn routes() -> OpenApiRouter<Arc<Hosts>> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, update, delete))
}

/// Who may call what.
pub(super) const ACCESS: &[AccessRow] = &[
    ("GET", "/api/images", Admission::User),
    ("POST", "/api/images", Admission::Provider),
    ("GET", "/api/images/{id}", Admission::User),
    ("PUT", "/api/images/{id}", Admission::Provider),
    ("DELETE", "/api/images/{id}", Admission::Provider),
];

/// Images: those that can be ordered; all of them, with their sources, for a provider
#[utoipa::path(get, path = "/images", tag = "catalogue", operation_id = "listImages", params(CatalogueQuery),
    responses((status = 200, body = Vec<ImageView>), (status = 403, body = ErrorBody)))]
async fn list(
    State(hosts): State<Arc<Hosts>>,
    UserCaller(caller): UserCaller,
    Query(query): Query<CatalogueQuery>,
) -> Result<(HeaderMap, Json<Vec<ImageView>>)> {
    Ok(query.of(service::visible(&hosts.core, &caller).await?))
}

/// One image
#[utoipa::path(get, path = "/images/{id}", tag = "catalogue", operation_id = "getImage",
    params(("id" = ImageId, Path, description = "The image's id")),
    responses((status = 200, body = ImageView), (status = 403, body = ErrorBody)))]
async fn show(
    State(hosts): State<Arc<Hosts>>,
    UserCaller(caller): UserCaller,
    Path(id): Path<ImageId>,
) -> Result<Json<ImageView>> {
    Ok(Json(service::find(&hosts.core, &caller, id).await?))
}

/// Create an image
#[utoipa::path(post, path = "/images", tag = "catalogue", operation_id = "createImage", request_body = NewImage,
    responses((status = 201, body = ImageView)))]
async fn create(
    State(hosts): State<Arc<Hosts>>,
    _: ProviderCaller,
    Post(once, new): Post<NewImage>,
) -> Result<(StatusCode, Json<ImageView>)> {
    Ok((StatusCode::CREATED, Json(service::create(&hosts, &once, new).await?)))
}

/// Change some fields of an image
#[utoipa::path(put, path = "/images/{id}", tag = "catalogue", operation_id = "updateImage",
    params(("id" = ImageId, Path, description = "The image's id")), request_body = UpdateImage,
    responses((status = 200, body = ImageView), (status = 409, body = ErrorBody)))]
async fn update(
    State(hosts): State<Arc<Hosts>>,
    _: ProviderCaller,
    Path(id): Path<ImageId>,
    Json(update): Json<UpdateImage>,
) -> Result<Json<ImageView>> {
    Ok(Json(service::update(&hosts, id, update).await?))
}

/// Delete an image that no server was ever made from
#[utoipa::path(delete, path = "/images/{id}", tag = "catalogue", operation_id = "deleteImage",
    params(("id" = ImageId, Path, description = "The image's id")),
    responses((status = 204), (status = 409, body = ErrorBody)))]
async fn delete(State(hosts): State<Arc<Hosts>>, _: ProviderCaller, Path(id): Path<ImageId>) -> Result<StatusCode> {
    service::delete(&hosts.core, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
