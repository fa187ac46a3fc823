//! A real guest under real load, seen on a socket and in emails that reach a real mail server.

use std::time::Duration;

use hypervisor::{GuestKind, GuestRef};
use serde_json::json;
use watch::alerts::AlertSettings;
use watch::monitoring::MonitoringSettings;

use crate::support::{Lab, Live, MailServer, TestApp, ended, eventually, wait_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_guest_and_its_recovery_show_on_the_socket_and_in_mails() {
    let mailbox = MailServer::start().await;
    let app = TestApp::with(|c| {
        c.of::<MonitoringSettings>().sweep_seconds = 1;
        c.of::<AlertSettings>().alert_settle_seconds = 1;
        c.smtp = Some(mailbox.settings());
    })
    .await;
    let lab = Lab::new(&app.db).await;
    let catalogue = lab.register(&app.provider).await;
    let created = app.customer.post("/api/server/create", catalogue.order()).await.expect(200).body;
    assert_eq!(ended(&app.customer, &created["operationId"]).await["state"], "succeeded");
    let id = created["id"].as_i64().unwrap();
    let (marker, vmid, node, name): (uuid::Uuid, i64, String, String) =
        sqlx::query_as("select uuid, guest_number, node, name from servers where id = $1")
            .bind(id)
            .fetch_one(&app.db.pool)
            .await
            .unwrap();
    let (driver, guest) = (lab.incus.driver(), GuestRef { marker, vmid, kind: GuestKind::Lxc, node });
    let inside = async |script: &str| {
        let output = driver.exec(&guest, &["sh", "-c", script], b"", Duration::from_secs(30)).await.unwrap();
        assert_eq!(output.status, 0, "{}", String::from_utf8_lossy(&output.stderr));
    };
    let mut live = Live::connected(&app.base, app.customer.token.as_deref().unwrap()).await;
    live.subscribe(id).await;

    // It has finished booting: from here on the load is the test's own.
    let path = format!("/api/server/{id}/status");
    let idle = |s: &serde_json::Value| {
        s["stats"]["data"]["cpu"].as_f64() < Some(0.05) && !s["stats"]["data"]["sampledAt"].is_null()
    };
    eventually(&app.customer, &path, idle).await;
    // On a busy machine it gets only part of its core.
    let rule =
        json!({ "warning": 0.1, "critical": 0.12, "clear": 0.07, "sustainSeconds": 2, "clearSustainSeconds": 2 });
    app.customer.put(&format!("/api/server/{id}/alert-rules/cpu"), rule).await.expect(200);
    inside("while :; do :; done >/dev/null 2>&1 & echo $! >/run/load").await;

    let critical = |a: &serde_json::Value| a["alerts"][0]["type"] == "cpu" && a["alerts"][0]["level"] == "critical";
    let alert = live.find("server-alerts", critical).await["args"][0]["alerts"][0].clone();
    assert!(alert["message"].as_str().unwrap().starts_with("CPU usage is at "), "{alert}");
    let prefix = |word: &str| format!("{word}: {name} (server {id}): CPU usage is at ");
    arrives(&mailbox, &prefix("Alert")).await;

    inside("kill $(cat /run/load)").await;
    live.find("server-alerts", |a| a["alerts"] == json!([])).await;
    arrives(&mailbox, &prefix("Resolved")).await;
    let list = app.customer.get("/api/alerts").await.expect(200).body;
    assert_eq!((&list["total"], &list["data"][0]["ended"]), (&json!(1), &json!("recovered")), "{list}");
    let subjects = mailbox.subjects("customer@example.com");
    assert_eq!(subjects.len(), 3, "ready, alert and recovery: {subjects:?}");
    assert_eq!(mailbox.subjects("provider@example.com"), Vec::<String>::new());
}

async fn arrives(mailbox: &MailServer, subject: &str) {
    wait_for(subject, async || {
        let subjects = mailbox.subjects("customer@example.com");
        if subjects.iter().any(|s| s.starts_with(subject)) { Ok(()) } else { Err(subjects) }
    })
    .await;
}
