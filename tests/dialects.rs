//! Another API beside the native one, with habits of its own: every layer takes them from the dialect.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kernel::config::Config;
use kernel::dialect::Dialect;
use kernel::error::{Code, Error};
use kernel::http::auth::AnyCaller;
use kernel::limits::{Allowance, RateClass};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::support::TestApp;
use crate::support::log::expect_error;

/// Tokens as passwords of HTTP Basic, errors as `{status, message}`.
#[derive(Debug)]
struct Tiny;

impl Dialect for Tiny {
    fn mount(&self) -> &'static str {
        "/compat/tiny"
    }

    fn routes(self: Arc<Self>) -> Router {
        Router::new()
            .route("/me", get(async |AnyCaller(caller): AnyCaller| Json(json!({ "account": caller.account }))))
            .route("/searches", get(async || "nothing found"))
            .route("/notes", post(async |body: Bytes| body.len().to_string()))
            .route("/files", post(async |body: Bytes| body.len().to_string()))
            .route("/boxes/{name}/open", post(async |_: AnyCaller| "opened"))
            .route("/doors", post(async || "knocked"))
            .route("/slow", get(std::future::pending::<()>))
    }

    fn token<'a>(&self, request: &'a Parts) -> Option<Cow<'a, str>> {
        let (scheme, shown) = request.headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        let shown = String::from_utf8(BASE64_STANDARD.decode(shown).ok().filter(|_| scheme == "Basic")?).ok()?;
        shown.split_once(':').map(|(_, password)| password.to_owned().into())
    }

    fn sign_in(&self) -> &'static str {
        "Who are you?"
    }

    fn challenge(&self) -> Option<HeaderValue> {
        Some(HeaderValue::from_static("Basic realm=\"tiny\""))
    }

    fn failure(&self, error: &Error, _: Option<&str>) -> Response {
        let status = match error.code {
            Code::TooSlow => StatusCode::GATEWAY_TIMEOUT,
            code => StatusCode::from_u16(code.status()).unwrap(),
        };
        (status, Json(json!({ "status": status.as_u16(), "message": error.message }))).into_response()
    }

    fn rate_class(&self, route: &str) -> RateClass {
        match route {
            "/compat/tiny/searches" => RateClass::Own { class: "tiny-searches", per_minute: 3 },
            _ => RateClass::Shared,
        }
    }

    fn rate_headers(&self, left: &Allowance) -> Vec<(HeaderName, HeaderValue)> {
        vec![(HeaderName::from_static("searches-left"), left.remaining.into())]
    }

    fn body_limit(&self, route: &str) -> usize {
        if route == "/compat/tiny/files" { 1024 * 1024 } else { 1024 }
    }

    fn time_limit(&self, route: &str, _: &Config) -> Duration {
        if route == "/compat/tiny/slow" { Duration::from_millis(10) } else { Duration::from_mins(2) }
    }

    fn is_open(&self, action: &str) -> bool {
        action == "POST /compat/tiny/doors"
    }
}

/// The service with this dialect.
struct Client {
    app: TestApp,
    base: String,
}

impl Client {
    async fn new() -> Self {
        let app = TestApp::new().await;
        let (accounts, features) = (Arc::clone(&app.service.features.accounts), app.service.features.all());
        let router = kernel::http::router(&app.core, accounts, features, &[Arc::new(Tiny)], Router::new());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(
            async move { axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).await },
        );
        Self { app, base }
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.app.nobody.http.get(format!("{}{path}", self.base))
    }

    fn post(&self, path: &str, bytes: usize) -> RequestBuilder {
        self.app.nobody.http.post(format!("{}{path}", self.base)).body(vec![b'x'; bytes])
    }

    fn basic(&self, request: RequestBuilder) -> RequestBuilder {
        request.basic_auth("anybody", self.app.customer.token.as_ref())
    }
}

/// Sends it, and returns the response with its JSON, if it has one.
async fn sent(request: RequestBuilder, status: u16) -> (reqwest::header::HeaderMap, Value) {
    let response = request.send().await.unwrap();
    let (got, headers, text) = (response.status().as_u16(), response.headers().clone(), response.text().await.unwrap());
    assert_eq!(got, status, "{text}");
    (headers, serde_json::from_str(&text).unwrap_or(text.into()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_read_as_each_dialect_shows_them() {
    let client = Client::new().await;
    let (_, me) = sent(client.basic(client.get("/compat/tiny/me")), 200).await;
    assert_eq!(me["account"], client.app.customer_account.0);
    let bearer = client.get("/compat/tiny/me").bearer_auth(client.app.customer.token.as_ref().unwrap());
    let (headers, refused) = sent(bearer, 401).await;
    assert_eq!(headers["www-authenticate"], "Basic realm=\"tiny\"");
    assert_eq!(refused, json!({ "status": 401, "message": "Who are you?" }));
    let (headers, refused) = sent(client.basic(client.get("/api/server")), 401).await;
    assert_eq!(
        (&headers["www-authenticate"], &refused["code"]),
        (&"Bearer".parse().unwrap(), &json!("UNAUTHENTICATED"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_have_the_shape_of_the_dialect_whichever_layer_raised_them() {
    expect_error("TOO_SLOW");
    let client = Client::new().await;
    let (headers, missing) = sent(client.get("/compat/tiny/nothing"), 404).await;
    assert_eq!(missing, json!({ "status": 404, "message": "There is nothing at this address." }));
    assert!(headers.contains_key("x-request-id") && headers["cache-control"] == "no-store");
    sent(client.post("/compat/tiny/me", 0), 405).await.1["message"].as_str().unwrap();
    sent(client.get("/compat/tiny/slow"), 504).await.1["message"].as_str().unwrap();
    for (path, code) in [("/api/nothing", "NOT_FOUND"), ("/compat/nothing", "NOT_FOUND"), ("/compat", "NOT_FOUND")] {
        assert_eq!(sent(client.get(path), 404).await.1["code"], code, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_may_be_as_large_as_its_route_allows() {
    let client = Client::new().await;
    // A caller who is known has their body read early, to be authenticated again after it.
    for known in [false, true] {
        let post = |path, bytes| match known {
            true => client.basic(client.post(path, bytes)),
            false => client.post(path, bytes),
        };
        assert_eq!(sent(post("/compat/tiny/notes", 1024), 200).await.1, 1024);
        let (_, refused) = sent(post("/compat/tiny/notes", 1025), 413).await;
        assert_eq!(refused["message"], "The request body exceeds the limit of 1 KiB.");
        assert_eq!(sent(post("/compat/tiny/files", 1024 * 1024), 200).await.1, 1024 * 1024);
        sent(post("/compat/tiny/files", 1024 * 1024 + 1), 413).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_class_of_requests_has_a_limit_and_headers_of_its_own() {
    let client = Client::new().await;
    let search = || client.get("/compat/tiny/searches");
    for left in ["2", "1", "0"] {
        let (headers, _) = sent(client.basic(search()), 200).await;
        assert_eq!(headers["searches-left"], left);
        assert!(!headers.contains_key("x-ratelimit-limit"));
    }
    let (headers, refused) = sent(client.basic(search()), 429).await;
    assert_eq!(refused["message"], "More than 3 requests per minute. Slow down.");
    assert!(headers.contains_key("retry-after"));
    sent(search(), 200).await;
    sent(client.basic(client.get("/compat/tiny/me")), 200).await;
    client.app.customer.get("/api/server").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_log_has_what_a_route_below_the_mount_is_about() {
    let client = Client::new().await;
    sent(client.basic(client.post("/compat/tiny/boxes/red/open", 0)), 200).await;
    sent(client.post("/compat/tiny/doors", 0), 200).await;
    sent(client.post("/compat/tiny/notes", 0), 200).await;
    let entries = client.app.provider.get("/api/audit").await.expect(200).body["data"].take();
    let seen: Vec<_> =
        entries.as_array().unwrap().iter().map(|e| [&e["action"], &e["subject"], &e["subjectId"]]).collect();
    assert_eq!(
        json!(seen),
        json!([["POST /compat/tiny/doors", "doors", null], ["POST /compat/tiny/boxes/{name}/open", "boxes", "red"]])
    );
}
