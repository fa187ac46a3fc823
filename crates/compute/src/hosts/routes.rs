//! `/api/hosts`: the provider's hypervisors.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use kernel::auth::{AccessRow, Admission};
use kernel::error::Result;
use kernel::http::ErrorBody;
use kernel::http::auth::ProviderCaller;
use kernel::http::extract::{Json, Path, Query};
use kernel::http::page::CatalogueQuery;
use kernel::idempotency::{Once, Post};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{AddedHost, Host, HostCheck, NewHost, UpdateHost};
use super::{Hosts, service};
use crate::ids::HostId;

pub(super) fn routes() -> OpenApiRouter<Arc<Hosts>> {
    OpenApiRouter::new().routes(routes!(list, add)).routes(routes!(show, update, delete)).routes(routes!(check))
}

/// Who may call what.
pub(super) const ACCESS: &[AccessRow] = &[
    ("GET", "/api/hosts", Admission::Provider),
    ("POST", "/api/hosts", Admission::Provider),
    ("GET", "/api/hosts/{id}", Admission::Provider),
    ("PUT", "/api/hosts/{id}", Admission::Provider),
    ("DELETE", "/api/hosts/{id}", Admission::Provider),
    ("POST", "/api/hosts/{id}/check", Admission::Provider),
];

/// Hosts with their nodes
#[utoipa::path(get, path = "/hosts", tag = "hosts", operation_id = "listHosts", params(CatalogueQuery),
    responses((status = 200, body = Vec<Host>), (status = 403, body = ErrorBody)))]
async fn list(
    State(hosts): State<Arc<Hosts>>,
    _: ProviderCaller,
    Query(query): Query<CatalogueQuery>,
) -> Result<(HeaderMap, Json<Vec<Host>>)> {
    Ok(query.of(service::all(&hosts.core).await?))
}

/// One host
#[utoipa::path(get, path = "/hosts/{id}", tag = "hosts", operation_id = "getHost",
    params(("id" = HostId, Path, description = "The host's id")),
    responses((status = 200, body = Host), (status = 403, body = ErrorBody)))]
async fn show(State(hosts): State<Arc<Hosts>>, _: ProviderCaller, Path(id): Path<HostId>) -> Result<Json<Host>> {
    Ok(Json(service::find(&hosts.core, id).await?))
}

/// Add a host, after checking it
#[utoipa::path(post, path = "/hosts", tag = "hosts", operation_id = "addHost", request_body = NewHost,
    responses((status = 201, body = AddedHost), (status = 502, body = ErrorBody)))]
async fn add(
    State(hosts): State<Arc<Hosts>>,
    _: ProviderCaller,
    Post(once, new): Post<NewHost>,
) -> Result<(StatusCode, Json<AddedHost>)> {
    Ok((StatusCode::CREATED, Json(service::add(&hosts.core, &once, new).await?)))
}

/// Change some fields of a host
#[utoipa::path(put, path = "/hosts/{id}", tag = "hosts", operation_id = "updateHost",
    params(("id" = HostId, Path, description = "The host's id")), request_body = UpdateHost,
    responses((status = 200, body = Host), (status = 409, body = ErrorBody), (status = 502, body = ErrorBody)))]
async fn update(
    State(hosts): State<Arc<Hosts>>,
    _: ProviderCaller,
    Path(id): Path<HostId>,
    Json(update): Json<UpdateHost>,
) -> Result<Json<Host>> {
    Ok(Json(service::update(&hosts.core, id, update).await?))
}

/// Delete a host that has no servers and no address pools
#[utoipa::path(delete, path = "/hosts/{id}", tag = "hosts", operation_id = "deleteHost",
    params(("id" = HostId, Path, description = "The host's id")),
    responses((status = 204), (status = 409, body = ErrorBody)))]
async fn delete(State(hosts): State<Arc<Hosts>>, _: ProviderCaller, Path(id): Path<HostId>) -> Result<StatusCode> {
    service::delete(&hosts, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Check a host now: its version, its nodes, what is missing
#[utoipa::path(post, path = "/hosts/{id}/check", tag = "hosts", operation_id = "checkHost",
    params(("id" = HostId, Path, description = "The host's id")),
    responses((status = 200, body = HostCheck), (status = 502, body = ErrorBody)))]
async fn check(
    State(hosts): State<Arc<Hosts>>,
    _: ProviderCaller,
    Path(id): Path<HostId>,
    once: Once,
) -> Result<Json<HostCheck>> {
    Ok(Json(service::check(&hosts, &once, id).await?))
}
