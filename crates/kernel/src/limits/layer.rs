//! The middleware that enforces rate limits and reports how much is left.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::service::{Allowance, LimitKey, RateClass};
use crate::auth::ClientAddress;
use crate::core::Core;
use crate::dialect;
use crate::error::{Code, Error};
use crate::http::auth::RequestIdentity;

/// Marks a response that only reports a rate limit. Such requests are not logged one by one: otherwise an anonymous
/// client could fill the log as fast as it can send.
#[derive(Debug, Clone, Copy)]
pub struct RateLimited;

/// How often the log reports refused requests.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// Counts every request against the class that its dialect puts it in.
pub async fn limit(State(core): State<Arc<Core>>, request: Request, next: Next) -> Response {
    let address = ClientAddress::of(request.extensions(), request.headers(), &core);
    let caller = match request.extensions().get::<RequestIdentity>() {
        Some(RequestIdentity::Somebody(caller)) => Some(caller),
        _ => None,
    };
    let (dialect, limits) = (dialect::of(request.extensions()), &core.limits);
    let class = dialect.rate_class(dialect::route(request.extensions()));
    let allowance = match (class, caller) {
        (RateClass::Local(class), _) => limits.count_locally(&core, &LimitKey::Local(class, address.network())),
        // The access token changes during a session.
        (RateClass::Shared, Some(caller)) => {
            let of_token = limits.count(&core, LimitKey::Token(caller.session.unwrap_or(caller.token))).await;
            match of_token.fine {
                true => tighter(of_token, limits.count(&core, LimitKey::Account(caller.account)).await),
                false => of_token,
            }
        }
        (RateClass::Own { .. }, Some(caller)) => {
            limits.count(&core, LimitKey::Account(caller.account).in_class(class)).await
        }
        (_, None) => {
            let who = LimitKey::Address(address.network()).in_class(class);
            limits.count_unauthenticated(&core, address, who).await
        }
    };
    let mut response = match allowance.fine {
        true => next.run(request).await,
        false => refuse(&allowance, address),
    };
    if !matches!(class, RateClass::Local(_)) {
        response.headers_mut().extend(dialect.rate_headers(&allowance));
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
