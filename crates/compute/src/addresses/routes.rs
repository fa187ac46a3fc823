//! `/api/address-pools`: the provider's addresses.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use kernel::auth::{AccessRow, Admission};
use kernel::error::Result;
use kernel::http::ErrorBody;
use kernel::http::auth::ProviderCaller;
use kernel::http::extract::{Json, Path, Query};
use kernel::http::page::{CatalogueQuery, Page, PageQuery};
use kernel::idempotency::Post;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{Address, AddressPage, NewPool, Pool, ReserveAddress, UpdatePool};
use super::{Addresses, service};
use crate::ids::PoolId;

pub(super) fn routes() -> OpenApiRouter<Arc<Addresses>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, update, delete))
        .routes(routes!(addresses))
        .routes(routes!(reserve))
        .routes(routes!(release_reserved))
}

/// Who may call what.
pub(super) const ACCESS: &[AccessRow] = &[
    ("GET", "/api/address-pools", Admission::Provider),
    ("POST", "/api/address-pools", Admission::Provider),
    ("GET", "/api/address-pools/{id}", Admission::Provider),
    ("PUT", "/api/address-pools/{id}", Admission::Provider),
    ("DELETE", "/api/address-pools/{id}", Admission::Provider),
    ("GET", "/api/address-pools/{id}/addresses", Admission::Provider),
    ("POST", "/api/address-pools/{id}/reserve", Admission::Provider),
    ("DELETE", "/api/address-pools/{id}/reserve/{address}", Admission::Provider),
];

/// Address pools with their free addresses
#[utoipa::path(get, path = "/address-pools", tag = "addresses", operation_id = "listAddressPools",
    params(CatalogueQuery), responses((status = 200, body = Vec<Pool>), (status = 403, body = ErrorBody)))]
async fn list(
    State(pools): State<Arc<Addresses>>,
    _: ProviderCaller,
    Query(query): Query<CatalogueQuery>,
) -> Result<(HeaderMap, Json<Vec<Pool>>)> {
    Ok(query.of(service::all(&pools.core.db, pools.settings.rest()).await?))
}

/// One address pool
#[utoipa::path(get, path = "/address-pools/{id}", tag = "addresses", operation_id = "getAddressPool",
    params(("id" = PoolId, Path, description = "The pool's id")),
    responses((status = 200, body = Pool), (status = 403, body = ErrorBody)))]
async fn show(State(pools): State<Arc<Addresses>>, _: ProviderCaller, Path(id): Path<PoolId>) -> Result<Json<Pool>> {
    Ok(Json(service::find(&pools, id).await?))
}

/// Create an address pool
#[utoipa::path(post, path = "/address-pools", tag = "addresses", operation_id = "createAddressPool",
    request_body = NewPool, responses((status = 201, body = Pool)))]
async fn create(
    State(pools): State<Arc<Addresses>>,
    _: ProviderCaller,
    Post(once, new): Post<NewPool>,
) -> Result<(StatusCode, Json<Pool>)> {
    Ok((StatusCode::CREATED, Json(service::create(&pools, &once, new).await?)))
}

/// Change some fields of an address pool
#[utoipa::path(put, path = "/address-pools/{id}", tag = "addresses", operation_id = "updateAddressPool",
    params(("id" = PoolId, Path, description = "The pool's id")), request_body = UpdatePool,
    responses((status = 200, body = Pool), (status = 409, body = ErrorBody)))]
async fn update(
    State(pools): State<Arc<Addresses>>,
    _: ProviderCaller,
    Path(id): Path<PoolId>,
    Json(update): Json<UpdatePool>,
) -> Result<Json<Pool>> {
    Ok(Json(service::update(&pools, id, update).await?))
}

/// Delete an address pool that no server has an address from
#[utoipa::path(delete, path = "/address-pools/{id}", tag = "addresses", operation_id = "deleteAddressPool",
    params(("id" = PoolId, Path, description = "The pool's id")),
    responses((status = 204), (status = 409, body = ErrorBody)))]
async fn delete(State(pools): State<Arc<Addresses>>, _: ProviderCaller, Path(id): Path<PoolId>) -> Result<StatusCode> {
    service::delete(&pools.core, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Addresses of a pool that are in use
#[utoipa::path(get, path = "/address-pools/{id}/addresses", tag = "addresses", operation_id = "listPoolAddresses",
    params(("id" = PoolId, Path, description = "The pool's id"), PageQuery),
    responses((status = 200, body = AddressPage), (status = 403, body = ErrorBody)))]
async fn addresses(
    State(pools): State<Arc<Addresses>>,
    _: ProviderCaller,
    Path(id): Path<PoolId>,
    Query(query): Query<PageQuery>,
) -> Result<Json<AddressPage>> {
    let (addresses, total) = service::addresses(&pools.core, id, query.window()).await?;
    let Page { data: addresses, total, page, limit, pages, .. } = Page::new(addresses, total, query);
    Ok(Json(AddressPage { addresses, total, page, limit, pages }))
}

/// Reserve an address, so that no server gets it
#[utoipa::path(post, path = "/address-pools/{id}/reserve", tag = "addresses", operation_id = "reserveAddress",
    params(("id" = PoolId, Path, description = "The pool's id")), request_body = ReserveAddress,
    responses((status = 201, body = Address)))]
async fn reserve(
    State(pools): State<Arc<Addresses>>,
    _: ProviderCaller,
    Path(id): Path<PoolId>,
    Post(once, wish): Post<ReserveAddress>,
) -> Result<(StatusCode, Json<Address>)> {
    Ok((StatusCode::CREATED, Json(service::reserve(&pools.core, &once, id, wish).await?)))
}

/// Release a reserved address
#[utoipa::path(delete, path = "/address-pools/{id}/reserve/{address}", tag = "addresses",
    operation_id = "releaseAddress",
    params(("id" = PoolId, Path, description = "The pool's id"),
        ("address" = String, Path, description = "The address")),
    responses((status = 204), (status = 409, body = ErrorBody)))]
async fn release_reserved(
    State(pools): State<Arc<Addresses>>,
    _: ProviderCaller,
    Path((id, address)): Path<(PoolId, IpAddr)>,
) -> Result<StatusCode> {
    service::release_reserved(&pools.core, id, address).await?;
    Ok(StatusCode::NO_CONTENT)
}
