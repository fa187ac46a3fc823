//! What a host would refuse is found out before anything is touched, and explained to those who can act on it.

use kernel::operations::failpoints::Action;
use proxmox::Proxmox;
use serde_json::{Value, json};

use crate::support::pve::Catalogue;
use crate::support::{Lab, Pve, TestApp, ended, eventually, expect_error, wait_for};

/// A service with a Proxmox VE host and one running server of each kind.
struct Two {
    app: TestApp,
    pve: Pve,
    catalogue: Catalogue,
    servers: Vec<Server>,
}

struct Server {
    path: String,
    number: i64,
    kind: &'static str,
    tool: &'static str,
    image: i64,
}

impl Two {
    async fn new() -> Self {
        let app = TestApp::with(|c| {
            c.operation_deadline_seconds = 900;
            c.undo_deadline_seconds = 3600;
        })
        .await;
        let pve = Pve::new(&app.db).await;
        let catalogue = pve.register(&app.provider).await;
        let mut servers = Vec::new();
        for (order, kind, tool, image) in [
            (catalogue.container(), "lxc", "pct", catalogue.lxc.0),
            (catalogue.machine(), "qemu", "qm", catalogue.vm.0),
        ] {
            let created = app.customer.post("/api/server/create", order).await.expect(200).body;
            let operation = ended(&app.customer, &created["operationId"]).await;
            assert_eq!(operation["state"], "succeeded", "{operation}");
            let path = format!("/api/server/{}", created["id"]);
            let shown = app.customer.get(&path).await.expect(200).body;
            servers.push(Server { path, number: shown["proxmoxId"].as_i64().unwrap(), kind, tool, image });
        }
        Self { app, pve, catalogue, servers }
    }

    /// A guest's state: whether it runs, starts with its node, is shown as running, and is meant to run.
    async fn standing(&self, server: &Server) -> Value {
        let guest = format!("[guest({0}).status, str(guest({0}).config.get('onboot'))]", server.number);
        let wanted: bool = sqlx::query_scalar("select wanted_up from servers where guest_number = $1")
            .bind(server.number)
            .fetch_one(&self.app.db.pool)
            .await
            .unwrap();
        let shown = self.app.customer.get(&server.path).await.expect(200).body;
        json!([self.pve.run(&guest).await, shown["status"], wanted])
    }

    async fn operations(&self) -> i64 {
        sqlx::query_scalar("select count(*) from operations").fetch_one(&self.app.db.pool).await.unwrap()
    }

    /// How an operation ended, as the provider sees it.
    async fn told(&self, id: &Value) -> Value {
        ended(&self.app.provider, id).await
    }
}

/// Running, and meant to run.
fn up() -> Value {
    json!([["running", "1"], "running", true])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removing_a_protected_guest_is_refused_before_it_is_touched() {
    let two = Two::new().await;
    let me = &two.app.customer;
    for server in &two.servers {
        let (number, path) = (server.number, &server.path);
        let reinstall = (format!("{path}/reinstall"), json!({ "osId": server.image }));
        two.pve.run(&format!("guest({number}).config.update(protection=1)")).await;
        let (before, count) = (two.standing(server).await, two.operations().await);
        assert_eq!(before, up(), "{}", server.kind);
        for refused in [me.delete(path).await.expect(409), me.post(&reinstall.0, reinstall.1.clone()).await.expect(409)]
        {
            let command = format!("{} set {number} --protection 0", server.tool);
            assert_eq!(refused.body["code"], "CONFLICT");
            assert!(refused.body["error"].as_str().unwrap().contains(&command), "{}", refused.text);
        }
        assert_eq!((two.standing(server).await, two.operations().await), (before.clone(), count));

        // If the host can't say so at once, the operation's first step does.
        let config = format!("/{number}/config");
        for what in ["delete", "reinstall"] {
            two.pve.fail("GET", &config, "no_quorum", 1).await;
            let answer = match what {
                "delete" => me.delete(path).await,
                _ => me.post(&reinstall.0, reinstall.1.clone()).await,
            };
            // The answer to a reinstallation waits a moment for its operation.
            if answer.status == 200 {
                let operation = two.told(&answer.body["operationId"]).await;
                assert_eq!((&operation["state"], &operation["error"]["code"]), (&json!("failed"), &json!("CONFLICT")));
                assert!(operation.to_string().contains("--protection 0"), "{operation}");
            } else {
                assert_eq!((answer.status, &answer.body["code"]), (409, &json!("CONFLICT")), "{}", answer.text);
                eventually(me, path, |s| s["status"] == "running").await;
            }
            assert_eq!(two.standing(server).await, before, "{what}");
        }
        assert!(two.operations().await > count, "the operations refused it");
        let stops = two.pve.run(&format!("len([a for a in pve.asked if '/{number}/status/stop' in a[1]])")).await;
        assert_eq!(stops, 0);
        two.pve.run(&format!("guest({number}).config.pop('protection') and None")).await;
        let deleted = me.delete(path).await.expect(200).body;
        assert_eq!(two.told(&deleted["operationId"]).await["state"], "succeeded");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_stopped_for_a_failed_deletion_is_started_again() {
    let two = Two::new().await;
    let me = &two.app.customer;
    for server in &two.servers {
        let (number, path) = (server.number, &server.path);
        for what in ["delete", "reinstall"] {
            let suffix = format!("/nodes/pve1/{}/{number}", server.kind);
            two.pve.run(&format!("pve.fail('DELETE', '{suffix}', 500, 'the data set is busy', times=1)")).await;
            let answer = match what {
                "delete" => me.delete(path).await.expect(200).body,
                _ => {
                    let wish = json!({ "osId": server.image });
                    me.post(&format!("{path}/reinstall"), wish).await.expect(200).body
                }
            };
            let operation = two.told(&answer["operationId"]).await;
            assert_eq!(operation["state"], "failed", "{what}: {operation}");
            assert!(operation["error"]["detail"].as_str().unwrap().contains("busy"), "{operation}");
            assert_eq!(two.standing(server).await, up(), "{} {what}", server.kind);
        }
    }
    two.pve.assert_no_orphan("deletions that failed").await;
}

/// A reinstallation that can't succeed is refused while the server still has its data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reinstall_that_can_t_succeed_does_not_remove_the_old_guest() {
    let two = Two::new().await;
    let rights = Proxmox::privileges(9, "local-lvm", None);
    for server in &two.servers {
        let wish = json!({ "osId": server.image });
        for lost in ["VM.Config.Options", "Datastore.AllocateSpace"] {
            for (path, privileges) in rights.iter().chain(&[("/storage/local".to_owned(), vec!["Datastore.Audit"])]) {
                let kept: Vec<_> = privileges.iter().filter(|p| **p != lost).map(|p| format!(", '{p}'")).collect();
                two.pve.run(&format!("pve.grant('innkeeper@pve', '{path}'{})", kept.concat())).await;
            }
            let answer = two.app.customer.post(&format!("{}/reinstall", server.path), wish.clone()).await;
            assert!(matches!(answer.status, 200 | 502), "{}", answer.text);
            let id: uuid::Uuid = sqlx::query_scalar("select id from operations order by created_at desc limit 1")
                .fetch_one(&two.app.db.pool)
                .await
                .unwrap();
            let operation = two.told(&json!(id)).await;
            assert_eq!((&operation["state"], &operation["error"]["code"]), (&json!("failed"), &json!("HOST_ERROR")));
            let error = &operation["error"];
            assert!(error["detail"].as_str().unwrap().contains(lost), "{operation}");
            assert!(error["message"].as_str().unwrap().contains("Nothing of the server was changed"), "{operation}");
            two.pve.run("setattr(pve, 'acl', None)").await;
            assert_eq!(two.standing(server).await, up(), "{} without {lost}", server.kind);
        }
    }
    let deleted = two.pve.run("[a[1] for a in pve.asked if a[0] == 'DELETE']").await;
    assert_eq!(deleted, json!([]));
}

/// The privileges that `host pveum --pool` grants suffice for an order and for a reinstallation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pool_privileges_suffice_to_create_and_reinstall_servers() {
    let two = Two::new().await;
    let me = &two.app.customer;
    let mut settings = two.pve.settings();
    settings["pool"] = json!("innkeeper");
    two.pve.run("pve.pools.setdefault('innkeeper', set()).add(9000)").await;
    let mut rights = Proxmox::privileges(9, "local-lvm", Some("innkeeper"));
    rights.push(("/storage/local".to_owned(), vec!["Datastore.Audit"]));
    for (path, privileges) in rights {
        let privileges: Vec<_> = privileges.iter().map(|p| format!(", '{p}'")).collect();
        two.pve.run(&format!("pve.grant('innkeeper@pve', '{path}'{})", privileges.concat())).await;
    }
    two.app
        .provider
        .put(&format!("/api/hosts/{}", two.catalogue.host), json!({ "config": settings }))
        .await
        .expect(200);
    // For VMs' cloud-init values the fake asks for a privilege that no real node asks for.
    let created = me.post("/api/server/create", two.catalogue.container()).await.expect(200).body;
    let operation = two.told(&created["operationId"]).await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    let path = format!("/api/server/{}", created["id"]);
    let wish = json!({ "osId": two.catalogue.lxc.0 });
    let answer = me.post(&format!("{path}/reinstall"), wish).await.expect(200).body;
    let operation = two.told(&answer["operationId"]).await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    let deleted = me.delete(&path).await.expect(200).body;
    assert_eq!(two.told(&deleted["operationId"]).await["state"], "succeeded");
    two.pve.assert_no_orphan("in a pool").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_lock_fails_operations_at_once_and_does_no_harm() {
    let two = Two::new().await;
    let me = &two.app.customer;
    for tariff in [two.catalogue.lxc.1, two.catalogue.vm.1] {
        let limits = json!({ "maxCores": 4, "maxMemory": 4096, "maxDisk": 80 });
        two.app.provider.put(&format!("/api/tariffs/{tariff}"), limits).await.expect(200);
    }
    for server in &two.servers {
        let (number, path) = (server.number, &server.path);
        two.pve.run(&format!("pve.snapshot_lock({number}, 'snapshot-delete')")).await;
        for what in ["restart", "stop", "resize", "delete"] {
            let answer = match what {
                "delete" => me.delete(path).await,
                "resize" => {
                    let wish = json!({ "disk": 4, "allowRestart": true });
                    me.put(&format!("{path}/resize"), wish).await
                }
                _ => me.post(&format!("{path}/{what}"), None).await,
            };
            assert!(matches!(answer.status, 200 | 409), "{what}: {}", answer.text);
            let id: uuid::Uuid = sqlx::query_scalar("select id from operations order by created_at desc limit 1")
                .fetch_one(&two.app.db.pool)
                .await
                .unwrap();
            let operation = two.told(&json!(id)).await;
            assert_eq!(
                (&operation["state"], &operation["error"]["code"]),
                (&json!("failed"), &json!("LOCKED")),
                "{what}: {operation}"
            );
            let unlock = format!("{} unlock {number}", server.tool);
            assert!(operation["error"]["detail"].as_str().unwrap().contains(&unlock), "{what}: {operation}");
            assert_eq!(two.pve.run(&format!("guest({number}).status")).await, "running", "{what}");
        }
        two.pve.run(&format!("pve.unlock({number})")).await;
        let restarted = me.post(&format!("{path}/restart"), None).await.expect(200).body;
        assert_eq!(two.told(&restarted["operationId"]).await["state"], "succeeded");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_waits_for_a_backup_to_end() {
    let two = Two::new().await;
    let server = &two.servers[0];
    two.pve.run("pve.time_scale = 1").await;
    two.pve.run(&format!("pve.backup({}, secs=3600)", server.number)).await;
    let answer = two.app.customer.post(&format!("{}/restart", server.path), None).await.expect(200).body;
    let id = answer["operationId"].as_str().unwrap();
    let waiting = |o: &Value| o["error"]["code"] == "LOCKED";
    eventually(&two.app.customer, &format!("/api/operations/{id}"), waiting).await;
    assert_eq!(two.pve.run(&format!("guest({}).status", server.number)).await, "running");
    let ends = "[t.update(status='stopped', exitstatus='OK') for t in pve.tasklog if t['type'] == 'vzdump'] and None";
    two.pve.run(ends).await;
    two.pve.run(&format!("pve.unlock({})", server.number)).await;
    let operation = two.told(&answer["operationId"]).await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    let order = "[a[1].rsplit('/', 1)[1] for a in pve.asked if a[0] == 'POST' and '/status/' in a[1]][-1]";
    assert_eq!(two.pve.run(order).await, "reboot");
}

/// An order whose guest exists but can't be started yet: its number and its operation.
async fn order_that_cannot_start() -> (TestApp, Pve, i64, String) {
    let app = TestApp::with(|c| c.undo_deadline_seconds = 3600).await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    pve.run("pve.fail('POST', '/status/start', error='config_lock_timeout')").await;
    let created = app.customer.post("/api/server/create", catalogue.container()).await.expect(200).body;
    let number = created["proxmoxId"].as_i64().unwrap();
    let operation = created["operationId"].as_str().unwrap().to_owned();
    let path = format!("/api/operations/{operation}");
    eventually(&app.provider, &path, |o| o["step"] == "start_guest" && o["error"]["code"] == "LOCKED").await;
    (app, pve, number, operation)
}

/// An order's undo that is blocked by somebody's protection says so where the provider looks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_undo_says_why() {
    expect_error("operation is stuck");
    let (app, pve, number, operation) = order_that_cannot_start().await;
    let path = format!("/api/operations/{operation}");
    pve.run(&format!("guest({number}).config.update(protection=1)")).await;
    pve.run(&format!("setattr(guest({number}), 'start_error', 'its start broke')")).await;
    pve.run("pve.failures.clear()").await;
    let stuck = eventually(&app.provider, &path, |o| o["state"] == "stuck").await;
    let detail = stuck["error"]["detail"].as_str().unwrap();
    assert!(
        detail.contains("its start broke") && detail.contains(&format!("pct set {number} --protection 0")),
        "{stuck}"
    );
    // Once that is fixed it goes on, and only the original failure is left to report.
    pve.run(&format!("guest({number}).config.pop('protection') and None")).await;
    app.provider.post(&format!("{path}/retry"), None).await.expect(200);
    let operation = ended(&app.provider, &json!(operation)).await;
    assert_eq!(operation["state"], "failed", "{operation}");
    let detail = operation["error"]["detail"].as_str().unwrap();
    assert!(detail.contains("its start broke") && !detail.contains("protect"), "{operation}");
    pve.assert_no_orphan("a protected one").await;
}

/// A lock that was left behind does not pass by itself either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undo_blocked_by_a_stale_lock_is_stuck_at_once() {
    expect_error("operation is stuck");
    let (app, pve, number, operation) = order_that_cannot_start().await;
    let path = format!("/api/operations/{operation}");
    pve.run(&format!("guest({number}).config.update(lock='create')")).await;
    pve.run("pve.failures.clear()").await;
    let stuck = eventually(&app.provider, &path, |o| o["state"] == "stuck").await;
    let detail = stuck["error"]["detail"].as_str().unwrap();
    assert!(detail.contains(&format!("pct unlock {number}")), "{stuck}");
    pve.run(&format!("guest({number}).config.pop('lock') and None")).await;
    app.provider.post(&format!("{path}/retry"), None).await.expect(200);
    assert_eq!(ended(&app.provider, &json!(operation)).await["state"], "failed");
    pve.assert_no_orphan("a locked one").await;
}

/// A guest that can't be started again ends a rollback or a resize: its server is not held for as long as that lasts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_can_t_be_started_again_ends_the_work_on_it() {
    let two = Two::new().await;
    let me = &two.app.customer;
    let limits = json!({ "maxCores": 4, "maxMemory": 4096, "maxDisk": 80 });
    two.app.provider.put(&format!("/api/tariffs/{}", two.catalogue.vm.1), limits).await.expect(200);
    for (what, server) in [("rollback", &two.servers[0]), ("resize", &two.servers[1]), ("rollback", &two.servers[1])] {
        let (number, path) = (server.number, &server.path);
        let name = json!({ "snapname": "one" });
        if what == "rollback" {
            let taken = me.post(&format!("{path}/snapshots"), name.clone()).await.expect(200).body;
            assert_eq!(two.told(&taken["operationId"]).await["state"], "succeeded");
        }
        let broken = async |error: &str| {
            two.pve.run(&format!("setattr(guest({number}), 'start_error', {error})")).await;
        };
        broken("'cannot allocate memory'").await;
        let begun = match what {
            "rollback" => me.post(&format!("{path}/snapshots/rollback"), name).await,
            _ => me.put(&format!("{path}/resize"), json!({ "cores": 2, "allowRestart": true })).await,
        };
        let operation = two.told(&begun.expect(200).body["operationId"]).await;
        assert_eq!(operation["state"], "failed", "{what}: {operation}");
        assert!(operation["error"]["detail"].as_str().unwrap().contains("cannot allocate memory"), "{operation}");
        assert_eq!(me.get(path).await.expect(200).body["status"], "stopped", "{what}");
        let id = operation["id"].as_str().unwrap();
        let log = two.app.provider.get(&format!("/api/operations/{id}/log")).await.expect(200).text;
        assert!(log.contains("could not be started again"), "{what}: {log}");
        broken("None").await;
        let started = me.post(&format!("{path}/start"), None).await.expect(200).body;
        assert_eq!(two.told(&started["operationId"]).await["state"], "succeeded", "{what}");
    }
}

/// One that goes down right after its start ends the work all the same, and the operation's log has its last words.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_goes_down_after_a_resize_is_told() {
    let two = Two::new().await;
    let (me, server) = (&two.app.customer, &two.servers[1]);
    let limits = json!({ "maxCores": 4, "maxMemory": 4096, "maxDisk": 80 });
    two.app.provider.put(&format!("/api/tariffs/{}", two.catalogue.vm.1), limits).await.expect(200);
    let points = &two.app.core.engine.failpoints;
    points.arm("resize:start_guest:acted", Action::Hold);
    let wish = json!({ "cores": 2, "allowRestart": true });
    let begun = me.put(&format!("{}/resize", server.path), wish).await.expect(200).body;
    wait_for("the guest's start", async || points.all_fired().then_some(())).await;
    let guest = format!("guest({})", server.number);
    two.pve.run(&format!("(setattr({guest}, 'status', 'stopped'), setattr({guest}, 'qmpstatus', 'stopped'))")).await;
    points.let_go();
    let operation = two.told(&begun["operationId"]).await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert_eq!(me.get(&server.path).await.expect(200).body["status"], "stopped");
    let id = begun["operationId"].as_str().unwrap();
    let log = two.app.provider.get(&format!("/api/operations/{id}/log")).await.expect(200).text;
    assert!(log.contains("stopped right after its start"), "{log}");
}

/// A clone does not inherit its template's protection, so a failed creation can be undone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_from_a_protected_template_can_be_undone_and_deleted() {
    let app = TestApp::new().await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    pve.run("guest(9000).config.update(protection=1)").await;
    pve.fail("POST", "/status/start", "missing_rootfs_configuration", 1).await;
    let order = async || {
        let created = app.customer.post("/api/server/create", catalogue.machine()).await.expect(200).body;
        (ended(&app.customer, &created["operationId"]).await, created)
    };
    let (operation, _) = order().await;
    assert_eq!(operation["state"], "failed", "{operation}");
    pve.assert_no_orphan("undone").await;
    let (operation, created) = order().await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    let deleted = app.customer.delete(&format!("/api/server/{}", created["id"])).await.expect(200).body;
    assert_eq!(ended(&app.customer, &deleted["operationId"]).await["state"], "succeeded");
    pve.assert_no_orphan("deleted").await;
}

/// The same on Incus, with a real container.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removing_a_protected_incus_guest_is_refused_before_it_is_touched() {
    let app = TestApp::new().await;
    let lab = Lab::new(&app.db).await;
    let catalogue = lab.register(&app.provider).await;
    let created = app.customer.post("/api/server/create", catalogue.order()).await.expect(200).body;
    assert_eq!(ended(&app.customer, &created["operationId"]).await["state"], "succeeded");
    let path = format!("/api/server/{}", created["id"]);
    let name = format!("ink-{}", app.customer.get(&path).await.expect(200).body["proxmoxId"]);
    let incus = reqwest::Client::builder().unix_socket(lab.incus.socket.as_str()).pool_max_idle_per_host(0).no_proxy();
    let incus = incus.build().unwrap();
    let protect = async |on: &str| {
        let url = format!("http://incus/1.0/instances/{name}?project={}", lab.incus.project);
        let change = json!({ "config": { "security.protection.delete": on } }).to_string();
        let answer = incus.patch(url).body(change).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    };
    protect("true").await;
    let reinstall = (format!("{path}/reinstall"), json!({ "osId": catalogue.image }));
    let refused = [app.customer.delete(&path).await, app.customer.post(&reinstall.0, reinstall.1.clone()).await];
    let shown = app.customer.get(&path).await.expect(200).body;
    protect("false").await;
    for refused in refused {
        let command = format!("incus config set {name} security.protection.delete=false");
        assert!(refused.status == 409 && refused.text.contains(&command), "{}", refused.text);
    }
    assert_eq!(shown["status"], "running");
    let operations: i64 = sqlx::query_scalar("select count(*) from operations").fetch_one(&app.db.pool).await.unwrap();
    assert_eq!((operations, lab.guests().await), (1, 1), "no operation was started");
    let deleted = app.customer.delete(&path).await.expect(200).body;
    assert_eq!(ended(&app.customer, &deleted["operationId"]).await["state"], "succeeded");
}
