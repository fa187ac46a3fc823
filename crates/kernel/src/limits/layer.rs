//! The middleware that enforces rate limits and reports how much is left.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::service::{Allowance, LimitKey};
use crate::auth::ClientAddress;
use crate::core::Core;
use crate::error::{Code, Error};
use crate::http::auth::RequestIdentity;

/// Marks a response that only reports a rate limit. Such requests are not logged one by one: otherwise an anonymous
/// client could fill the log as fast as it can send.
#[derive(Debug, Clone, Copy)]
pub struct RateLimited;

/// How often the log reports refused requests.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// Counts every request: by token and account if the token is valid, else by address. Paths outside the API need no
/// token and cost no database query, so they are counted by address, in this process only.
pub async fn limit(State(core): State<Arc<Core>>, request: Request, next: Next) -> Response {
    let address = ClientAddress::of(request.extensions(), request.headers(), &core);
    let path = request.uri().path();
    if !path.starts_with("/api/") {
        let network = address.network();
        let who = if path.starts_with("/health/") { LimitKey::Health(network) } else { LimitKey::Page(network) };
        let allowance = core.limits.count_locally(&core, &who);
        return match allowance.fine {
            true => next.run(request).await,
            false => refuse(&allowance, address),
        };
    }
    let allowance = match request.extensions().get::<RequestIdentity>() {
        // The access token changes during a session.
        Some(RequestIdentity::Somebody(caller)) => {
            let of_token = core.limits.count(&core, LimitKey::Token(caller.session.unwrap_or(caller.token))).await;
            match of_token.fine {
                true => tighter(of_token, core.limits.count(&core, LimitKey::Account(caller.user)).await),
                false => of_token,
            }
        }
        _ => core.limits.count_unauthenticated(&core, address).await,
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

/// Of two limits that both apply, the one that is reached first.
fn tighter(one: Allowance, other: Allowance) -> Allowance {
    if !other.fine || other.remaining < one.remaining { other } else { one }
}

fn refuse(allowance: &Allowance, address: ClientAddress) -> Response {
    log_refusal(address);
    let error = Error {
        retry_after: Some(allowance.reset),
        ..Error::new(Code::RateLimited, format!("More than {} requests per minute. Slow down.", allowance.limit))
    };
    let mut response = error.into_response();
    response.extensions_mut().insert(RateLimited);
    response
}

/// Logs from time to time how many requests were refused.
pub fn log_refusal(address: ClientAddress) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static SAID: Mutex<Option<Instant>> = Mutex::new(None);
    COUNT.fetch_add(1, Ordering::Relaxed);
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.is_none_or(|at| at.elapsed() >= SAID_EVERY) {
        *said = Some(Instant::now());
        let refused = COUNT.swap(0, Ordering::Relaxed);
        tracing::info!(refused, latest = %address.0, "requests over their rate limits were refused");
    }
}
