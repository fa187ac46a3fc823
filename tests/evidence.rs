//! What is known about servers and about where they can be placed: per node, per guest and per value, and no more than
//! the host says.

use compute::servers::ServerSettings;
use serde_json::{Value, json};
use watch::sweep::sweep_now;

use crate::support::pve::Catalogue;
use crate::support::{Pve, TestApp, ended, eventually, wait_for_sql};

async fn pve() -> (TestApp, Pve, Catalogue) {
    let app = TestApp::with(|c| {
        c.workers = 8;
        c.of::<ServerSettings>().shutdown_seconds = 2;
    })
    .await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    sqlx::query("update accounts set server_limit = 1000").execute(&app.db.pool).await.unwrap();
    (app, pve, catalogue)
}

async fn order(app: &TestApp, order: Value) -> Value {
    let created = app.customer.post("/api/server/create", order).await.expect(200).body;
    let operation = ended(&app.customer, &created["operationId"]).await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    app.customer.get(&format!("/api/server/{}", created["id"])).await.expect(200).body
}

/// A sweep that no earlier operation interferes with.
async fn sweep(app: &TestApp) {
    sqlx::query("update operations set ended_at = ended_at - interval '1 hour'").execute(&app.db.pool).await.unwrap();
    sweep_now(&app.service.features.sweeps).await.unwrap();
}

async fn status(app: &TestApp, server: &Value) -> Value {
    app.customer.get(&format!("/api/server/{}/status", server["id"])).await.expect(200).body
}

async fn node(app: &TestApp, server: &Value) -> String {
    sqlx::query_scalar("select node from servers where id = $1")
        .bind(server["id"].as_i64())
        .fetch_one(&app.db.pool)
        .await
        .unwrap()
}

/// The tag that a server's guest carries.
async fn tag(app: &TestApp, server: &Value) -> String {
    sqlx::query_scalar("select 'innkeeper-' || guest_number || '-' || uuid from servers where id = $1")
        .bind(server["id"].as_i64())
        .fetch_one(&app.db.pool)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offline_node_affects_no_other_node() {
    let (app, pve, catalogue) = pve().await;
    let (first, second) = (order(&app, catalogue.container()).await, order(&app, catalogue.container()).await);
    pve.run("pve.add_node('pve9')").await;
    let lost = order(&app, catalogue.container()).await;
    // Somebody migrated it there, and then the node went offline.
    pve.run(&format!("pve.migrate({}, 'pve9')", lost["proxmoxId"])).await;
    pve.run("pve.set_node_offline('pve9')").await;

    // The one that powered itself off is seen as stopped, the one on the offline node as unknown; the others are
    // unchanged.
    pve.run(&format!("setattr(guest({}), 'status', 'stopped')", first["proxmoxId"])).await;
    sweep(&app).await;
    assert_eq!(status(&app, &first).await["status"], "stopped");
    assert_eq!(status(&app, &second).await["status"], "running");
    let shown = status(&app, &lost).await;
    assert_eq!((&shown["status"], &shown["stats"]["data"]["cpu"]), (&json!("unknown"), &Value::Null), "{shown}");
    // One that somebody deleted is missing from a node that is online.
    pve.run(&format!("pve.cts.remove(guest({}))", second["proxmoxId"])).await;
    sweep(&app).await;
    assert_eq!(status(&app, &second).await["status"], "unknown");

    // Orders and deletions still work.
    order(&app, catalogue.container()).await;
    for gone in [&first, &second] {
        let deleted = app.customer.delete(&format!("/api/server/{}", gone["id"])).await.expect(200).body;
        assert_eq!(ended(&app.customer, &deleted["operationId"]).await["state"], "succeeded");
    }
    // But not the deletion of the one that may still exist.
    let deleted = app.customer.delete(&format!("/api/server/{}", lost["id"])).await.expect(200).body;
    wait_for_sql(&app.db.pool, "3 attempts", "select exists (select from operations where attempts > 2)", true).await;
    let path = format!("/api/operations/{}", deleted["operationId"].as_str().unwrap());
    let waits = app.customer.get(&path).await.expect(200).body;
    assert!(waits["endedAt"].is_null(), "{waits}");
    pve.run("pve.set_node_offline('pve9', False)").await;
    assert_eq!(ended(&app.customer, &deleted["operationId"]).await["state"], "succeeded");
    pve.assert_no_orphan("after all").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_row_hides_only_its_own_guest() {
    let (app, pve, catalogue) = pve().await;
    let (first, second) = (order(&app, catalogue.container()).await, order(&app, catalogue.container()).await);
    sweep(&app).await;
    let rows = |first: Value, second: Value| {
        json!({ "data": [
            { "type": "node", "node": "pve1", "id": "node/pve1", "status": "online", "maxcpu": 4,
              "maxmem": 8_589_934_592_i64 },
            { "type": "storage", "node": "pve1", "storage": "local-lvm", "content": null, "status": null,
              "maxdisk": 1_i64 << 37 },
            { "type": "storage", "node": null, "storage": null }, { "type": "pool", "pool": null },
            first, second, null, { "type": "lxc", "node": "pve1", "vmid": 5, "status": "running", "tags": ["x"] },
        ] })
    };
    let stopped = json!({ "type": "lxc", "node": "pve1", "vmid": first["proxmoxId"], "status": "stopped",
                          "tags": tag(&app, &first).await, "mem": "NaN", "maxmem": -5, "netin": 1e22 });
    // The second one's row says which guest it is, and nothing else.
    let odd = json!({ "type": "lxc", "node": null, "vmid": second["proxmoxId"], "id": null, "status": { "a": 1 } });
    pve.canned("GET", "/cluster/resources", 200, "OK", &rows(stopped, odd).to_string()).await;
    sweep(&app).await;
    let host = app.provider.get(&format!("/api/hosts/{}", catalogue.host)).await.expect(200).body;
    assert_eq!(host["lastError"], Value::Null, "{host}");
    assert_eq!(status(&app, &first).await["status"], "stopped");
    assert_eq!(status(&app, &second).await["status"], "running", "unreadable is not missing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_vm_shows_its_reason_and_unknown_values_as_null() {
    let (app, pve, catalogue) = pve().await;
    let server = order(&app, catalogue.machine()).await;
    sweep(&app).await;
    let data = status(&app, &server).await["stats"]["data"].clone();
    assert_eq!(data["disk"], json!({ "used": null, "max": 3_i64 << 30, "usage": null }), "{data}");
    assert_eq!((&data["memory"]["used"], &data["memory"]["max"]), (&Value::Null, &json!(256 << 20)), "{data}");
    assert!(data["cpu"].is_number() && data["uptime"].is_number(), "{data}");
    let last = data["rrdData"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["disk"], &last["mem"]), (&Value::Null, &Value::Null), "{last}");
    let metrics = app.figures().await;
    let of_guest = format!("{{id=\"{}\"}}", server["id"]);
    assert!(metrics.contains(&format!("innkeeper_guest_disk_size_bytes{of_guest}")), "{metrics}");
    for unknown in ["innkeeper_guest_disk_usage_bytes", "innkeeper_guest_memory_usage_bytes"] {
        assert!(!metrics.contains(&format!("{unknown}{of_guest}")), "{unknown}");
    }
    let history = app.customer.get(&format!("/api/server/{}/metrics", server["id"])).await.expect(200).body;
    let point = history["points"].as_array().unwrap().last().unwrap();
    assert_eq!((&point["disk"], &point["memory"]), (&Value::Null, &Value::Null), "{point}");
    assert!(point["cpu"]["mean"].is_number() && point["diskSize"] == json!(3_i64 << 30), "{point}");

    pve.run(&format!("[setattr(guest({}), key, 'io-error') for key in ('status', 'qmpstatus')]", server["proxmoxId"]))
        .await;
    sweep(&app).await;
    let shown = status(&app, &server).await;
    assert_eq!(
        (&shown["status"], &shown["stats"]["data"]["reason"]),
        (&json!("paused"), &json!("io-error")),
        "{shown}"
    );
    assert_eq!(app.customer.get("/api/server?status=paused").await.expect(200).body[0]["id"], server["id"]);
    let metrics = app.figures().await;
    assert!(metrics.contains(&format!("innkeeper_guest_up{of_guest} 0")), "{metrics}");
    // A guest that its node knows nothing about is neither up nor down.
    pve.run(&format!("setattr(guest({}), 'status', 'unknown')", server["proxmoxId"])).await;
    sweep(&app).await;
    let metrics = app.figures().await;
    assert!(!metrics.contains(&format!("innkeeper_guest_up{of_guest}")), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_are_placed_where_their_image_is() {
    let (app, pve, catalogue) = pve().await;
    // The archive is on a storage of the first node only, and so are the template's disks.
    pve.run("pve.add_node('pve2')").await;
    pve.run("pve.storages['local'].update(nodes='pve1')").await;
    sweep(&app).await;
    let image = |id: i64| format!("/api/images/{id}");
    let checked = app.provider.post(&format!("/api/hosts/{}/check", catalogue.host), None).await.expect(200).body;
    let problems = checked["problems"].to_string();
    assert!(
        problems.contains("Debian CT") && problems.contains("Debian VM") && problems.contains("pve2"),
        "{problems}"
    );
    assert!(!problems.contains("on pve1"), "{problems}");
    for wish in [catalogue.container(), catalogue.container(), catalogue.machine(), catalogue.machine()] {
        let server = order(&app, wish).await;
        assert_eq!(node(&app, &server).await, "pve1", "{server}");
    }
    // Where nothing is known the next node is tried, and the result is remembered.
    sqlx::query("update image_sources set nodes = null").execute(&app.db.pool).await.unwrap();
    for wish in [catalogue.container(), catalogue.machine()] {
        let server = order(&app, wish).await;
        assert_eq!(node(&app, &server).await, "pve1", "{server}");
    }
    let known: Vec<Option<Vec<String>>> =
        sqlx::query_scalar("select nodes from image_sources order by image_id").fetch_all(&app.db.pool).await.unwrap();
    assert_eq!(known, [Some(vec!["pve1".to_owned()]), Some(vec!["pve1".to_owned()])]);
    // With shared storages either node will do.
    pve.run("[store.update(shared=1, nodes='') for store in pve.storages.values()] and None").await;
    for id in [catalogue.lxc.0, catalogue.vm.0] {
        let sources = json!([{ "hostId": catalogue.host, "source": "x" }]);
        app.provider.put(&image(id), json!({ "sources": sources, "verify": false })).await.expect(200);
    }
    let sources = |source: &str| json!({ "sources": [{ "hostId": catalogue.host, "source": source }] });
    use conformance::fakepve::{ARCHIVE, TEMPLATE};
    app.provider.put(&image(catalogue.lxc.0), sources(ARCHIVE)).await.expect(200);
    app.provider.put(&image(catalogue.vm.0), sources(TEMPLATE)).await.expect(200);
    let known: Vec<Vec<String>> =
        sqlx::query_scalar("select nodes from image_sources order by image_id").fetch_all(&app.db.pool).await.unwrap();
    assert_eq!(known, [["pve1", "pve2"], ["pve1", "pve2"]]);
    for wish in [catalogue.container(), catalogue.machine()] {
        let server = order(&app, wish).await;
        assert_eq!(node(&app, &server).await, "pve2", "{server}");
    }
    // Refused attempts leave nothing behind.
    pve.assert_no_orphan("after all").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_room_or_storage_is_passed_over() {
    let (app, pve, catalogue) = pve().await;
    pve.run("pve.add_node('pve2')").await;
    pve.run("[store.update(shared=1) for store in pve.storages.values()] and None").await;
    sweep(&app).await;
    for (wish, way) in [(catalogue.container(), "/lxc"), (catalogue.machine(), "/clone")] {
        for text in ["out of space", "storage 'local-lvm' is not available on node 'it'"] {
            sqlx::query("update image_sources set nodes = null").execute(&app.db.pool).await.unwrap();
            pve.run(&format!("pve.fail('POST', '{way}', 500, \"{text}\", times=1)")).await;
            order(&app, wish.clone()).await;
            pve.run("pve.failures.clear()").await;
        }
    }
    pve.assert_no_orphan("passed over").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_in_maintenance_keeps_its_servers_and_gets_no_new_ones() {
    let (app, pve, catalogue) = pve().await;
    pve.run("pve.add_node('pve2')").await;
    pve.run("[store.update(shared=1) for store in pve.storages.values()] and None").await;
    let check = format!("/api/hosts/{}/check", catalogue.host);
    app.provider.post(&check, None).await.expect(200);
    let servers = [order(&app, catalogue.container()).await, order(&app, catalogue.container()).await];
    let nodes = [node(&app, &servers[0]).await, node(&app, &servers[1]).await];
    let there = nodes.iter().position(|node| node == "pve2").expect("the one with more room comes next");
    assert_ne!(nodes[0], nodes[1]);

    pve.run("pve.maintenance.add('pve2')").await;
    sweep(&app).await;
    for _ in 0..3 {
        let server = order(&app, catalogue.container()).await;
        assert_eq!(node(&app, &server).await, "pve1");
    }
    let checked = app.provider.post(&check, None).await.expect(200).body;
    assert!(checked["problems"].to_string().contains("pve2 is in maintenance"), "{checked}");
    assert_eq!(status(&app, &servers[there]).await["status"], "running");
    let path = format!("/api/server/{}/restart", servers[there]["id"]);
    let restarted = app.customer.post(&path, None).await.expect(200).body;
    assert_eq!(ended(&app.customer, &restarted["operationId"]).await["state"], "succeeded");

    pve.run("pve.maintenance.clear()").await;
    sweep(&app).await;
    let server = order(&app, catalogue.container()).await;
    assert_eq!(node(&app, &server).await, "pve2", "it has the most room");
    pve.assert_no_orphan("after the maintenance").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_storage_is_counted_once() {
    let (app, pve, catalogue) = pve().await;
    pve.run("pve.add_node('pve2')").await;
    pve.run("pve.storages['local-lvm'].update(shared=1)").await;
    let host = format!("/api/hosts/{}", catalogue.host);
    let checked = app.provider.post(&format!("{host}/check"), None).await.expect(200).body;
    assert!(checked["problems"].as_array().unwrap().iter().all(|p| p.to_string().contains("Debian VM")), "{checked}");
    // 100 GiB counted once: room for three servers of 3 GiB.
    app.provider.put(&host, json!({ "diskOvercommit": 0.1 })).await.expect(200);
    let mut servers = vec![];
    for _ in 0..3 {
        servers.push(order(&app, catalogue.container()).await);
    }
    let shown = app.provider.get(&host).await.expect(200).body;
    assert!(shown["nodes"].as_array().unwrap().iter().all(|n| n["diskShared"] == true && n["disk"] == 100), "{shown}");
    let mut nodes = vec![node(&app, &servers[0]).await, node(&app, &servers[1]).await];
    nodes.sort();
    assert_eq!(nodes, ["pve1", "pve2"]);
    app.customer.post("/api/server/create", catalogue.container()).await.expect(507);
    let grow = json!({ "disk": 5 });
    let resize = format!("/api/server/{}/resize", servers[0]["id"]);
    app.provider.put(&resize, grow.clone()).await.expect(507);
    // Once each node has its own again, there is room on both.
    pve.run("pve.storages['local-lvm'].update(shared=0)").await;
    sweep(&app).await;
    order(&app, catalogue.container()).await;
    let resized = app.provider.put(&resize, grow).await.expect(200).body;
    assert_eq!(ended(&app.provider, &resized["operationId"]).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_without_addresses_is_tried_once_however_many_nodes_it_has() {
    let (app, pve, catalogue) = pve().await;
    pve.run("[pve.add_node('pve%d' % n) for n in range(2, 12)] and None").await;
    sweep(&app).await;
    sqlx::query("update image_sources set nodes = null").execute(&app.db.pool).await.unwrap();
    app.provider.put(&format!("/api/address-pools/{}", catalogue.pool), json!({ "enabled": false })).await.expect(200);
    // A sequence is not rolled back with the transaction.
    for statement in [
        "create sequence tries",
        "create function tried() returns trigger language plpgsql
         as $$ begin perform nextval('tries'); return new; end $$",
        "create trigger tried after update of node on servers for each row execute function tried()",
    ] {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&app.db.pool).await.unwrap();
    }
    let refused = app.customer.post("/api/server/create", catalogue.container()).await.expect(507).body;
    assert!(refused["error"].to_string().contains("address"), "{refused}");
    let tries: i64 = sqlx::query_scalar("select last_value from tries").fetch_one(&app.db.pool).await.unwrap();
    assert_eq!(tries, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unusable_snapshot_is_refused_before_anything_happens() {
    let (app, pve, catalogue) = pve().await;
    let limits = json!({ "snapshots": 5 });
    app.provider.put(&format!("/api/tariffs/{}", catalogue.lxc.1), limits).await.expect(200);
    let server = order(&app, catalogue.container()).await;
    let path = format!("/api/server/{}/snapshots", server["id"]);
    let guest = format!("guest({})", server["proxmoxId"]);
    for name in ["whole", "half"] {
        let taken = app.customer.post(&path, json!({ "snapname": name })).await.expect(200).body;
        assert_eq!(ended(&app.customer, &taken["operationId"]).await["state"], "succeeded");
    }
    pve.run(&format!("{guest}.snapshots['half'].update(snapstate='prepare')")).await;
    let list = app.customer.get(&path).await.expect(200).body;
    let usable: Vec<_> = list["data"].as_array().unwrap().iter().map(|s| (&s["name"], &s["usable"])).collect();
    assert_eq!(usable, [(&json!("whole"), &json!(true)), (&json!("half"), &json!(false))]);
    let before = pve.run(&format!("[{guest}.config['description'], len(pve.tasks)]")).await;
    let back = |name: &str| json!({ "snapname": name, "safetySnapshot": true });
    let refused = app.customer.post(&format!("{path}/rollback"), back("half")).await.expect(409).body;
    assert!(refused["error"].to_string().contains("incomplete"), "{refused}");

    // Somebody's notes that leave no room for ours.
    let notes = format!("{guest}.config.update(description='é' * 8000 + '\\r\\n\\n' + {guest}.config['description'])");
    pve.run(&notes).await;
    let long = pve.run(&format!("{guest}.config['description']")).await;
    let refused = app.customer.post(&format!("{path}/rollback"), back("whole")).await.expect(409).body;
    assert!(refused["error"].to_string().contains("shortened"), "{refused}");
    assert_eq!(pve.run(&format!("[{guest}.config['description'], len(pve.tasks)]")).await[1], before[1]);
    assert_eq!(pve.run(&format!("{guest}.config['description']")).await, long);
    assert_eq!(status(&app, &server).await["status"], "running");
    let operations = app.customer.get(&format!("/api/server/{}/operations", server["id"])).await.expect(200).body;
    assert!(!operations.to_string().contains("rollback"), "{operations}");

    // Shorter notes are kept unchanged.
    let short = "'a line\\r\\n\\n  another \\n' + DESC".replace("DESC", &before[0].to_string().replace('"', "'"));
    pve.run(&format!("{guest}.config.update(description={short})")).await;
    let notes = pve.run(&format!("{guest}.config['description']")).await;
    let rolled = app.customer.post(&format!("{path}/rollback"), json!({ "snapname": "whole" })).await.expect(200).body;
    assert_eq!(ended(&app.customer, &rolled["operationId"]).await["state"], "succeeded");
    let after = pve.run(&format!("{guest}.config['description']")).await;
    assert_eq!(after.as_str().unwrap().trim_end(), notes.as_str().unwrap().trim_end());
    // An incomplete snapshot can be deleted.
    let half = Some(json!({ "snapname": "half" }));
    let deleted = app.customer.send(reqwest::Method::DELETE, &path, half).await.expect(200).body;
    assert_eq!(ended(&app.customer, &deleted["operationId"]).await["state"], "succeeded");
    eventually(&app.customer, &path, |list| list["data"].as_array().is_some_and(|all| all.len() == 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_moves_to_another_host_takes_its_operations_along() {
    let (app, first, catalogue) = pve().await;
    app.db.hold_operations().await;
    let created = app.customer.post("/api/server/create", catalogue.container()).await.expect(200).body;
    let path = format!("/api/server/{}", created["id"]);
    app.provider.post(&format!("{path}/suspend"), json!({ "reason": "unpaid" })).await.expect(200);

    // Another host that has the image; the first one has lost it.
    let second = Pve::new(&app.db).await;
    let host = json!({ "name": "second", "kind": "proxmox", "config": second.settings() });
    let host = app.provider.post("/api/hosts", host).await.expect(201).body["id"].clone();
    let pool = json!({ "hostId": host, "name": "second", "cidr": "10.7.0.0/24", "gateway": "10.7.0.1",
                       "first": "10.7.0.10", "last": "10.7.0.20", "bridge": "vmbr0" });
    app.provider.post("/api/address-pools", pool).await.expect(201);
    use conformance::fakepve::ARCHIVE;
    let sources = json!([{ "hostId": catalogue.host, "source": ARCHIVE }, { "hostId": host, "source": ARCHIVE }]);
    app.provider.put(&format!("/api/images/{}", catalogue.lxc.0), json!({ "sources": sources })).await.expect(200);
    first.canned("POST", "/nodes/pve1/lxc", 500, "volume 'local:vztmpl/gone' does not exist", "{}").await;
    sweep(&app).await;
    app.db.release_operations().await;
    ended(&app.customer, &created["operationId"]).await;
    let on: i64 = sqlx::query_scalar("select host_id from servers").fetch_one(&app.db.pool).await.unwrap();
    assert_eq!(json!(on), host);
    app.all_ended(crate::support::wait::PATIENCE).await;
    let lanes: Vec<(String, String)> =
        sqlx::query_as("select kind, lane from operations order by created_at").fetch_all(&app.db.pool).await.unwrap();
    let lane = format!("host:{on}");
    assert_eq!(lanes, [("create".to_owned(), lane.clone()), ("suspend".to_owned(), lane)]);
}
