//! Server management, played with one server on a real host, from its order to its deletion.

use serde_json::{Value, json};
use watch::monitoring::MonitoringSettings;

use super::stage::Stage;
use crate::support::{Client, Lab, TestApp, ended, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_served_row_answers_as_documented() {
    let app = TestApp::with(|c| c.of::<MonitoringSettings>().sweep_seconds = 1).await;
    let lab = Lab::new(&app.db).await;
    let catalogue = lab.register(&app.provider).await;
    let me = &app.customer;
    let limits = json!({ "maxCores": 4, "maxMemory": 4096, "maxDisk": 80 });
    app.provider.put(&format!("/api/tariffs/{}", catalogue.tariff), limits).await.expect(200);
    let mut stage = Stage::new("server-management", &app.base, &me.http);
    stage.set("token", me.token.as_deref().unwrap());
    stage.set("osId", catalogue.image);
    stage.set("tariffId", catalogue.tariff);

    let created = stage.play("S4").await;
    let id = created["id"].as_i64().unwrap();
    stage.set("serverId", id);
    stage.set("vmid", &created["proxmoxId"]);
    done(me, &created).await;
    stage.play("S1").await;
    stage.play("S2").await;
    // Rates need two sweeps.
    eventually(me, &format!("/api/server/{id}/status"), |s| {
        let data = &s["stats"]["data"];
        data["cpu"].is_number() && data["network"]["in"].is_number()
    })
    .await;
    stage.play("S3").await;
    stage.play("S15").await;

    stage.play("SE1").await;
    let subscribed = stage.play("SE2").await;
    let stats = stage.play("SE4").await;
    // Any running guest uses more than that.
    let rule = json!({ "warning": 0.01, "sustainSeconds": 0 });
    me.put(&format!("/api/server/{id}/alert-rules/memory"), rule).await.expect(200);
    let alerts = stage.play("SE5").await;
    let unsubscribed = stage.play("SE3").await;
    assert!([subscribed, stats, alerts, unsubscribed].iter().all(|seen| seen["serverId"] == id));

    for row in ["S6", "S5", "S7"] {
        done(me, &stage.play(row).await).await;
    }
    stage.play("S9").await;
    for row in ["S10", "S11"] {
        done(me, &stage.play(row).await).await;
    }
    stage.play("S12").await;
    for row in ["S13", "S14", "S8"] {
        done(me, &stage.play(row).await).await;
    }
    stage.all_played();
}

async fn done(me: &Client, answer: &Value) {
    assert_eq!(ended(me, &answer["operationId"]).await["state"], "succeeded", "{answer}");
}
