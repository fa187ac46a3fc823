//! Admission control in front of the live view, which no other layer covers: a new session uses memory before it has
//! sent a token.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use kernel::auth::ClientAddress;
use kernel::limits::{LimitKey, log_refusal};

use super::sockets::Hub;

/// Whether a request is for the live view: these are the paths that Socket.IO handles.
fn is_for_sockets(path: &str) -> bool {
    path.strip_prefix("/socket.io").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Limits requests to the live view by address, and sessions that have not signed in.
pub(super) async fn admit(State(hub): State<Arc<Hub>>, request: Request, next: Next) -> Response {
    let core = &hub.core;
    if !is_for_sockets(request.uri().path()) {
        return next.run(request).await;
    }
    let address = ClientAddress::of(request.extensions(), request.headers(), core);
    let network = address.network();
    // Parsed exactly as the protocol does.
    let begins = !request.uri().query().is_some_and(|query| query.split('&').any(|part| part.starts_with("sid=")));
    let who = if begins { LimitKey::Handshake(network.clone()) } else { LimitKey::Polling(network.clone()) };
    let allowance = core.limits.count_locally(core, &who);
    let wait = match allowance.fine {
        false => Some((StatusCode::TOO_MANY_REQUESTS, allowance.reset)),
        true if begins && !hub.gate.enter(&network) => Some((StatusCode::SERVICE_UNAVAILABLE, Duration::from_secs(5))),
        true => None,
    };
    let Some((status, wait)) = wait else { return next.run(request).await };
    log_refusal(address);
    let wait = HeaderValue::from(wait.as_secs().max(1));
    (status, [(header::RETRY_AFTER, wait)], "Too many connections from this address. Slow down.").into_response()
}
