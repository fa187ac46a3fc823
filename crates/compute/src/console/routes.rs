//! `POST /api/server/console` (section 15 of the server-management API), the page, and its socket.

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{Redirect, Response};
use axum::routing;
use kernel::auth::{AccessRow, Admission, ClientAddress};
use kernel::error::{Code, Error, Result};
use kernel::http::ErrorBody;
use kernel::http::auth::AnyCaller;
use kernel::http::extract::Json;
use kernel::idempotency::Post;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::OpenConsole;
use super::wire::ConsoleUrl;
use super::{Consoles, page, service, socket};

pub(super) fn routes() -> OpenApiRouter<Arc<Consoles>> {
    OpenApiRouter::new().routes(routes!(open))
}

/// Routes outside of `/api`: those that a browser opens.
pub(super) fn pages() -> OpenApiRouter<Arc<Consoles>> {
    OpenApiRouter::new()
        .routes(routes!(connect))
        .route("/console", routing::get(|| async { Redirect::permanent("/console/") }))
        .route("/console/", routing::get(|| async { page::index() }))
        .route("/console/{*path}", routing::get(|Path(path): Path<String>| async move { page::asset(&path) }))
}

/// Who may call what.
pub(super) const ACCESS: &[AccessRow] = &[
    ("GET", "/console/socket", Admission::Open), // authorised by the ticket in its first message
    ("POST", "/api/server/console", Admission::Owned), // the server is named in the body
];

/// Open a server's console
///
/// The URL in the response is a page with a ticket that works once, within half a minute, from the client address that
/// requested it.
#[utoipa::path(post, path = "/server/console", tag = "servers", operation_id = "openConsole",
    request_body = OpenConsole, responses((status = 200, body = ConsoleUrl), (status = 404, body = ErrorBody)))]
async fn open(
    State(consoles): State<Arc<Consoles>>,
    AnyCaller(caller): AnyCaller,
    ClientAddress(address): ClientAddress,
    Post(once, console): Post<OpenConsole>,
) -> Result<Json<ConsoleUrl>> {
    Ok(Json(service::order(&consoles, &once, &caller, address, console.vmid).await?.into()))
}

/// The console page's WebSocket
///
/// For our own page, whose first message has the ticket. docs/console.md describes the messages.
#[utoipa::path(get, path = "/console/socket", tag = "servers", operation_id = "connectConsole", security(()),
    responses((status = 101, description = "A WebSocket"), (status = 400, body = ErrorBody),
        (status = 403, body = ErrorBody)))]
async fn connect(
    State(consoles): State<Arc<Consoles>>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response> {
    let upgrade = upgrade.map_err(|_| Error::new(Code::Malformed, "This endpoint only accepts WebSockets."))?;
    // Browsers always send the origin of a WebSocket. Other sites' pages have no business here.
    if !headers.get(header::ORIGIN).is_some_and(|origin| consoles.accounts.settings.is_own_origin(origin)) {
        return Err(Error::new(Code::Forbidden, "Consoles can only be opened from our own page."));
    }
    Ok(upgrade
        .max_message_size(socket::MAX_MESSAGE)
        .max_frame_size(socket::MAX_MESSAGE)
        .on_upgrade(move |socket| socket::serve(consoles, address, socket)))
}
