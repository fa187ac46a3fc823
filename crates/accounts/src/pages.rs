//! The pages that links open, in confirmation emails and for staff: small enough to be compiled into the program.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use utoipa_axum::router::OpenApiRouter;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// Pages outside of `/api`, for browsers.
pub(super) fn pages() -> OpenApiRouter {
    let page = |kind, text| get(move || async move { file(kind, text) });
    OpenApiRouter::new()
        .route("/confirm", get(|| async { Redirect::permanent("/confirm/") }))
        .route("/confirm/", page("text/html; charset=utf-8", include_str!("../../../web/confirm/index.html")))
        .route(
            "/confirm/confirm.js",
            page("text/javascript; charset=utf-8", include_str!("../../../web/confirm/confirm.js")),
        )
        .route(
            "/confirm/confirm.css",
            page("text/css; charset=utf-8", include_str!("../../../web/confirm/confirm.css")),
        )
        .route("/login-link", get(|| async { Redirect::permanent("/login-link/") }))
        .route("/login-link/", page("text/html; charset=utf-8", include_str!("../../../web/login-link/index.html")))
        .route(
            "/login-link/login-link.js",
            page("text/javascript; charset=utf-8", include_str!("../../../web/login-link/login-link.js")),
        )
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let mut response = text.into_response();
    for (name, value) in
        [(header::CONTENT_TYPE, kind), (header::CONTENT_SECURITY_POLICY, POLICY), (header::CACHE_CONTROL, "no-cache")]
    {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
