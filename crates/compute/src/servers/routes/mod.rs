//! `/api/server`: sections 1 to 9 of the server-management API.

mod changes;

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use kernel::auth::{AccessRow, Admission};
use kernel::error::Result;
use kernel::http::ErrorBody;
use kernel::http::auth::{AccountCaller, MemberCaller};
use kernel::http::extract::{Json, Query};
use kernel::http::page::{Page, PageQuery, TOTAL};
use kernel::idempotency::{Once, Post};
use kernel::listing::Place;
use kernel::operations::model::{ListSubjectOperations, OperationView};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ids::ServerId;
use crate::servers::model::{CreateServer, ListServers, ServerView};
use crate::servers::wire::{CreatedServer, DeletedServer, PasswordChanged, PowerAccepted};
use crate::servers::workflows::power::PowerAction;
use crate::servers::{ServerAccess, Servers, service, subject};

pub(super) fn routes() -> OpenApiRouter<Arc<Servers>> {
    changes::routes()
        .routes(routes!(list))
        .routes(routes!(get, delete))
        .routes(routes!(start))
        .routes(routes!(stop))
        .routes(routes!(restart))
        .routes(routes!(password))
        .routes(routes!(operations))
        .routes(routes!(create))
}

/// Who may call what.
pub(super) const ACCESS: &[AccessRow] = &[
    ("GET", "/api/server", Admission::Member),
    ("POST", "/api/server/create", Admission::Account),
    ("GET", "/api/server/{id}", Admission::Owned),
    ("DELETE", "/api/server/{id}", Admission::Owned),
    ("POST", "/api/server/{id}/start", Admission::Owned),
    ("POST", "/api/server/{id}/stop", Admission::Owned),
    ("POST", "/api/server/{id}/restart", Admission::Owned),
    ("POST", "/api/server/{id}/password", Admission::Owned),
    ("GET", "/api/server/{id}/operations", Admission::Owned),
    ("PATCH", "/api/server/{id}", Admission::Owned),
    ("POST", "/api/server/{id}/reinstall", Admission::Owned),
    ("POST", "/api/server/{id}/suspend", Admission::Provider),
    ("POST", "/api/server/{id}/unsuspend", Admission::Provider),
    ("GET", "/api/server/{id}/addresses", Admission::Owned),
    ("PUT", "/api/server/{id}/addresses/{address}", Admission::Owned),
];

/// My servers
///
/// The header `X-Total-Count` has the total number of servers, also in a list that `after` continues.
#[utoipa::path(get, path = "/server", tag = "servers", operation_id = "listServers", params(ListServers),
    responses((status = 200, body = Vec<ServerView>), (status = 403, body = ErrorBody)))]
async fn list(
    State(servers): State<Arc<Servers>>,
    MemberCaller(caller): MemberCaller,
    Query(query): Query<ListServers>,
) -> Result<(HeaderMap, Json<Vec<ServerView>>)> {
    // One's own servers come unpaged, as the specification says; a whole fleet comes in pages.
    let paged = query.all || query.page.is_some() || query.limit.is_some() || query.after.is_some();
    let page = PageQuery { page: query.page, limit: query.limit }.or_after(query.after.as_ref())?;
    let window = paged.then(|| page.window());
    let (listed, total) = service::list(&servers, &caller, &query, window).await?;
    Ok((HeaderMap::from_iter([(TOTAL, total.into())]), Json(listed)))
}

/// Order a server
#[utoipa::path(post, path = "/server/create", tag = "servers", operation_id = "createServer",
    request_body = CreateServer, responses((status = 200, body = CreatedServer), (status = 507, body = ErrorBody)))]
async fn create(
    State(servers): State<Arc<Servers>>,
    AccountCaller(caller): AccountCaller,
    Post(once, order): Post<CreateServer>,
) -> Result<Json<CreatedServer>> {
    Ok(Json(service::order(&servers, &once, &caller, order).await?.into()))
}

/// One server
#[utoipa::path(get, path = "/server/{id}", tag = "servers", operation_id = "getServer",
    params(("id" = ServerId, Path, description = "The server's id")), responses((status = 200, body = ServerView)))]
async fn get(State(servers): State<Arc<Servers>>, access: ServerAccess) -> Result<Json<ServerView>> {
    let mut db = servers.hosts.core.db.acquire().await?;
    Ok(Json(service::view(&servers, &access.caller, &mut db, access.thing.id).await?))
}

/// Start a server; a running server is left alone
#[utoipa::path(post, path = "/server/{id}/start", tag = "servers", operation_id = "startServer",
    params(("id" = ServerId, Path, description = "The server's id")), responses((status = 200, body = PowerAccepted)))]
async fn start(State(servers): State<Arc<Servers>>, access: ServerAccess, once: Once) -> Result<Json<PowerAccepted>> {
    power(&servers, &once, &access, PowerAction::Start).await
}

/// Stop a server: cleanly at first, by force if it takes too long
#[utoipa::path(post, path = "/server/{id}/stop", tag = "servers", operation_id = "stopServer",
    params(("id" = ServerId, Path, description = "The server's id")), responses((status = 200, body = PowerAccepted)))]
async fn stop(State(servers): State<Arc<Servers>>, access: ServerAccess, once: Once) -> Result<Json<PowerAccepted>> {
    power(&servers, &once, &access, PowerAction::Stop).await
}

/// Restart a server; one that is stopped is started
///
/// Refused with 409 if the server could not start again because its own disk is full: it keeps running.
#[utoipa::path(post, path = "/server/{id}/restart", tag = "servers", operation_id = "restartServer",
    params(("id" = ServerId, Path, description = "The server's id")), responses((status = 200, body = PowerAccepted)))]
async fn restart(State(servers): State<Arc<Servers>>, access: ServerAccess, once: Once) -> Result<Json<PowerAccepted>> {
    power(&servers, &once, &access, PowerAction::Restart).await
}

async fn power(
    servers: &Servers,
    once: &Once,
    access: &ServerAccess,
    power: PowerAction,
) -> Result<Json<PowerAccepted>> {
    Ok(Json(PowerAccepted::new(power.name(), &service::power(&servers.hosts.core, once, access, power).await?)))
}

/// Delete a server with its disks, snapshots and addresses
///
/// Refused with 409 while it is protected, here or on its host.
#[utoipa::path(delete, path = "/server/{id}", tag = "servers", operation_id = "deleteServer",
    params(("id" = ServerId, Path, description = "The server's id")),
    responses((status = 200, body = DeletedServer), (status = 409, body = ErrorBody)))]
async fn delete(State(servers): State<Arc<Servers>>, access: ServerAccess) -> Result<Json<DeletedServer>> {
    Ok(Json(DeletedServer::new(service::delete(&servers.hosts, &access).await?)))
}

/// Generate and set a new root password; it is shown only once
#[utoipa::path(post, path = "/server/{id}/password", tag = "servers", operation_id = "changeServerPassword",
    params(("id" = ServerId, Path, description = "The server's id")),
    responses((status = 200, body = PasswordChanged), (status = 502, body = ErrorBody)))]
async fn password(
    State(servers): State<Arc<Servers>>,
    access: ServerAccess,
    once: Once,
) -> Result<Json<PasswordChanged>> {
    Ok(Json(service::change_password(&servers.hosts, &once, &access).await?.into()))
}

/// A server's operations, newest first
#[utoipa::path(get, path = "/server/{id}/operations", tag = "servers", operation_id = "listServerOperations",
    params(("id" = ServerId, Path, description = "The server's id"), ListSubjectOperations),
    responses((status = 200, body = Page<OperationView>)))]
async fn operations(
    State(servers): State<Arc<Servers>>,
    access: ServerAccess,
    Query(query): Query<ListSubjectOperations>,
) -> Result<Json<Page<OperationView>>> {
    let page = PageQuery { page: query.page, limit: query.limit }.or_after(query.after.as_ref())?;
    let about = subject::subject(access.thing.id);
    let (data, total) = kernel::operations::service::of_subject(
        &servers.hosts.core,
        &access.caller,
        &about,
        query.after,
        page.window(),
    )
    .await?;
    Ok(Json(Page::new(data, total, page).continued(|operation| Place { at: operation.created_at, id: operation.id })))
}
