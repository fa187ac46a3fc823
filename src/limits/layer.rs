//! The layers that count requests and say how many are left.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::service::{Allowance, Who};
use crate::app::App;
use crate::error::{Code, Error};
use crate::http::ClientAddress;
use crate::http::auth::Identity;

/// An answer that says no more than that there were too many requests. Each such line in the log would be one that a
/// stranger writes as fast as they can ask.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused;

/// How often the log says that requests are refused.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// Counts every request: with a good token by token and account, else by address. What is not the API's needs no
/// token, and costs the database nothing, so it is counted by address and here.
pub(crate) async fn limit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let address = ClientAddress::of(request.extensions(), request.headers(), &app);
    let path = request.uri().path();
    if !path.starts_with("/api/") {
        let network = address.network();
        let who = if path.starts_with("/health/") { Who::Health(network) } else { Who::Page(network) };
        let allowance = app.limits.count_here(&app, &who);
        return match allowance.fine {
            true => next.run(request).await,
            false => refuse(&allowance, address),
        };
    }
    let allowance = match request.extensions().get::<Identity>() {
        // Access tokens change while a login lives.
        Some(Identity::Somebody(caller)) => {
            let of_token = app.limits.count(&app, Who::Token(caller.session.unwrap_or(caller.token))).await;
            match of_token.fine {
                true => tighter(of_token, app.limits.count(&app, Who::Account(caller.user)).await),
                false => of_token,
            }
        }
        _ => app.limits.count_stranger(&app, address).await,
    };
    let mut response = match allowance.fine {
        true => next.run(request).await,
        false => refuse(&allowance, address),
    };
    for (name, value) in [
        ("x-ratelimit-limit", allowance.limit),
        ("x-ratelimit-remaining", allowance.remaining),
        ("x-ratelimit-reset", allowance.reset.as_secs()),
    ] {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from(value));
    }
    response
}

/// Of two that both hold, the one that ends first.
fn tighter(one: Allowance, other: Allowance) -> Allowance {
    if !other.fine || other.remaining < one.remaining { other } else { one }
}

fn refuse(allowance: &Allowance, address: ClientAddress) -> Response {
    note(address);
    let error = Error {
        retry_after: Some(allowance.reset),
        ..Error::new(Code::RateLimited, format!("More than {} requests in a minute. Slow down.", allowance.limit))
    };
    let mut response = error.into_response();
    response.extensions_mut().insert(Refused);
    response
}

/// Says now and then that requests are refused, and how many were.
fn note(address: ClientAddress) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static SAID: Mutex<Option<Instant>> = Mutex::new(None);
    COUNT.fetch_add(1, Ordering::Relaxed);
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.is_none_or(|at| at.elapsed() >= SAID_EVERY) {
        *said = Some(Instant::now());
        let refused = COUNT.swap(0, Ordering::Relaxed);
        tracing::info!(refused, latest = %address.0, "requests over their limits were refused");
    }
}

/// Stands before the live view, which has no other layer: a session that is begun costs memory before anybody has shown
/// a token.
pub(crate) async fn admit_sockets(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if !crate::realtime::is_for_sockets(request.uri().path()) {
        return next.run(request).await;
    }
    let address = ClientAddress::of(request.extensions(), request.headers(), &app);
    let network = address.network();
    // Just as the protocol reads it.
    let begins = !request.uri().query().is_some_and(|query| query.split('&').any(|part| part.starts_with("sid=")));
    let who = if begins { Who::Handshake(network.clone()) } else { Who::Polling(network.clone()) };
    let allowance = app.limits.count_here(&app, &who);
    let wait = match allowance.fine {
        false => Some((StatusCode::TOO_MANY_REQUESTS, allowance.reset)),
        true if begins && !app.gate.enter(&network) => Some((StatusCode::SERVICE_UNAVAILABLE, Duration::from_secs(5))),
        true => None,
    };
    let Some((status, wait)) = wait else { return next.run(request).await };
    note(address);
    let wait = HeaderValue::from(wait.as_secs().max(1));
    (status, [(header::RETRY_AFTER, wait)], "Too many connections are begun from here. Slow down.").into_response()
}
