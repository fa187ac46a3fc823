//! All fifteen sections of the server-management API, replayed against a real container with every response's shape
//! checked field by field.

use serde_json::{Value, json};
use watch::monitoring::MonitoringSettings;

use crate::support::lab::output_of;
use crate::support::{Lab, TestApp, ended, eventually};

/// Checks that `value` has every field of `shape`, with the same type, at every depth. In the shape, `null` stands for
/// anything, and an array's first element for each of the value's.
#[track_caller]
pub(crate) fn assert_shape(value: &Value, shape: &Value, path: &str) {
    match (value, shape) {
        (_, Value::Null) => {}
        (Value::Object(value), Value::Object(shape)) => {
            for (key, shape) in shape {
                let field = value.get(key).unwrap_or_else(|| panic!("{path}.{key} is missing"));
                assert_shape(field, shape, &format!("{path}.{key}"));
            }
        }
        (Value::Array(values), Value::Array(shapes)) => {
            for (n, value) in values.iter().enumerate() {
                if let Some(shape) = shapes.first() {
                    assert_shape(value, shape, &format!("{path}[{n}]"));
                }
            }
        }
        (Value::String(_), Value::String(_)) | (Value::Bool(_), Value::Bool(_)) => {}
        (Value::Number(value), Value::Number(shape)) => {
            assert!(shape.is_f64() || !value.is_f64(), "{path} is {value}, not an integer");
        }
        _ => panic!("{path} is {value}, expected something like {shape}"),
    }
}

#[test]
#[should_panic(expected = "$.a.b is missing")]
fn a_missing_field_is_noticed() {
    assert_shape(&json!({ "a": {} }), &json!({ "a": { "b": 1 } }), "$");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_s_whole_life_follows_the_api_document() {
    let app = TestApp::with(|c| c.of::<MonitoringSettings>().sweep_seconds = 1).await;
    let lab = Lab::new(&app.db).await;
    let catalogue = lab.register(&app.provider).await;
    let me = &app.customer;
    let limits = json!({ "maxCores": 4, "maxMemory": 4096, "maxDisk": 80 });
    app.provider.put(&format!("/api/tariffs/{}", catalogue.tariff), limits).await.expect(200);

    // 4. Create New Server
    let created = me.post("/api/server/create", catalogue.order()).await.expect(200).body;
    assert_shape(
        &created,
        &json!({ "id": 1, "status": "creating", "proxmoxId": 100, "ipAddress": null, "rootPassword": "generated" }),
        "$",
    );
    assert_eq!(created["status"], "creating");
    assert_eq!(created["ipAddress"], Value::Null);
    let id = created["id"].as_i64().unwrap();
    let at = |rest: &str| format!("/api/server/{id}{rest}");

    // One operation at a time; a second request gets the id of the one that holds the server.
    let locked = me.post(&at("/stop"), None).await.expect(409);
    assert_eq!(locked.code(), "LOCKED");
    assert_eq!(locked.body["details"]["operationId"], created["operationId"]);

    let operation = ended(me, &created["operationId"]).await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert_shape(
        &operation,
        &json!({ "id": "", "serverId": 1, "kind": "create", "state": "", "progress": 100, "step": "", "error": null,
                 "createdAt": "", "startedAt": "", "endedAt": "" }),
        "$",
    );
    assert_eq!(operation["progress"], 100);
    assert_eq!(operation["error"], Value::Null);

    // 1. Get All Servers
    let list = me.get("/api/server").await.expect(200);
    assert_shape(
        &list.body,
        &json!([{ "id": 1, "userId": 1, "tariffId": 2, "osId": 1, "status": "running", "proxmoxId": 100,
                  "ipAddress": "10.0.0.5", "rootPassword": null, "createdAt": "", "updatedAt": "",
                  "os": { "id": 1, "name": "", "type": "" }, "tariff": { "id": 2, "name": "", "price": 300 } }]),
        "$",
    );
    assert_eq!(list.body.as_array().unwrap().len(), 1);
    assert_eq!(list.body[0]["tariff"]["name"], "Базовый");
    assert_eq!(list.body[0]["rootPassword"], Value::Null, "shown once, in the order's answer");
    assert!(!list.text.contains(created["rootPassword"].as_str().unwrap()));

    // 2. Get Server Details
    let server = me.get(&at("")).await.expect(200).body;
    assert_shape(
        &server,
        &json!({ "id": 1, "status": "running", "proxmoxId": 100, "ipAddress": "10.0.0.5", "createdAt": "",
                 "os": { "name": "", "type": "" }, "tariff": { "name": "", "price": 300 } }),
        "$",
    );
    assert_eq!(server["status"], "running");
    assert_eq!(server["ipAddress"], lab.first.to_string());

    // 3. Get Server Status and Statistics, once two sweeps have seen it: CPU usage is measured between two
    let stats = json!({ "id": 1, "status": "running", "stats": { "status": "success", "data": {
        "vmid": 100, "status": "running", "uptime": 3600, "cpu": 0.15,
        "memory": { "used": 1, "max": 1, "usage": 25.0 }, "disk": { "used": 1, "max": 1, "usage": 25.0 },
        "network": { "in": 1, "out": 1 }, "rrdData": [] } } });
    let status = eventually(me, &at("/status"), |s| {
        let data = &s["stats"]["data"];
        data["cpu"].is_number() && data["network"]["in"].is_number()
    })
    .await;
    assert_shape(&status, &stats, "$");
    assert_eq!(status["stats"]["data"]["vmid"], created["proxmoxId"]);
    assert_eq!(status["stats"]["data"]["memory"]["max"], 256 * 1024 * 1024);
    let cpu = status["stats"]["data"]["cpu"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&cpu), "{cpu}");

    // It really exists: the address answers, with the host name and the password that we were given.
    let guest = guest(&app, id).await;
    let driver = lab.incus.driver();
    let exec = async |argv: &[&str]| output_of(&*driver, &guest, argv).await;
    assert_eq!(exec(&["hostname"]).await, format!("server-{}", created["proxmoxId"]));
    let shadow = exec(&["getent", "shadow", "root"]).await;
    assert!(is_root_password(&driver, &guest, created["rootPassword"].as_str().unwrap()).await, "{shadow}");

    // 6. Stop Server
    let action = json!({ "status": "success", "action": "stop", "taskId": "UPID:..." });
    let stopped = me.post(&at("/stop"), None).await.expect(200).body;
    assert_shape(&stopped, &action, "$");
    assert_eq!((&stopped["status"], &stopped["action"]), (&json!("success"), &json!("stop")));
    assert_eq!(ended(me, &stopped["operationId"]).await["state"], "succeeded");
    assert_eq!(me.get(&at("")).await.body["status"], "stopped");

    // A password can't be set in a stopped server, and the answer says so.
    let refused = me.post(&at("/password"), None).await.expect(409);
    assert_eq!(refused.code(), "CONFLICT");

    // 5. Start Server
    let started = me.post(&at("/start"), None).await.expect(200).body;
    assert_shape(&started, &action, "$");
    assert_eq!(started["action"], "start");
    assert_eq!(ended(me, &started["operationId"]).await["state"], "succeeded");
    assert_eq!(me.get(&at("")).await.body["status"], "running");

    // 7. Restart Server
    let restarted = me.post(&at("/restart"), None).await.expect(200).body;
    assert_shape(&restarted, &action, "$");
    assert_eq!(restarted["action"], "restart");
    assert_eq!(ended(me, &restarted["operationId"]).await["state"], "succeeded");

    // 9. Change Root Password
    let changed = me.post(&at("/password"), None).await.expect(200).body;
    assert_shape(&changed, &json!({ "status": "success", "password": "new" }), "$");
    assert_eq!(changed["status"], "success");
    assert_ne!(changed["password"], created["rootPassword"]);
    assert!(is_root_password(&driver, &guest, changed["password"].as_str().unwrap()).await);
    assert!(!is_root_password(&driver, &guest, created["rootPassword"].as_str().unwrap()).await);

    // 10. Resize Server Configuration
    let wish = json!({ "cores": 2, "memory": 320, "disk": 2 });
    let resized = me.put(&at("/resize"), wish).await.expect(200).body;
    assert_shape(&resized, &json!({ "status": "success", "data": "..." }), "$");
    assert_eq!(ended(me, &resized["operationId"]).await["state"], "succeeded");
    // The host redistributes its processors a moment later; memory changes at once.
    assert_eq!(exec(&["awk", "/MemTotal/{print $2}", "/proc/meminfo"]).await, (320 * 1024).to_string());
    let sized = me.get(&at("")).await.expect(200).body;
    assert_eq!((&sized["cores"], &sized["memory"], &sized["disk"]), (&json!(2), &json!(320), &json!(2)));

    // 11. Create Snapshot
    let new = json!({ "snapname": "backup-2024-01-01", "description": "Before major update" });
    let taken = me.post(&at("/snapshots"), new).await.expect(200).body;
    let shape = json!({ "status": "success", "taskId": "UPID:...", "snapname": "backup-2024-01-01" });
    assert_shape(&taken, &shape, "$");
    assert_eq!(taken["snapname"], "backup-2024-01-01");
    assert_eq!(ended(me, &taken["operationId"]).await["state"], "succeeded");

    // 12. List Snapshots
    let list = me.get(&at("/snapshots")).await.expect(200).body;
    let shape = json!({ "name": "backup-2024-01-01", "description": "Before major update", "snaptime": 1_704_067_200 });
    assert_shape(&list, &json!({ "status": "success", "data": [shape] }), "$");
    assert_eq!(list["data"][0]["name"], "backup-2024-01-01");
    assert_eq!(list["data"][0]["description"], "Before major update");
    let age = chrono::Utc::now().timestamp() - list["data"][0]["snaptime"].as_i64().unwrap();
    assert!((-60..3600).contains(&age), "{age} s ago");

    // 13. Rollback Snapshot
    exec(&["sh", "-c", "touch /root/since && echo done"]).await;
    let name = json!({ "snapname": "backup-2024-01-01" });
    let rolled = me.post(&at("/snapshots/rollback"), name.clone()).await.expect(200).body;
    assert_shape(&rolled, &json!({ "status": "success", "taskId": "UPID:..." }), "$");
    assert_eq!(ended(me, &rolled["operationId"]).await["state"], "succeeded");
    let since = exec(&["sh", "-c", "test -e /root/since && echo there || echo gone"]).await;
    assert_eq!(since, "gone", "it is as it was at the snapshot");
    let memory = exec(&["awk", "/MemTotal/{print $2}", "/proc/meminfo"]).await;
    assert_eq!(memory, (320 * 1024).to_string(), "except for its size");

    // 14. Delete Snapshot
    let deleted = me.send(reqwest::Method::DELETE, &at("/snapshots"), Some(name)).await.expect(200).body;
    assert_shape(&deleted, &json!({ "status": "success", "taskId": "UPID:..." }), "$");
    assert_eq!(ended(me, &deleted["operationId"]).await["state"], "succeeded");
    assert_eq!(me.get(&at("/snapshots")).await.expect(200).body["data"], json!([]));

    // 15. Get Console Access
    let vmid = &created["proxmoxId"];
    let console = me.post("/api/server/console", json!({ "vmid": vmid })).await.expect(200).body;
    assert_shape(&console, &json!({ "status": "success", "url": "https://..." }), "$");
    assert_eq!(console["status"], "success");
    let url = console["url"].as_str().unwrap();
    assert!(url.starts_with("http://127.0.0.1:5000/console/#ink_c_"), "our page with a ticket of ours: {url}");

    // Its history, newest first.
    let history = me.get(&at("/operations?limit=2")).await.expect(200).body;
    assert_eq!(history["total"], 10);
    assert_eq!(history["pages"], 5);
    assert_eq!(history["data"][0]["kind"], "delete_snapshot");

    // 8. Delete Server
    let deleted = me.delete(&at("")).await.expect(200).body;
    assert_shape(&deleted, &json!({ "status": "deleted" }), "$");
    assert_eq!(deleted["status"], "deleted");
    assert_eq!(ended(me, &deleted["operationId"]).await["state"], "succeeded");
    me.get(&at("")).await.expect(404);
    me.delete(&at("")).await.expect(404);
    assert_eq!(lab.guests().await, 0);
    let held: i64 = sqlx::query_scalar("select count(*) from addresses where server_id is not null")
        .fetch_one(&app.db.pool)
        .await
        .unwrap();
    assert_eq!(held, 0, "its address is free again");

    // "Your server is ready", once.
    let mails: Vec<(String, String)> =
        sqlx::query_as("select recipient, text_body from mails").fetch_all(&app.db.pool).await.unwrap();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].0, "customer@example.com");
    assert!(mails[0].1.contains(&lab.first.to_string()), "{}", mails[0].1);
    assert!(!mails[0].1.contains(created["rootPassword"].as_str().unwrap()), "no password in a mail");

    // No secrets are left behind.
    let leftovers: i64 = sqlx::query_scalar("select count(*) from operations where data <> 'null'")
        .fetch_one(&app.db.pool)
        .await
        .unwrap();
    assert_eq!(leftovers, 0);
}

async fn guest(app: &TestApp, id: i64) -> hypervisor::GuestRef {
    let (marker, vmid, node): (uuid::Uuid, i64, String) =
        sqlx::query_as("select uuid, guest_number, node from servers where id = $1")
            .bind(id)
            .fetch_one(&app.db.pool)
            .await
            .unwrap();
    hypervisor::GuestRef { marker, vmid, kind: hypervisor::GuestKind::Lxc, node }
}

/// Whether this is root's password in the guest, checked with the guest's own crypt().
pub(crate) async fn is_root_password(
    driver: &std::sync::Arc<dyn hypervisor::Driver>,
    guest: &hypervisor::GuestRef,
    password: &str,
) -> bool {
    // perl is part of every Debian; crypt() is the guest's own.
    let script = "my $h = (getpwnam('root'))[1]; my $p = <STDIN>; exit(crypt($p, $h) eq $h ? 0 : 1)";
    let out = driver
        .exec(guest, &["perl", "-e", script], password.as_bytes(), std::time::Duration::from_secs(20))
        .await
        .unwrap();
    out.status == 0
}
