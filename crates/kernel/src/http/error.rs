//! Errors as responses: every failure has the shape that its dialect gives it, whichever layer raised it, and carries
//! the request id.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use tower_http::request_id::RequestId;

use crate::dialect;
use crate::error::{Code, Error};

/// The body of every failed response.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    /// What happened and what to do about it, for people.
    pub error: String,
    /// What happened, for programs.
    pub code: Code,
    /// Additional details for programs, or null.
    pub details: Option<Value>,
    /// Quote this id to support: the log has the details.
    pub request_id: Option<String>,
}

impl ErrorBody {
    /// The body that reports this error.
    pub fn of(error: &Error, request_id: Option<&str>) -> Self {
        Self {
            error: error.message.clone(),
            code: error.code,
            details: error.details.clone(),
            request_id: request_id.map(str::to_owned),
        }
    }
}

/// Passes the error to `finish`, which knows the request id.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = status(self.code).into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

pub(crate) fn status(code: Code) -> StatusCode {
    StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Turns a caught panic into a 500 like any other, and counts it.
pub(crate) fn from_panic(panic: Box<dyn std::any::Any + Send + 'static>) -> Response {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    metrics::counter!("innkeeper_panics_total").increment(1);
    Error::internal(anyhow::anyhow!("panic: {text}")).into_response()
}

/// Middleware: gives every failed response the body that its dialect has for it, and logs the cause.
pub(crate) async fn finish(request: Request, next: Next) -> Response {
    let request_id =
        request.extensions().get::<RequestId>().and_then(|id| id.header_value().to_str().ok()).map(str::to_owned);
    let path = super::router::truncate(request.uri().path()).into_owned();
    let (dialect, body_limit) = (dialect::of(request.extensions()), dialect::body_limit(request.extensions()));
    let response = next.run(request).await;
    let error = match response.extensions().get::<Arc<Error>>() {
        Some(error) => Arc::clone(error),
        None => match from_other(response.status(), &path, body_limit) {
            Some(error) => Arc::new(error),
            None => return response,
        },
    };
    let (code, told) = (error.code.as_str(), error.message.as_str());
    let cause = error.cause.as_ref().map(|c| format!("{c:#}"));
    match error.code {
        // Hosts have alerts of their own, and reaching a limit is not a failure.
        Code::HostError | Code::HostUnreachable | Code::ResourceUnavailable => {
            tracing::warn!(code, told, cause, "request failed");
        }
        _ if error.code.status() >= 500 => tracing::error!(code, told, cause, "request failed"),
        _ => {}
    }
    let mut answer = dialect.failure(&error, request_id.as_deref());
    // Headers that are already set, such as Allow, are kept.
    for (name, value) in response.headers() {
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
            answer.headers_mut().append(name.clone(), value.clone());
        }
    }
    if let Some(refused) = response.extensions().get::<crate::limits::RateLimited>() {
        answer.extensions_mut().insert(*refused);
    }
    if let Some(after) = error.retry_after {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    }
    if let Some(challenge) = dialect.challenge().filter(|_| error.code == Code::Unauthenticated) {
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    answer
}

/// The error for a body that is larger than `limit` bytes.
pub(super) fn too_large(limit: usize) -> Error {
    Error::new(Code::TooLarge, format!("The request body exceeds the limit of {} KiB.", limit / 1024))
}

/// Failures raised by a layer or the router, without our error type.
fn from_other(status: StatusCode, path: &str, body_limit: usize) -> Option<Error> {
    let (code, message) = match status {
        StatusCode::NOT_FOUND => (Code::NotFound, "There is nothing at this address."),
        StatusCode::METHOD_NOT_ALLOWED => (Code::MethodNotAllowed, "This address does not support that method."),
        StatusCode::REQUEST_TIMEOUT => (Code::Timeout, "The request did not arrive in time."),
        StatusCode::PAYLOAD_TOO_LARGE => return Some(too_large(body_limit)),
        s if s.is_client_error() => (Code::Malformed, "The request could not be read."),
        s if s.is_server_error() => {
            return Some(Error::internal(anyhow::anyhow!("a layer answered {s} on {path}")));
        }
        _ => return None,
    };
    Some(Error::new(code, message))
}
