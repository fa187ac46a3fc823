//! Proxmox VE as a host: its settings, and the whole lifecycle of servers there, on fakepve.

use serde_json::{Value, json};
use watch::monitoring::MonitoringSettings;

use crate::contract::assert_shape;
use crate::support::pve::Catalogue;
use crate::support::{Pve, TestApp, ended, eventually, expect_error};

async fn pve() -> (TestApp, Pve, Catalogue) {
    let app = TestApp::new().await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    (app, pve, catalogue)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_kept_and_never_shown() {
    let app = TestApp::new().await;
    let pve = Pve::new(&app.db).await;
    let settings = pve.settings();
    let host = json!({ "name": "pve", "kind": "proxmox", "config": settings });
    let made = app.provider.post("/api/hosts", host.clone()).await.expect(201);
    let secret = settings["tokenSecret"].as_str().unwrap();
    let path = format!("/api/hosts/{}", made.body["id"]);
    assert_eq!(made.body["problems"], json!([]));
    assert_eq!(made.body["config"]["tokenId"], settings["tokenId"]);
    assert!(made.body["managementKey"].as_str().unwrap().ends_with(" innkeeper-management"));
    for answer in [&made, &app.provider.get(&path).await, &app.provider.get("/api/hosts").await] {
        assert!(!answer.text.contains(secret) && !answer.text.contains("PRIVATE KEY"), "{}", answer.text);
    }
    let stored: Vec<u8> = sqlx::query_scalar("select config_sealed || coalesce(management_key_sealed, '') from hosts")
        .fetch_one(&app.db.pool)
        .await
        .unwrap();
    assert!(!stored.windows(8).any(|w| w == &secret.as_bytes()[..8]));

    // A change without the secret keeps it: the host is checked with it, and answers.
    let mut change = settings.clone();
    change.as_object_mut().unwrap().remove("tokenSecret");
    change["addressFilters"] = json!(false);
    let changed = app.provider.put(&path, json!({ "config": change })).await.expect(200);
    assert_eq!(changed.body["config"]["addressFilters"], false);
    assert_eq!(changed.body["managementKey"], made.body["managementKey"]);
    let checked = app.provider.post(&format!("{path}/check"), None).await.expect(200).body;
    assert!(checked["problems"][0].as_str().unwrap().contains("Address filters are switched off"), "{checked}");

    // Another token needs its own secret, and an invalid field is named.
    change["tokenId"] = json!("innkeeper@pve!other");
    let refused = app.provider.put(&path, json!({ "config": change })).await.expect(422);
    assert!(refused.body["details"]["fields"]["config.tokenSecret"].is_string(), "{}", refused.text);
    change["endpoints"] = json!(["http://pve:8006"]);
    let refused = app.provider.put(&path, json!({ "config": change })).await.expect(422);
    assert!(refused.body["details"]["fields"]["config.endpoints[0]"].is_string(), "{}", refused.text);
    let incus = json!({ "name": "x", "kind": "incus", "config": settings });
    app.provider.post("/api/hosts", incus).await.expect(422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_can_t_be_added_gets_a_clear_reason() {
    expect_error("failed to verify TLS certificate");
    let app = TestApp::new().await;
    let pve = Pve::new(&app.db).await;
    let add = async |change: Value| {
        let mut config = pve.settings();
        let merged = config.as_object_mut().unwrap();
        merged.extend(change.as_object().unwrap().clone());
        merged.retain(|_, value| !value.is_null());
        app.provider.post("/api/hosts", json!({ "name": "pve", "kind": "proxmox", "config": config })).await
    };
    // An untrusted certificate is shown by its fingerprint, which can be pinned as it is.
    let refused = add(json!({ "fingerprint": null })).await.expect(503);
    let said = refused.body["error"].as_str().unwrap();
    let seen = said.split("--fingerprint ").nth(1).unwrap().split(' ').next().unwrap();
    add(json!({ "fingerprint": "ab".repeat(32) })).await.expect(503);
    let refused = add(json!({ "tokenSecret": "00000000-0000-0000-0000-000000000000" })).await.expect(502);
    assert!(refused.body["error"].as_str().unwrap().contains("secret correct"), "{}", refused.text);
    let refused = add(json!({ "storage": "nowhere" })).await.expect(422);
    assert!(refused.body["error"].as_str().unwrap().contains("storage nowhere"), "{}", refused.text);
    add(json!({ "endpoints": ["https://127.0.0.1:1"] })).await.expect(503);
    assert_eq!(app.provider.get("/api/hosts").await.body, json!([]));

    let certificate = pve.fake.certificate();
    add(json!({ "fingerprint": null, "ca": certificate, "name": "by authority" })).await.expect(422);
    add(json!({ "fingerprint": seen })).await.expect(201);
}

/// A registered cluster is recognised by its own CA, whatever its address, and by its address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_cluster_is_not_registered_twice() {
    let app = TestApp::new().await;
    let (first, second) = (Pve::new(&app.db).await, Pve::new(&app.db).await);
    let authority = json!({ "data": [{ "filename": "/etc/pve/pve-root-ca.pem", "fingerprint": "AB:CD" }] }).to_string();
    let host = |pve: &Pve, name: &str, force: bool| -> Value {
        json!({ "name": name, "kind": "proxmox", "config": pve.settings(), "force": force })
    };
    first.canned("GET", "/certificates/info", 200, "OK", &authority).await;
    app.provider.post("/api/hosts", host(&first, "pve", false)).await.expect(201);
    // By its address, without knowing its CA.
    let refused = app.provider.post("/api/hosts", host(&first, "again", false)).await.expect(409);
    assert!(refused.body["error"].as_str().unwrap().contains("The host pve is the same"), "{}", refused.text);
    // By its CA, at another address.
    second.canned("GET", "/certificates/info", 200, "OK", &authority).await;
    let refused = app.provider.post("/api/hosts", host(&second, "again", false)).await.expect(409);
    assert!(refused.body["error"].as_str().unwrap().contains("The host pve is the same"), "{}", refused.text);
    assert_eq!(app.provider.get("/api/hosts").await.body.as_array().unwrap().len(), 1);
    // Another cluster is another host, until it is given the first one's address.
    let other = app.provider.post("/api/hosts", host(&second, "other", false)).await.expect(201).body;
    assert_eq!(other["problems"], json!([]));
    let path = format!("/api/hosts/{}", other["id"]);
    let moved = |force: bool| json!({ "config": first.settings(), "force": force });
    app.provider.put(&path, moved(false)).await.expect(409);
    app.provider.put(&path, moved(true)).await.expect(200);
    // A duplicate that was forced is reported again by each check.
    let checked = app.provider.post(&format!("{path}/check"), None).await.expect(200).body;
    assert!(checked["problems"].to_string().contains("The host pve is the same"), "{checked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_and_vms_run_through_their_whole_lifecycle() {
    let (app, pve, catalogue) = pve().await;
    let me = &app.customer;
    for (order, kind) in [(catalogue.container(), "lxc"), (catalogue.machine(), "qemu")] {
        let created = me.post("/api/server/create", order).await.expect(200).body;
        let operation = ended(me, &created["operationId"]).await;
        assert_eq!(operation["state"], "succeeded", "{kind}: {operation}");
        let path = format!("/api/server/{}", created["id"]);
        let shown = me.get(&path).await.expect(200).body;
        assert_eq!((&shown["status"], &shown["proxmoxId"]), (&json!("running"), &created["proxmoxId"]), "{kind}");

        // The guest is what was ordered, with our marker and filters, and the password is nowhere to be seen.
        let guest = format!("guest({})", created["proxmoxId"]);
        let config = pve.run(&format!("{guest}.config")).await;
        let marker: String = sqlx::query_scalar("select uuid::text from servers where guest_number = $1")
            .bind(created["proxmoxId"].as_i64().unwrap())
            .fetch_one(&app.db.pool)
            .await
            .unwrap();
        assert!(config["tags"].as_str().unwrap().contains(&marker), "{config}");
        assert_eq!(
            config["memory"].as_str().map_or(config["memory"].clone(), |m| m.parse::<i64>().unwrap().into()),
            256
        );
        assert!(config["net0"].as_str().unwrap().contains("firewall=1"), "{config}");
        let net = if kind == "lxc" { &config["net0"] } else { &config["ipconfig0"] };
        assert!(net.as_str().unwrap().contains(shown["ipAddress"].as_str().unwrap()), "{config}");
        let keys = pve.run("[v for a in pve.asked for k, v in a[2] if k in ('ssh-public-keys', 'sshkeys')]").await;
        assert!(keys.to_string().contains("innkeeper-management"), "{keys}");

        for (action, power) in [("stop", "stopped"), ("start", "running"), ("restart", "running")] {
            let answer = me.post(&format!("{path}/{action}"), None).await.expect(200).body;
            assert!(answer["taskId"].as_str().unwrap().starts_with("UPID:pve1:"), "{answer}");
            assert_eq!(ended(me, &answer["operationId"]).await["state"], "succeeded", "{kind} {action}");
            assert_eq!(me.get(&path).await.body["status"], power, "{kind} {action}");
            assert_eq!(pve.run(&format!("{guest}.status")).await, power, "{kind} {action}");
        }
        let deleted = me.delete(&path).await.expect(200).body;
        assert_eq!(ended(me, &deleted["operationId"]).await["state"], "succeeded");
        me.get(&path).await.expect(404);
        pve.assert_no_orphan(kind).await;
    }
    assert_eq!(pve.fake.guests().await, Vec::<i64>::new());
}

/// A number that is in use gives way to the next, whether the host says so before the order, in its answer, or in its
/// task.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guest_numbers_in_use_on_the_host_are_skipped() {
    let (app, pve, catalogue) = pve().await;
    let next = async || -> i64 {
        sqlx::query_scalar("select last_value + is_called::int from guest_numbers")
            .fetch_one(&app.db.pool)
            .await
            .unwrap()
    };
    let made = async |order: Value| {
        let created = app.customer.post("/api/server/create", order).await.expect(200).body;
        let operation = ended(&app.customer, &created["operationId"]).await;
        assert_eq!(operation["state"], "succeeded", "{operation}");
        let path = format!("/api/server/{}", created["id"]);
        let shown = app.customer.get(&path).await.expect(200).body;
        (created["proxmoxId"].as_i64().unwrap(), shown)
    };
    // Two foreign guests in a row, a container and a VM, noticed before anything is requested.
    let number = next().await;
    pve.run(&format!("pve.add_ct({number}, 'theirs') and None")).await;
    pve.run(&format!("pve.add_vm({}, 'theirs') and None", number + 1)).await;
    let (told, shown) = made(catalogue.container()).await;
    assert_eq!((told, &shown["proxmoxId"]), (number, &json!(number + 2)));
    assert_eq!(shown["name"], format!("server-{}", number + 2), "its name follows the number");
    let theirs = pve.run(&format!("[guest(n).config.get('tags', '') for n in ({number}, {number} + 1)]")).await;
    assert_eq!(theirs, json!(["", ""]));

    // Both error messages of the host, for a number that was free a moment before.
    let number = next().await;
    for text in [
        format!("CT {number} already exists on node 'pve1'"),
        format!("unable to create CT {} - CT {0} already exists on node 'pve1'", number + 1),
    ] {
        pve.run(&format!("pve.fail('POST', '/nodes/pve1/lxc', 500, {text:?}, times=1)")).await;
        let (told, shown) = made(catalogue.container()).await;
        assert_eq!(shown["proxmoxId"], told + 1, "{text}");
        pve.assert_no_orphan(&text).await;
    }
    pve.fail("POST", "/nodes/pve1/qemu/9000/clone", "unable_create_config_file_already", 1).await;
    let (told, shown) = made(catalogue.machine()).await;
    assert_eq!(shown["proxmoxId"], told + 1);
    pve.assert_no_orphan("a clone").await;
}

/// All sections of the server-management API but the ninth (see `ssh`), as `contract` replays them on Incus.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_have_the_shapes_of_the_api_document() {
    let app = TestApp::with(|c| c.of::<MonitoringSettings>().sweep_seconds = 1).await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    let me = &app.customer;
    let created = me.post("/api/server/create", catalogue.container()).await.expect(200).body;
    let order =
        json!({ "id": 1, "status": "creating", "proxmoxId": 100, "ipAddress": null, "rootPassword": "generated" });
    assert_shape(&created, &order, "$");
    assert_eq!(ended(me, &created["operationId"]).await["state"], "succeeded");
    let one = json!({ "id": 1, "userId": 1, "tariffId": 2, "osId": 1, "status": "running", "proxmoxId": 100,
                      "ipAddress": "10.0.0.5", "rootPassword": null, "createdAt": "", "updatedAt": "",
                      "os": { "id": 1, "name": "", "type": "" }, "tariff": { "id": 2, "name": "", "price": 300 } });
    assert_shape(&me.get("/api/server").await.expect(200).body, &json!([one]), "$");
    let path = format!("/api/server/{}", created["id"]);
    assert_shape(&me.get(&path).await.expect(200).body, &one, "$");
    // This host's list reports a disk usage of 0, which means unknown.
    let stats = json!({ "id": 1, "status": "running", "stats": { "data": { "vmid": 100, "status": "running",
        "uptime": 1, "cpu": 0.1, "memory": { "used": 1, "max": 1, "usage": 25.0 },
        "disk": { "used": null, "max": 1, "usage": null }, "network": { "in": 1, "out": 1 }, "rrdData": [] } } });
    let status = eventually(me, &format!("{path}/status"), |s| s["stats"]["data"]["cpu"].is_number()).await;
    assert_shape(&status, &stats, "$");
    assert_eq!(status["stats"]["data"]["memory"]["max"], 256 << 20);
    for action in ["stop", "start", "restart"] {
        let answer = me.post(&format!("{path}/{action}"), None).await.expect(200).body;
        assert_shape(&answer, &json!({ "status": "success", "action": "", "taskId": "UPID:..." }), "$");
        assert_eq!(answer["action"], action);
        assert_eq!(ended(me, &answer["operationId"]).await["state"], "succeeded", "{action}");
    }
    // 10. Resize Server Configuration, by parts and by tariff, which brings its network's rate
    let limits = json!({ "maxCores": 4, "maxMemory": 4096, "maxDisk": 80 });
    app.provider.put(&format!("/api/tariffs/{}", catalogue.lxc.1), limits).await.expect(200);
    let fast = json!({ "name": "Fast", "kind": "lxc", "cores": 3, "memory": 640, "disk": 6, "price": 900,
                       "bandwidth": 100, "snapshots": 2 });
    let fast = app.provider.post("/api/tariffs", fast).await.expect(201).body["id"].clone();
    let guest = format!("guest({}).config", created["proxmoxId"]);
    let sizes = [
        (json!({ "cores": 2, "memory": 512, "disk": 5 }), [2, 512, 5], false),
        (json!({ "tariffId": fast }), [3, 640, 6], true),
    ];
    for (wish, size, limited) in sizes {
        let resized = me.put(&format!("{path}/resize"), wish).await.expect(200).body;
        assert_shape(&resized, &json!({ "status": "success", "data": "..." }), "$");
        assert_eq!(ended(me, &resized["operationId"]).await["state"], "succeeded");
        let config = pve.run(&guest).await;
        let there = ["cores", "memory"].map(|key| config[key].to_string().trim_matches('"').parse::<i64>().unwrap());
        assert_eq!(there, size[..2], "{config}");
        assert!(config["rootfs"].as_str().unwrap().contains(&format!("size={}G", size[2])), "{config}");
        assert_eq!(config["net0"].as_str().unwrap().contains("rate=12.5"), limited, "{config}");
        let shown = me.get(&path).await.expect(200).body;
        assert_eq!(["cores", "memory", "disk"].map(|part| shown[part].as_i64().unwrap()), size);
        // The disk first: a guest whose disk is full may not come up again after a change that restarts it.
        let puts = "[a[1].rsplit('/', 1)[1] for a in pve.asked if a[0] == 'PUT' and \
                    (a[1].endswith('/resize') or any(key == 'cores' for key, _ in a[2]))]";
        assert_eq!(pve.run(&format!("{puts}[-2:]")).await, json!(["resize", "config"]));
    }

    // 11. Create Snapshot, 12. List Snapshots, 13. Rollback Snapshot, 14. Delete Snapshot
    let snapshots = format!("{path}/snapshots");
    let new = json!({ "snapname": "backup-2024-01-01", "description": "Before major update" });
    let taken = me.post(&snapshots, new.clone()).await.expect(200).body;
    assert_shape(&taken, &json!({ "status": "success", "taskId": "UPID:...", "snapname": "" }), "$");
    assert_eq!(taken["snapname"], new["snapname"]);
    assert_eq!(ended(me, &taken["operationId"]).await["state"], "succeeded");
    let list = me.get(&snapshots).await.expect(200).body;
    let shape = json!({ "name": "", "description": "", "snaptime": 1_704_067_200 });
    assert_shape(&list, &json!({ "status": "success", "data": [shape] }), "$");
    let (first, count) = (&list["data"][0], list["data"].as_array().unwrap().len());
    assert_eq!((&first["name"], &first["description"], count), (&new["snapname"], &new["description"], 1));
    let name = json!({ "snapname": new["snapname"] });
    let task = json!({ "status": "success", "taskId": "UPID:..." });
    let rolled = me.post(&format!("{snapshots}/rollback"), name.clone()).await.expect(200).body;
    assert_shape(&rolled, &task, "$");
    assert_eq!(ended(me, &rolled["operationId"]).await["state"], "succeeded");
    let deleted = me.send(reqwest::Method::DELETE, &snapshots, Some(name)).await.expect(200).body;
    assert_shape(&deleted, &task, "$");
    assert_eq!(ended(me, &deleted["operationId"]).await["state"], "succeeded");
    assert_eq!(me.get(&snapshots).await.expect(200).body["data"], json!([]));
    for answer in [&taken, &rolled, &deleted] {
        assert!(answer["taskId"].as_str().unwrap().starts_with("UPID:pve1:"), "{answer}");
    }

    // 15. Get Console Access
    let console = me.post("/api/server/console", json!({ "vmid": created["proxmoxId"] })).await.expect(200).body;
    assert_shape(&console, &json!({ "status": "success", "url": "https://..." }), "$");
    assert!(console["url"].as_str().unwrap().contains("/console/#ink_c_"), "{console}");

    let deleted = me.delete(&path).await.expect(200).body;
    assert_eq!(
        (&deleted["status"], ended(me, &deleted["operationId"]).await["state"].as_str()),
        (&json!("deleted"), Some("succeeded"))
    );
}
