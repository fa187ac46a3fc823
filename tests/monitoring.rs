//! Sweeps of real guests: what is stored, what is shown, and what is left alone.

use hypervisor::{GuestKind, GuestRef, StopMode};
use serde_json::{Value, json};
use watch::monitoring::MonitoringSettings;

use crate::live;
use crate::support::child::Service;
use crate::support::lab::finish;
use crate::support::{Lab, Live, TestApp, ended, eventually, wait_for, wait_for_sql};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_notices_outside_changes_and_removes_nothing() {
    let app = TestApp::with(|c| c.of::<MonitoringSettings>().sweep_seconds = 1).await;
    let lab = Lab::new(&app.db).await;
    let catalogue = lab.register(&app.provider).await;
    let order = json!({ "osId": catalogue.image, "tariffId": catalogue.tariff });
    let server = app.customer.post("/api/server/create", order).await.expect(200).body;
    assert_eq!(ended(&app.customer, &server["operationId"]).await["state"], "succeeded");
    let id = server["id"].as_i64().unwrap();
    let path = format!("/api/server/{id}/status");
    let mut live = Live::connected(&app.base, app.customer.token.as_deref().unwrap()).await;
    live.subscribe(id).await;

    let up = eventually(&app.customer, &path, |s| s["stats"]["data"]["memory"]["used"].as_i64() > Some(0)).await;
    let data = &up["stats"]["data"];
    assert_eq!((&up["status"], &data["status"]), (&json!("running"), &json!("running")));
    assert_eq!(data["vmid"], server["proxmoxId"]);
    assert_eq!(data["memory"]["max"], 256 * 1024 * 1024);
    assert!(data["age"].as_i64() >= Some(0), "{data}");
    assert!(data["sampledAt"].is_string() && data["uptime"].as_i64() >= Some(0), "{data}");
    eventually(&app.customer, &path, |s| s["stats"]["data"]["rrdData"].as_array().is_some_and(|p| p.len() >= 2)).await;
    live.find("server-stats", |s| s["stats"]["data"]["memory"]["used"].as_i64() > Some(0)).await;
    let figures = app.figures().await;
    for line in [
        format!("innkeeper_guest_up{{id=\"{id}\"}} 1\n"),
        format!("innkeeper_guest_memory_size_bytes{{id=\"{id}\"}} {}\n", 256 << 20),
        "innkeeper_host_up{host=\"lab\"} 1\n".to_owned(),
    ] {
        assert!(figures.contains(&line), "{line} is missing in {figures}");
    }
    let info = figures.lines().find(|l| l.starts_with("innkeeper_guest_info{")).unwrap();
    assert!(
        info.contains(&format!("vmid=\"{}\"", server["proxmoxId"])) && info.contains("status=\"running\""),
        "{info}"
    );
    let chart = app.customer.get(&format!("/api/server/{id}/metrics?step=5")).await.expect(200).body;
    // The first point may be from before the guest ran.
    let points = chart["points"].as_array().unwrap();
    assert!(points.iter().any(|p| p["memory"]["max"].as_f64() > Some(0.0)), "{chart}");

    // Stopped, then deleted, by somebody using other tools.
    let (marker, number, node): (uuid::Uuid, i64, String) =
        sqlx::query_as("select uuid, guest_number, node from servers where id = $1")
            .bind(id)
            .fetch_one(&app.db.pool)
            .await
            .unwrap();
    let guest = GuestRef { marker, vmid: number, kind: GuestKind::Lxc, node };
    let driver = lab.incus.driver();
    finish(&*driver, driver.stop(&guest, StopMode::Force).await).await.unwrap();
    let down = eventually(&app.customer, &path, |s| s["status"] == "stopped").await;
    assert_eq!((&down["stats"]["data"]["cpu"], &down["stats"]["data"]["memory"]["used"]), (&json!(0.0), &json!(0)));
    live.find("server-stats", |s| s["stats"]["data"]["status"] == "stopped").await;
    finish(&*driver, driver.delete(&guest).await).await.unwrap();
    eventually(&app.customer, &path, |s| s["status"] == "unknown").await;
    let held: i64 = sqlx::query_scalar("select count(*) from addresses where server_id = $1")
        .bind(id)
        .fetch_one(&app.db.pool)
        .await
        .unwrap();
    assert_eq!(held, 1, "a guest that is not seen keeps its address");

    // An unreachable host changes nothing.
    let host = format!("/api/hosts/{}", catalogue.host);
    let config = json!({ "socket": "/nowhere.sock", "project": lab.incus.project, "storagePool": lab.incus.pool });
    app.provider.put(&host, json!({ "config": config, "force": true })).await.expect(200);
    eventually(&app.provider, &host, |h| h["lastError"].is_string()).await;
    // A sweep that began earlier may still report: the second failure began after it had ended.
    wait_for_sql(&app.db.pool, "two failed sweeps", "select sweep_failures >= 2 from hosts", true).await;
    sqlx::query("update hosts set last_error = null").execute(&app.db.pool).await.unwrap();
    sqlx::query("update servers set status = 'running' where id = $1").bind(id).execute(&app.db.pool).await.unwrap();
    eventually(&app.provider, &host, |h| h["lastError"].is_string()).await;
    assert_eq!(app.customer.get(&path).await.expect(200).body["status"], "running");
}

/// A failing host is swept half as often, however many processes there are, and at the usual rate once it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_host_is_swept_half_as_often() {
    let app = TestApp::with(|c| c.of::<MonitoringSettings>().sweep_seconds = 1).await;
    let second = Service::start_with(&app.db, app.data.path(), &[("INNKEEPER_SWEEP_SECONDS", "1")]).await;
    let host = json!({ "name": "h", "kind": "incus", "config": { "socket": "/nowhere" }, "force": true });
    app.provider.post("/api/hosts", host).await.expect(201);
    let mut asked: Vec<chrono::DateTime<chrono::Utc>> = Vec::new();
    wait_for("three sweeps after the third failure", async || {
        let (failures, at): (i32, Option<chrono::DateTime<chrono::Utc>>) =
            sqlx::query_as("select sweep_failures, sweep_started_at from hosts").fetch_one(&app.db.pool).await.unwrap();
        // The sweep in progress when the third failure is stored was claimed before it.
        if failures >= 4 && at.is_some_and(|at| asked.last() != Some(&at)) {
            asked.extend(at);
        }
        if asked.len() < 3 { Err((failures, at)) } else { Ok(()) }
    })
    .await;
    // By the database's clock: a busy machine makes the gap longer, never shorter.
    for pair in asked.windows(2) {
        assert!(pair[1] - pair[0] >= chrono::TimeDelta::milliseconds(1890), "{asked:?}");
    }
    drop(second);
}

/// A host that exists only in the database, with these settings, already sealed.
async fn host_with_sealed_settings(app: &TestApp, sealed: &[u8]) {
    sqlx::query("insert into hosts (name, kind, config_sealed) values ('h', 'incus', $1)")
        .bind(sealed)
        .execute(&app.db.pool)
        .await
        .unwrap();
}

/// Settings that can't be opened (another master key, a bug) are our own fault: nobody is told that their host is down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_faults_are_not_blamed_on_the_host() {
    crate::support::expect_error("could not sweep a host because of an internal error");
    let app = TestApp::new().await;
    host_with_sealed_settings(&app, b"sealed with another key").await;
    let state = async || -> (i32, Option<String>, i64) {
        sqlx::query_as("select sweep_failures, last_error, (select count(*) from alert_tracks) from hosts")
            .fetch_one(&app.db.pool)
            .await
            .unwrap()
    };
    let sweeps = async || {
        for _ in 0..4 {
            watch::sweep::sweep_now(&app.service.features.sweeps).await.unwrap();
        }
    };
    sweeps().await;
    assert_eq!(state().await, (0, None, 0));

    // Neither is it the host's fault that its settings can't be used.
    let configure = async |kind: &str, settings: Value| {
        let sealed = app.core.sealer.seal("host", settings.to_string().as_bytes()).unwrap();
        sqlx::query("update hosts set kind = $1, config_sealed = $2, updated_at = now()")
            .bind(kind)
            .bind(sealed)
            .execute(&app.db.pool)
            .await
            .unwrap();
    };
    let ca = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----";
    let endpoints = ["https://127.0.0.1:1"];
    configure("proxmox", json!({ "endpoints": endpoints, "tokenId": "a@pve!b", "tokenSecret": "c", "ca": ca })).await;
    sweeps().await;
    assert_eq!(state().await, (0, None, 0));

    // With usable settings it is the host's fault that nothing answers.
    configure("incus", json!({ "socket": "/nowhere", "project": "p", "storagePool": "s" })).await;
    watch::sweep::sweep_now(&app.service.features.sweeps).await.unwrap();
    let (failures, error, tracks) = state().await;
    assert!(failures > 0 && error.is_some() && tracks == 1, "{failures} {error:?} {tracks}");
}

/// Traffic is charged for, so it is metered whatever else goes wrong in a sweep.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_is_metered_even_when_alerts_can_t_be_evaluated() {
    let fleet = fleet::Fleet::start(fleet::Options::new(fleet::Kind::Proxmox, 1, 3)).await.unwrap();
    let app = TestApp::new().await;
    crate::replicas::register(&app.provider, &app.db, &fleet).await;
    sqlx::raw_sql("alter table alert_tracks rename to alert_tracks_away; delete from traffic")
        .execute(&app.db.pool)
        .await
        .unwrap();
    watch::sweep::sweep_now(&app.service.features.sweeps).await.unwrap();
    let metered: i64 = sqlx::query_scalar("select count(*) from traffic").fetch_one(&app.db.pool).await.unwrap();
    assert_eq!(metered, 3);
}

/// A sample of a running server from so many seconds ago.
async fn sampled(app: &TestApp, server: i64, seconds: i32, cpu: f64) {
    sqlx::query(
        "insert into samples (server_id, taken_at, power, uptime_s, cpu, memory_used, memory_max, disk_used, disk_max,
                              net_in, net_out, net_in_rate, net_out_rate)
         values ($1, now() - make_interval(secs => $2), 'running', 60, $3, 512, 1024, 1, 10, 5, 6, 2.5, null)",
    )
    .bind(server)
    .bind(f64::from(seconds))
    .bind(cpu)
    .execute(&app.db.pool)
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_shows_the_figures_of_each_server_and_their_last_hour() {
    let app = TestApp::new().await;
    let email = "customer@example.com";
    let (busy, off, new) =
        (live::server(&app, email).await, live::server(&app, email).await, live::server(&app, email).await);
    for (seconds, cpu) in [(0, 0.5), (1800, 0.125), (3300, 0.9)] {
        sampled(&app, busy, seconds, cpu).await;
    }
    sampled(&app, off, 10, 0.7).await;
    sqlx::query("update servers set status = 'stopped' where id = $1").bind(off).execute(&app.db.pool).await.unwrap();

    let plain = app.customer.get("/api/server").await.expect(200).body;
    assert_eq!(plain[0].get("stats"), None);
    app.customer.get("/api/server?include=everything").await.expect(422);
    let list = app.customer.get("/api/server?include=stats").await.expect(200).body;
    let of = |id: i64| list.as_array().unwrap().iter().find(|s| s["id"] == id).unwrap()["stats"].clone();
    let stats = of(busy);
    let own = app.customer.get(&format!("/api/server/{busy}/status")).await.expect(200).body["stats"]["data"].clone();
    for field in ["cpu", "memory", "disk", "uptime", "sampledAt"] {
        assert_eq!(stats[field], own[field], "{field}");
    }
    assert_eq!(stats["network"], json!({ "in": 2.5, "out": null }));
    let line: Vec<Option<f64>> = serde_json::from_value(stats["sparkline"]["cpu"].clone()).unwrap();
    assert_eq!(line.len(), 20);
    // Each is in the step of its age or, if that has just begun, the next older one.
    assert!(line[18..].contains(&Some(0.5)), "{line:?}");
    assert!(line[8..11].contains(&Some(0.125)) && line[..2].contains(&Some(0.9)), "{line:?}");
    assert_eq!(line.iter().flatten().count(), 3, "no sample is no usage: {line:?}");
    let memory: Vec<Option<f64>> = serde_json::from_value(stats["sparkline"]["memory"].clone()).unwrap();
    assert_eq!(memory.iter().flatten().collect::<Vec<_>>(), [&512.0; 3]);
    let stopped = of(off);
    assert_eq!((&stopped["cpu"], &stopped["network"]), (&json!(0.0), &json!({ "in": 0.0, "out": 0.0 })));
    let unknown = of(new);
    assert_eq!((&unknown["cpu"], &unknown["sampledAt"], &unknown["age"]), (&Value::Null, &Value::Null, &Value::Null));
    assert_eq!(unknown["sparkline"]["cpu"], json!(vec![Value::Null; 20]));
}
