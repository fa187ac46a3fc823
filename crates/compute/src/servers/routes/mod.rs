//! `/api/server`: sections 1 to 9 of the server-management API.

mod changes;

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use kernel::error::Result;
use kernel::http::ErrorBody;
use kernel::http::auth::{AccountCaller, AnyCaller};
use kernel::http::extract::{Json, Query};
use kernel::http::page::{Page, PageQuery, TOTAL};
use kernel::idempotency::{Once, Post};
use kernel::operations::{self, model::OperationView};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::hosts::Hosts;
use crate::ids::ServerId;
use crate::servers::model::{Action, CreateServer, CreatedServer, Deleted, ListServers, PasswordChanged, ServerView};
use crate::servers::service;
use crate::servers::workflows::power::Power;
use crate::servers::{ServerAccess, Servers};

pub(super) fn routes() -> OpenApiRouter<Arc<Hosts>> {
    changes::routes()
        .routes(routes!(list))
        .routes(routes!(get, delete))
        .routes(routes!(start))
        .routes(routes!(stop))
        .routes(routes!(restart))
        .routes(routes!(password))
        .routes(routes!(operations))
}

pub(super) fn orders() -> OpenApiRouter<Arc<Servers>> {
    OpenApiRouter::new().routes(routes!(create))
}

/// My servers
///
/// The header `X-Total-Count` has the total number of servers.
#[utoipa::path(get, path = "/server", tag = "servers", operation_id = "listServers", params(ListServers),
    responses((status = 200, body = Vec<ServerView>), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 422, body = ErrorBody)))]
async fn list(
    State(hosts): State<Arc<Hosts>>,
    AnyCaller(caller): AnyCaller,
    Query(query): Query<ListServers>,
) -> Result<(HeaderMap, Json<Vec<ServerView>>)> {
    let (servers, total) = service::list(&hosts.core, &caller, &query).await?;
    Ok((HeaderMap::from_iter([(TOTAL, total.into())]), Json(servers)))
}

/// Order a server
#[utoipa::path(post, path = "/server/create", tag = "servers", operation_id = "createServer", request_body = CreateServer,
    responses((status = 200, body = CreatedServer), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 422, body = ErrorBody), (status = 507, body = ErrorBody)))]
async fn create(
    State(servers): State<Arc<Servers>>,
    AccountCaller(caller): AccountCaller,
    Post(once, order): Post<CreateServer>,
) -> Result<Json<CreatedServer>> {
    Ok(Json(service::order(&servers, &once, caller.user, order).await?))
}

/// One server
#[utoipa::path(get, path = "/server/{id}", tag = "servers", operation_id = "getServer", params(("id" = ServerId, Path, description = "The server's id")),
    responses((status = 200, body = ServerView), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
async fn get(State(hosts): State<Arc<Hosts>>, access: ServerAccess) -> Result<Json<ServerView>> {
    Ok(Json(service::view(&hosts.core, access.server.id).await?))
}

/// Start a server; a running server is left alone
#[utoipa::path(post, path = "/server/{id}/start", tag = "servers", operation_id = "startServer", params(("id" = ServerId, Path, description = "The server's id")),
    responses((status = 200, body = Action), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn start(State(hosts): State<Arc<Hosts>>, access: ServerAccess, once: Once) -> Result<Json<Action>> {
    Ok(Json(service::power(&hosts.core, &once, &access, Power::Start).await?))
}

/// Stop a server: cleanly at first, by force if it takes too long
#[utoipa::path(post, path = "/server/{id}/stop", tag = "servers", operation_id = "stopServer", params(("id" = ServerId, Path, description = "The server's id")),
    responses((status = 200, body = Action), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn stop(State(hosts): State<Arc<Hosts>>, access: ServerAccess, once: Once) -> Result<Json<Action>> {
    Ok(Json(service::power(&hosts.core, &once, &access, Power::Stop).await?))
}

/// Restart a server; one that is stopped is started
///
/// Refused with 409 if the server could not start again because its own disk is full: it keeps running.
#[utoipa::path(post, path = "/server/{id}/restart", tag = "servers", operation_id = "restartServer", params(("id" = ServerId, Path, description = "The server's id")),
    responses((status = 200, body = Action), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn restart(State(hosts): State<Arc<Hosts>>, access: ServerAccess, once: Once) -> Result<Json<Action>> {
    Ok(Json(service::power(&hosts.core, &once, &access, Power::Restart).await?))
}

/// Delete a server with its disks, snapshots and addresses
///
/// Refused with 409 while it is protected, here or on its host.
#[utoipa::path(delete, path = "/server/{id}", tag = "servers", operation_id = "deleteServer", params(("id" = ServerId, Path, description = "The server's id")),
    responses((status = 200, body = Deleted), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn delete(State(hosts): State<Arc<Hosts>>, access: ServerAccess) -> Result<Json<Deleted>> {
    Ok(Json(service::delete(&hosts, &access).await?))
}

/// Generate and set a new root password; it is shown only once
#[utoipa::path(post, path = "/server/{id}/password", tag = "servers", operation_id = "changeServerPassword", params(("id" = ServerId, Path, description = "The server's id")),
    responses((status = 200, body = PasswordChanged), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 422, body = ErrorBody), (status = 502, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn password(State(hosts): State<Arc<Hosts>>, access: ServerAccess, once: Once) -> Result<Json<PasswordChanged>> {
    Ok(Json(service::change_password(&hosts, &once, &access).await?))
}

/// A server's operations, newest first
#[utoipa::path(get, path = "/server/{id}/operations", tag = "servers", operation_id = "listServerOperations", params(("id" = ServerId, Path, description = "The server's id"), PageQuery),
    responses((status = 200, body = Page<OperationView>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
async fn operations(
    State(hosts): State<Arc<Hosts>>,
    access: ServerAccess,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<OperationView>>> {
    let (data, total) = operations::service::of_server(&hosts.core, &access.caller, access.server.id, query).await?;
    Ok(Json(Page::new(data, total, query)))
}
