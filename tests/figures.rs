//! What `/metrics` tells Prometheus, checked by Prometheus' own tool, which scripts/promtool.sh installs.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;
use watch::monitoring::MonitoringSettings;

use crate::support::{Lab, Live, TestApp, ended, eventually, sources, wait_for};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Fails with the output of `promtool check metrics`; there should be none.
#[track_caller]
fn check(page: &str) {
    let mut tool = Command::new(format!("{ROOT}/target/promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs; `make test` installs it with scripts/promtool.sh");
    tool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && said.is_empty(), "promtool says:\n{said}\nof:\n{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promtool_accepts_the_metrics_of_a_busy_service() {
    let app = TestApp::with(|c| c.of::<MonitoringSettings>().sweep_seconds = 1).await.running("mail");
    let lab = Lab::new(&app.db).await;
    let catalogue = lab.register(&app.provider).await;
    let away = json!({ "name": "a \"host\"\\", "kind": "incus", "config": { "socket": "/nowhere" }, "force": true });
    app.provider.post("/api/hosts", away).await.expect(201);
    let live = Live::connected(&app.base, app.customer.token.as_deref().unwrap()).await;
    let server = app.customer.post("/api/server/create", catalogue.order()).await.expect(200).body;
    let operation = ended(&app.customer, &server["operationId"]).await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    let path = format!("/api/server/{}/status", server["id"]);
    eventually(&app.customer, &path, |s| s["stats"]["data"]["memory"]["used"].as_i64() > Some(0)).await;

    let wanted = [
        "innkeeper_http_requests_total{",
        "innkeeper_http_request_seconds_bucket{",
        "innkeeper_operations_total{",
        "innkeeper_sweep_seconds_bucket{",
        "innkeeper_sweep_failures_total{",
        "innkeeper_guests{",
        "innkeeper_sockets ",
        "innkeeper_mails_total{",
        "innkeeper_host_up{",
        "innkeeper_guest_memory_usage_bytes{",
    ];
    let page = wait_for("every metric", async || {
        let page = app.figures().await;
        let missing: Vec<_> = wanted.iter().filter(|name| !page.lines().any(|l| l.starts_with(**name))).collect();
        if missing.is_empty() { Ok(page) } else { Err(format!("without {missing:?}: {page}")) }
    })
    .await;
    drop(live);
    check(&page);
}

/// Some metrics are touched by no test: every metric that is recorded anywhere is described, and no other.
#[test]
fn every_metric_has_a_help_text() {
    let (mut counted, mut described) = (BTreeSet::new(), BTreeMap::new());
    for (_, text) in sources(&["src", "crates"]) {
        let source: String = text.split_whitespace().collect();
        for kind in ["counter", "gauge", "histogram"] {
            let names = |macro_name: String| {
                let before = format!("{macro_name}!(\"");
                let names = source.split(&before).skip(1);
                names.map(|rest| rest.split('"').next().unwrap().to_owned()).collect::<Vec<_>>()
            };
            counted.extend(names(format!("metrics::{kind}")).into_iter().map(|name| (name, kind)));
            described.extend(names(format!("describe_{kind}")).into_iter().map(|name| (name, kind)));
        }
    }
    assert!(counted.len() > 10, "{counted:?}");
    assert_eq!(counted, described.into_iter().collect(), "each metric is described by the feature that records it");
}

/// Metrics are closed by default: a proxy on the same machine would let everybody in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_closed_without_a_token_or_a_listener_of_their_own() {
    let closed = TestApp::with(|c| c.metrics_token = None).await;
    closed.nobody.get("/metrics").await.expect(404);
    closed.nobody.with_token("").get("/metrics").await.expect(404);
    closed.provider.get("/metrics").await.expect(404);

    let port = crate::support::relay::Port::new();
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], port.number()));
    let open = TestApp::with(|c| c.metrics_listen = Some(at)).await;
    open.nobody.get("/metrics").await.expect(404);
    open.nobody.with_token("not the token of figures").get("/metrics").await.expect(404);
    assert!(open.figures().await.contains("innkeeper_http_requests_total{"));
    let there = crate::support::Client::new(&format!("http://{at}"), None);
    assert!(there.get("/metrics").await.expect(200).text.contains("innkeeper_http_requests_total{"));
    for other in ["/api/server", "/health/live", "/"] {
        there.get(other).await.expect(404);
    }
}
