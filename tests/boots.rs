//! Servers that don't boot: their hosts only say that they are stopped. On real containers.

use std::time::Duration;

use hypervisor::{GuestKind, GuestRef};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Lab, TestApp, ended};

/// Replaces a guest's init with one that prints a line and exits.
const BREAK: &str =
    "rm /sbin/init && printf '#!/bin/sh\\necho no room for the manager\\n' >/sbin/init && chmod 755 /sbin/init";
const TOLD: &str = "The server was started, but stopped again at once.";

/// Checks what the customer and the provider see of an operation that failed.
async fn told(app: &TestApp, operation: &Value) {
    let seen = ended(&app.customer, operation).await;
    assert_eq!(seen["state"], "failed", "{seen}");
    assert_eq!((&seen["error"]["code"], &seen["error"]["message"]), (&json!("HOST_ERROR"), &json!(TOLD)), "{seen}");
    assert!(!seen.to_string().contains("no room"), "{seen}");
    let path = format!("/api/operations/{}", operation.as_str().unwrap());
    let seen = app.provider.get(&path).await.expect(200).body;
    assert!(seen.to_string().contains("no room for the manager"), "{seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_boot_is_reported_with_the_guest_s_last_output() {
    let app = TestApp::new().await;
    let lab = Lab::new(&app.db).await;
    let catalogue = lab.register(&app.provider).await;
    let server = app.customer.post("/api/server/create", catalogue.order()).await.expect(200).body;
    assert_eq!(ended(&app.customer, &server["operationId"]).await["state"], "succeeded");
    let path = format!("/api/server/{}", server["id"]);
    let (marker, vmid): (Uuid, i64) =
        sqlx::query_as("select uuid, guest_number from servers").fetch_one(&app.db.pool).await.unwrap();
    let guest = GuestRef { marker, vmid, kind: GuestKind::Lxc, node: String::new() };
    let broken = lab.incus.driver().exec(&guest, &["sh", "-c", BREAK], b"", Duration::from_secs(60)).await.unwrap();
    assert_eq!(broken.status, 0, "{broken:?}");

    for kind in ["restart", "start"] {
        // The answer may already be the failure.
        app.customer.post(&format!("{path}/{kind}"), None).await;
        let last = app.customer.get(&format!("{path}/operations?limit=1")).await.expect(200).body["data"][0].clone();
        assert_eq!(last["kind"], kind);
        told(&app, &last["id"]).await;
        assert_eq!(app.customer.get(&path).await.expect(200).body["status"], "stopped", "{kind}");
    }

    // An order from an image whose guests don't boot leaves nothing behind.
    let alias = publish(&lab, vmid).await;
    let image = app
        .provider
        .post(
            "/api/images",
            json!({ "name": "Broken", "type": "linux", "kind": "lxc",
                    "sources": [{ "hostId": catalogue.host, "source": alias }] }),
        )
        .await
        .expect(201)
        .body;
    let mut order = catalogue.order();
    order["osId"] = image["id"].clone();
    let ordered = app.customer.post("/api/server/create", order).await.expect(200).body;
    ended(&app.customer, &ordered["operationId"]).await;
    incus(&lab, reqwest::Method::DELETE, &format!("images/{}", fingerprint(&lab, &alias).await), Value::Null).await;
    told(&app, &ordered["operationId"]).await;
    assert_eq!(lab.guests().await, 1);
}

/// Makes an image of a stopped guest, under its own alias.
async fn publish(lab: &Lab, vmid: i64) -> String {
    let alias = format!("broken-{vmid}");
    let body = json!({ "source": { "type": "instance", "name": format!("ink-{vmid}") },
                       "aliases": [{ "name": alias }], "compression_algorithm": "none" });
    let made = incus(lab, reqwest::Method::POST, "images", body).await;
    let operation = made["metadata"]["id"].as_str().unwrap().to_owned();
    let ended =
        incus(lab, reqwest::Method::GET, &format!("operations/{operation}/wait?timeout=300"), Value::Null).await;
    assert_eq!(ended["metadata"]["status_code"], 200, "{ended}");
    alias
}

async fn fingerprint(lab: &Lab, alias: &str) -> String {
    let found = incus(lab, reqwest::Method::GET, &format!("images/aliases/{alias}"), Value::Null).await;
    found["metadata"]["target"].as_str().unwrap().to_owned()
}

/// Calls the test Incus directly.
async fn incus(lab: &Lab, method: reqwest::Method, path: &str, body: Value) -> Value {
    let client = reqwest::Client::builder().unix_socket(lab.incus.socket.as_str()).build().unwrap();
    let mut url = reqwest::Url::parse("http://incus/1.0/").unwrap().join(path).unwrap();
    url.query_pairs_mut().append_pair("project", &lab.incus.project);
    client.request(method, url).json(&body).send().await.unwrap().json().await.unwrap()
}
