//! The closed list of errors and its page; and panics, which are reported like any other error.

use axum::Router;
use axum::routing::{get, post};
use kernel::error::Code;
use serde_json::{Value, json};

use crate::support::app::METRICS_TOKEN;
use crate::support::{Client, TestApp, expect_error};

/// Every code is on the page with its status, its meaning and whether to retry; and the page has no others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_errors_page_lists_exactly_our_codes() {
    let app = TestApp::new().await;
    let document = app.nobody.get("/api/openapi.json").await.expect(200).body;
    let codes: Vec<&str> = document["components"]["schemas"]["Code"]["enum"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c.as_str().unwrap())
        .collect();
    let mut rows = vec![];
    for line in include_str!("../docs/errors.md").lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [code, status, meaning, retry] = cells[..] else { panic!("{line}") };
        let code = code.trim_matches('`');
        let known: Code = serde_json::from_value(json!(code)).unwrap_or_else(|_| panic!("{code} is not our code"));
        assert_eq!((known.as_str(), known.status().to_string().as_str()), (code, status));
        assert!(meaning.len() > 8 && retry.len() >= 3, "{line}");
        rows.push(code);
    }
    assert_eq!(rows, codes);
}

/// Every reference in the document resolves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reference_in_the_openapi_document_resolves() {
    let app = TestApp::new().await;
    let document = app.nobody.get("/api/openapi.json").await.expect(200).body;
    fn walk(document: &Value, value: &Value, found: &mut usize) {
        if let Some(path) = value["$ref"].as_str() {
            assert!(document.pointer(path.trim_start_matches('#')).is_some(), "{path}");
            *found += 1;
        }
        match value {
            Value::Object(fields) => fields.values().for_each(|value| walk(document, value, found)),
            Value::Array(values) => values.iter().for_each(|value| walk(document, value, found)),
            _ => {}
        }
    }
    let mut found = 0;
    walk(&document, &document, &mut found);
    assert!(found > 100, "{found}");
}

/// A client of the service with additional routes, served until the test ends.
async fn with_routes(app: &TestApp, routes: Router) -> Client {
    let router = app.service.router(routes);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        axum::serve(listener, router.into_make_service_with_connect_info::<std::net::SocketAddr>()).await
    });
    Client { base, ..app.customer.clone() }
}

async fn panics() -> &'static str {
    panic!("as planned")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_is_a_500_with_a_request_id_and_is_counted() {
    let app = TestApp::new().await;
    expect_error("as planned");
    let routes = Router::new().route("/api/panic", get(panics)).route("/api/panic/{id}", post(panics));
    let there = with_routes(&app, routes).await;
    let count = async || -> u64 {
        let figures = there.with_token(METRICS_TOKEN).get("/metrics").await.expect(200).text;
        let line = figures.lines().find(|line| line.starts_with("innkeeper_panics_total"));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
    };
    let before = count().await;
    let answer = there.get("/api/panic").await.expect(500);
    assert_eq!(answer.code(), "INTERNAL");
    assert_eq!(answer.body["requestId"], answer.headers["x-request-id"].to_str().unwrap());
    assert!(!answer.text.contains("planned"), "the reason belongs in the log: {}", answer.text);
    assert!(count().await > before);
    // A panic that may have changed something is in the audit log, with an end.
    there.post("/api/panic/7", None).await.expect(500);
    let entry = app.provider.get("/api/audit?limit=1").await.expect(200).body["data"][0].clone();
    assert_eq!(
        (&entry["code"], &entry["subject"], &entry["subjectId"]),
        (&json!("INTERNAL"), &json!("panic"), &json!("7"))
    );
    app.customer.get("/api/server").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_past_its_time_limit_is_a_503() {
    expect_error("TOO_SLOW");
    let app = TestApp::with(|c| c.request_seconds = 1).await;
    let there = with_routes(&app, Router::new().route("/api/slow", get(std::future::pending::<()>))).await;
    let answer = there.get("/api/slow").await.expect(503);
    assert_eq!(answer.code(), "TOO_SLOW");
    assert!(answer.headers.contains_key("retry-after"));
}
