//! The layer that counts requests and says how many are left.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::service::{Allowance, Who};
use crate::app::App;
use crate::error::{Code, Error};
use crate::http::ClientAddress;
use crate::http::auth::Identity;

/// Counts what goes to the API; health and figures are not limited.
pub(crate) async fn limit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if !request.uri().path().starts_with("/api/") {
        return next.run(request).await;
    }
    let who = match request.extensions().get::<Identity>() {
        // Access tokens change while a login lives.
        Some(Identity::Somebody(caller)) => Who::Token(caller.session.unwrap_or(caller.token)),
        _ => Who::Address(ClientAddress::of(request.extensions(), request.headers(), &app).network()),
    };
    let allowance = app.limits.count(&app, who).await;
    let mut response = match allowance.fine {
        true => next.run(request).await,
        false => refused(&allowance).into_response(),
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

fn refused(allowance: &Allowance) -> Error {
    Error {
        retry_after: Some(allowance.reset),
        ..Error::new(Code::RateLimited, format!("More than {} requests in a minute. Slow down.", allowance.limit))
    }
}
