//! The router: every feature's routes, and the layers that every request passes.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_request};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, RequestId, SetRequestIdLayer};
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tower_http::trace::TraceLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use super::native::{self, Native, Outside};
use super::rights::Authentication;
use super::{carry, error, health, openapi, rights};
use crate::audit;
use crate::auth::Authenticator;
use crate::core::Core;
use crate::dialect::{self, Dialect};
use crate::feature::Feature;
use crate::limits;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Every route of these features with its documentation.
pub fn routes(core: &Arc<Core>, features: &[Arc<dyn Feature>]) -> OpenApiRouter {
    let (outside, api) = parts(core, features);
    let mut routes = outside.merge(api);
    openapi::complete(routes.get_openapi_mut());
    routes
}

/// What is outside of all APIs, and the native API.
fn parts(core: &Arc<Core>, features: &[Arc<dyn Feature>]) -> (OpenApiRouter, OpenApiRouter) {
    let mut outside = OpenApiRouter::with_openapi(openapi::Document::openapi()).merge(health::routes(core, features));
    let mut api = OpenApiRouter::new().fallback(not_found);
    for feature in features {
        outside = outside.merge(Arc::clone(feature).pages());
        api = api.merge(Arc::clone(feature).routes());
    }
    (outside, OpenApiRouter::new().nest(native::MOUNT, api))
}

async fn not_found() -> StatusCode {
    StatusCode::NOT_FOUND
}

/// The whole service as one router. `more` are routes of the native API that are not in the document: tests have some
/// that fail as ours don't.
pub fn router(
    core: &Arc<Core>,
    authenticator: Arc<dyn Authenticator>,
    features: &[Arc<dyn Feature>],
    dialects: &[Arc<dyn Dialect>],
    more: Router,
) -> Router {
    let (outside, api) = parts(core, features);
    let ((outside, mut document), (api, of_api)) = (outside.split_for_parts(), api.split_for_parts());
    document.merge(of_api);
    openapi::complete(&mut document);
    let native = Arc::new(Native::new(&document));
    let api = api.merge(more).merge(SwaggerUi::new("/api/docs").url("/api/openapi.json", document));
    let doors = Authentication { core: Arc::clone(core), authenticator };
    let layers = ServiceBuilder::new()
        .layer(map_request(drop_unreadable_request_id))
        .layer(SetRequestIdLayer::new(REQUEST_ID, MakeRequestUuid))
        .layer(SetSensitiveRequestHeadersLayer::new([header::AUTHORIZATION, header::COOKIE]))
        .layer(TraceLayer::new_for_http().make_span_with(span).on_response(log_response))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(from_fn(count))
        .layer(from_fn(security_headers))
        .layer(from_fn(error::finish))
        .layer(Extension(Arc::clone(core)))
        .layer(from_fn_with_state(doors.clone(), rights::identify))
        .layer(from_fn_with_state(Arc::clone(core), limits::limit))
        .layer(from_fn_with_state(Arc::clone(core), carry::limit_time))
        .layer(from_fn_with_state(Arc::clone(core), audit::watch))
        .layer(CatchPanicLayer::custom(error::from_panic))
        .layer(from_fn_with_state(doors, rights::reauthenticate))
        .layer(map_request(limit_body));
    // The layers ask the dialect, so it is outside of them.
    let serve = |routes: Router, dialect: Arc<dyn Dialect>| routes.layer(layers.clone()).layer(Extension(dialect));
    let all_features = Arc::<[_]>::from(features);
    let elsewhere = move |request: Parts| async move {
        let shown = all_features.iter().find_map(|feature| feature.fallback(&request));
        shown.unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
    };
    let mut all = serve(outside.fallback(elsewhere), Arc::new(Outside)).merge(serve(api, native));
    for dialect in dialects {
        let routes = Arc::clone(dialect).routes().fallback(not_found);
        all = all.merge(serve(Router::new().nest(dialect.mount(), routes), Arc::clone(dialect)));
    }
    features.iter().fold(all, |router, feature| Arc::clone(feature).wrap(router))
}

async fn limit_body(mut request: Request) -> Request {
    DefaultBodyLimit::max(dialect::body_limit(request.extensions())).apply(&mut request);
    request
}

/// Keeps a client's own request id if it is short and plain; other requests get one of ours.
async fn drop_unreadable_request_id(mut request: Request) -> Request {
    let fine =
        |v: &HeaderValue| v.len() <= 64 && v.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b));
    if !request.headers().get(REQUEST_ID).is_none_or(fine) {
        request.headers_mut().remove(REQUEST_ID);
    }
    request
}

fn span(request: &Request) -> tracing::Span {
    let id = request.extensions().get::<RequestId>().and_then(|id| id.header_value().to_str().ok()).unwrap_or_default();
    // Only the path: a query may hold what does not belong in a log.
    let (method, path) = (truncate(request.method().as_str()), truncate(request.uri().path()));
    tracing::info_span!("request", id, %method, %path)
}

/// Shortens text for the log, which clients must not be able to fill with long requests.
pub(super) fn truncate(text: &str) -> Cow<'_, str> {
    const MOST: usize = 200;
    match text.len() {
        0..=MOST => text.into(),
        length => format!("{}… ({length} bytes)", &text[..text.floor_char_boundary(MOST)]).into(),
    }
}

fn log_response(response: &Response, latency: Duration, _span: &tracing::Span) {
    // Refusals are counted and logged in one line.
    if response.extensions().get::<limits::RateLimited>().is_some() {
        return;
    }
    tracing::info!(status = response.status().as_u16(), ms = latency.as_secs_f64() * 1e3, "answered");
}

/// Counts and times requests by route, not by path: the number of series must not grow with the servers.
async fn count(request: Request, next: Next) -> Response {
    let route = match dialect::route(request.extensions()) {
        "" => "none".to_owned(),
        route => route.to_owned(),
    };
    // HTTP allows any token as a method; a series for each would let clients use up our memory.
    let method = match request.method().as_str() {
        known @ ("GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "HEAD" | "OPTIONS") => known.to_owned(),
        _ => "other".to_owned(),
    };
    let start = std::time::Instant::now();
    let response = next.run(request).await;
    let labels = [("route", route), ("method", method), ("status", response.status().as_u16().to_string())];
    metrics::counter!("innkeeper_http_requests_total", &labels).increment(1);
    metrics::histogram!("innkeeper_http_request_seconds", &labels[..2]).record(start.elapsed().as_secs_f64());
    response
}

/// Sets headers that keep browsers from sniffing content types, framing, and caching private data.
async fn security_headers(request: Request, next: Next) -> Response {
    let cacheable = dialect::of(request.extensions()).is_cacheable(request.uri().path());
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if !cacheable {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}
