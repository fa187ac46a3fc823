//! What makes workflows trustworthy: each step failing in turn leaves a clean slate; each undo repeated changes
//! nothing; each action repeated changes nothing. On real containers.

use kernel::operations::failpoints::Action;
use serde_json::{Value, json};

use crate::support::lab::Catalogue;
use crate::support::{Lab, TestApp, ended, expect_error};

/// The answer of a request that waited for an operation with an injected fault.
const INJECTED: &str = "This fault was injected.";

async fn lab() -> (TestApp, Lab, Catalogue) {
    let app = TestApp::new().await;
    let lab = Lab::new(&app.db).await;
    let catalogue = lab.register(&app.provider).await;
    (app, lab, catalogue)
}

fn steps(app: &TestApp, kind: &str) -> Vec<&'static str> {
    app.service.features.operations.workflow(kind).expect("a workflow").steps()
}

async fn create(app: &TestApp, catalogue: &Catalogue) -> (Value, Value) {
    let server = app.customer.post("/api/server/create", catalogue.order()).await.expect(200).body;
    let operation = ended(&app.customer, &server["operationId"]).await;
    (server, operation)
}

async fn delete(app: &TestApp, server: &Value) -> Value {
    let deleted = app.customer.delete(&format!("/api/server/{}", server["id"])).await.expect(200).body;
    ended(&app.customer, &deleted["operationId"]).await
}

async fn count(app: &TestApp, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&app.db.pool).await.unwrap()
}

async fn addresses(app: &TestApp) -> i64 {
    count(app, "select count(*) from addresses where server_id is not null").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_that_fails_at_any_step_leaves_a_clean_slate() {
    let (app, lab, catalogue) = lab().await;
    for step in steps(&app, "create") {
        for boundary in ["before", "acted"] {
            let point = format!("create:{step}:{boundary}");
            app.core.engine.failpoints.arm(&point, Action::Fail);
            let (server, operation) = create(&app, &catalogue).await;
            assert_eq!(operation["state"], "failed", "{point}: {operation}");
            assert_eq!(operation["error"]["code"], "INTERNAL", "{point}");
            assert!(app.core.engine.failpoints.all_fired(), "{point}");
            assert_eq!(lab.guests().await, 0, "{point}");
            assert_eq!(addresses(&app).await, 0, "{point}");
            let path = format!("/api/server/{}", server["id"]);
            assert_eq!(app.customer.get(&path).await.expect(200).body["status"], "failed");
            // It can be deleted, and nothing else can be done with it.
            app.customer.post(&format!("{path}/start"), None).await.expect(409);
            let deleted = app.customer.delete(&path).await.expect(200).body;
            assert_eq!(deleted, json!({ "status": "deleted", "operationId": null }));
            app.customer.get(&path).await.expect(404);
        }
    }
    assert_eq!(count(&app, "select count(*) from mails").await, 0, "no server was ready");
    assert_eq!(count(&app, "select count(*) from servers where reserved").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeating_every_action_and_every_undo_changes_nothing() {
    let (app, lab, catalogue) = lab().await;
    let points = &app.core.engine.failpoints;
    for step in steps(&app, "create") {
        points.arm(&format!("create:{step}:acted"), Action::Repeat);
    }
    let (server, operation) = create(&app, &catalogue).await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert!(points.all_fired());
    assert_eq!((lab.guests().await, addresses(&app).await), (1, 1));
    assert_eq!(count(&app, "select count(*) from mails").await, 1);

    for kind in ["stop", "start", "restart", "password"] {
        for step in steps(&app, kind) {
            points.arm(&format!("{kind}:{step}:acted"), Action::Repeat);
        }
        let path = format!("/api/server/{}/{kind}", server["id"]);
        let action = app.customer.post(&path, None).await.expect(200).body;
        assert_eq!(ended(&app.customer, &action["operationId"]).await["state"], "succeeded", "{kind}");
        assert!(points.all_fired(), "{kind}");
    }

    for step in steps(&app, "delete") {
        points.arm(&format!("delete:{step}:acted"), Action::Repeat);
    }
    assert_eq!(delete(&app, &server).await["state"], "succeeded");
    assert!(points.all_fired());
    assert_eq!((lab.guests().await, addresses(&app).await), (0, 0));

    // The undo, each step of it twice, from the last step, where there is most to undo.
    let steps = steps(&app, "create");
    points.arm(&format!("create:{}:before", steps.last().unwrap()), Action::Fail);
    for step in &steps {
        points.arm(&format!("create:{step}:undo-acted"), Action::Repeat);
    }
    let (_, operation) = create(&app, &catalogue).await;
    assert_eq!(operation["state"], "failed", "{operation}");
    assert!(points.all_fired());
    assert_eq!((lab.guests().await, addresses(&app).await), (0, 0));
    assert_eq!(count(&app, "select count(*) from mails").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_that_fails_at_any_step_can_be_retried() {
    let (app, lab, catalogue) = lab().await;
    for step in steps(&app, "delete") {
        for boundary in ["before", "acted"] {
            let (server, operation) = create(&app, &catalogue).await;
            assert_eq!(operation["state"], "succeeded", "{operation}");
            let point = format!("delete:{step}:{boundary}");
            app.core.engine.failpoints.arm(&point, Action::Fail);
            assert_eq!(delete(&app, &server).await["state"], "failed", "{point}");
            // The server still belongs to its owner, with its address, and shows its real status.
            assert_eq!(addresses(&app).await, 1, "{point}");
            let gone = lab.guests().await == 0;
            let status = app.customer.get(&format!("/api/server/{}", server["id"])).await.expect(200).body;
            assert_eq!(status["status"], if gone { "unknown" } else { "running" }, "{point}");
            assert_eq!(delete(&app, &server).await["state"], "succeeded", "{point}");
            assert_eq!((lab.guests().await, addresses(&app).await), (0, 0), "{point}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_power_or_password_operation_leaves_the_true_status() {
    expect_error(INJECTED);
    let (app, lab, catalogue) = lab().await;
    let (server, operation) = create(&app, &catalogue).await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    let path = format!("/api/server/{}", server["id"]);
    for kind in ["stop", "start", "restart"] {
        for step in steps(&app, kind) {
            for boundary in ["before", "acted"] {
                app.core.engine.failpoints.arm(&format!("{kind}:{step}:{boundary}"), Action::Fail);
                let answer = app.customer.post(&format!("{path}/{kind}"), None).await;
                if answer.status == 200 {
                    // The host was still working when the answer went out.
                    assert_eq!(ended(&app.customer, &answer.body["operationId"]).await["state"], "failed");
                } else {
                    assert_eq!(answer.expect(500).code(), "INTERNAL");
                }
                let last = app.customer.get(&format!("{path}/operations?limit=1")).await.expect(200).body;
                assert_eq!((&last["data"][0]["kind"], &last["data"][0]["state"]), (&json!(kind), &json!("failed")));
                let shown = app.customer.get(&path).await.body["status"].clone();
                let found = lab.incus.driver().find(&guest(&app).await).await.unwrap();
                let running =
                    matches!(found, hypervisor::Presence::Present { power: hypervisor::GuestPower::Running, .. });
                assert_eq!(shown, if running { "running" } else { "stopped" }, "{kind}:{step}:{boundary}");
            }
        }
    }
    app.core.engine.failpoints.arm("password:set_password:before", Action::Fail);
    app.customer.post(&format!("{path}/password"), None).await.expect(500);
}

async fn guest(app: &TestApp) -> hypervisor::GuestRef {
    let (marker, vmid, node) =
        sqlx::query_as("select uuid, guest_number, node from servers").fetch_one(&app.db.pool).await.unwrap();
    hypervisor::GuestRef { marker, vmid, kind: hypervisor::GuestKind::Lxc, node }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_panics_is_retried() {
    let (app, lab, catalogue) = lab().await;
    app.core.engine.failpoints.arm("create:start_guest:before", Action::Panic);
    let (_, operation) = create(&app, &catalogue).await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert!(app.core.engine.failpoints.all_fired());
    assert_eq!(lab.guests().await, 1);
}

/// A guest with our number but without our marker is never touched: the operation waits for the provider.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_guest_is_not_deleted_and_the_provider_can_retry_the_operation() {
    expect_error("operation is stuck");
    let (app, lab, catalogue) = lab().await;
    let (server, operation) = create(&app, &catalogue).await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    // A stale row that by now names somebody else's guest.
    let before: uuid::Uuid = sqlx::query_scalar("select uuid from servers").fetch_one(&app.db.pool).await.unwrap();
    let set_uuid = async |uuid: uuid::Uuid| {
        sqlx::query("update servers set uuid = $1").bind(uuid).execute(&app.db.pool).await.unwrap();
    };
    set_uuid(uuid::Uuid::new_v4()).await;
    let operation = delete(&app, &server).await;
    assert_eq!(operation["state"], "stuck", "{operation}");
    assert_eq!(addresses(&app).await, 1, "nothing is released before the provider decides");
    app.customer.post(&format!("/api/server/{}/start", server["id"]), None).await.expect(409);

    let stuck = app.provider.get("/api/operations?state=stuck").await.expect(200).body["data"].clone();
    assert_eq!(stuck[0]["id"], operation["id"]);
    assert!(stuck[0]["error"]["detail"].as_str().unwrap().contains("marker"), "{stuck}");
    assert_eq!(operation["error"].get("detail"), None, "the host's own words are for the provider");
    set_uuid(before).await;
    assert_eq!(lab.guests().await, 1, "it was not touched");

    let path = format!("/api/operations/{}", operation["id"].as_str().unwrap());
    app.customer.post(&format!("{path}/retry"), None).await.expect(403);
    app.provider.post(&format!("{path}/retry"), None).await.expect(200);
    assert_eq!(ended(&app.customer, &operation["id"]).await["state"], "succeeded");
    assert_eq!((lab.guests().await, addresses(&app).await), (0, 0));
    let log = app.provider.get(&format!("{path}/log")).await.expect(200).body;
    assert!(log.as_array().unwrap().iter().any(|l| l["level"] == "error"), "{log}");
}

/// What a failed change must leave as it was: the size here and on the host, and that the server runs.
async fn standing(app: &TestApp, lab: &Lab, path: &str) -> Value {
    let view = app.customer.get(path).await.expect(200).body;
    let sweep = lab.incus.driver().sweep().await.unwrap();
    let marker = guest(app).await.marker;
    let seen = sweep.guests.iter().find(|g| g.marker == marker).expect("the guest is there");
    json!([
        view["status"],
        view["cores"],
        view["memory"],
        view["disk"],
        seen.cores,
        seen.memory_max.map(|bytes| bytes >> 20),
        format!("{:?}", seen.power)
    ])
}

/// Changes of a server's size and its snapshots: a failure at any step leaves it as it was; repeating actions and undos
/// changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_changes_leave_the_server_as_it_was() {
    expect_error(INJECTED);
    let (app, lab, catalogue) = lab().await;
    let limits = json!({ "maxCores": 2, "maxMemory": 512, "maxDisk": 9, "snapshots": 50 });
    app.provider.put(&format!("/api/tariffs/{}", catalogue.tariff), limits).await.expect(200);
    let (server, operation) = create(&app, &catalogue).await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    let path = format!("/api/server/{}", server["id"]);
    let send = async |kind: &str| {
        let name = json!({ "snapname": "one" });
        let (method, rest, body) = match kind {
            "resize" => ("PUT", "/resize", json!({ "cores": 2, "memory": 300 })),
            "snapshot" => ("POST", "/snapshots", name),
            "rollback" => ("POST", "/snapshots/rollback", name),
            _ => ("DELETE", "/snapshots", name),
        };
        let answer = app.customer.send(method.parse().unwrap(), &format!("{path}{rest}"), Some(body)).await;
        assert!(answer.status == 200 || answer.status == 500, "{kind}: {}", answer.text);
        let last = app.customer.get(&format!("{path}/operations?limit=1")).await.expect(200).body;
        assert_eq!(last["data"][0]["kind"], kind);
        ended(&app.customer, &last["data"][0]["id"]).await["state"].clone()
    };
    let snapshots = async || {
        let list = app.customer.get(&format!("{path}/snapshots")).await.expect(200).body;
        list["data"].as_array().unwrap().len()
    };
    let points = &app.core.engine.failpoints;
    for (kind, taken_after) in [("resize", 0), ("snapshot", 1), ("rollback", 1), ("delete_snapshot", 0)] {
        let (before, taken) = (standing(&app, &lab, &path).await, snapshots().await);
        for step in steps(&app, kind) {
            for boundary in ["before", "acted"] {
                let point = format!("{kind}:{step}:{boundary}");
                points.arm(&point, Action::Fail);
                // The undo steps are repeated as well.
                steps(&app, kind).iter().take_while(|s| **s != step).for_each(|s| {
                    points.arm(&format!("{kind}:{s}:undo-acted"), Action::Repeat);
                });
                assert_eq!(send(kind).await, "failed", "{point}");
                assert!(points.all_fired(), "{point}");
                assert_eq!(standing(&app, &lab, &path).await, before, "{point}");
                // A snapshot that is deleted on the host stays deleted, and is taken again below.
                if kind == "delete_snapshot" && boundary == "acted" {
                    assert_eq!(snapshots().await, 0);
                    assert_eq!(send("snapshot").await, "succeeded");
                }
                assert_eq!(snapshots().await, taken, "{point}");
            }
        }
        for step in steps(&app, kind) {
            points.arm(&format!("{kind}:{step}:acted"), Action::Repeat);
        }
        assert_eq!(send(kind).await, "succeeded", "{kind}");
        assert!(points.all_fired(), "{kind}");
        assert_eq!(snapshots().await, taken_after, "{kind}");
    }
    assert_eq!(standing(&app, &lab, &path).await, json!(["running", 2, 300, 1, 2, 300, "Running"]));
    // A disk that has grown stays that size, and the database agrees.
    points.arm("resize:grow_disk:acted", Action::Fail);
    let answer = app.customer.put(&format!("{path}/resize"), json!({ "memory": 310, "disk": 2 })).await;
    assert!(answer.status == 200 || answer.status == 500, "{}", answer.text);
    let last = app.customer.get(&format!("{path}/operations?limit=1")).await.expect(200).body;
    assert_eq!(ended(&app.customer, &last["data"][0]["id"]).await["state"], "failed");
    assert_eq!(standing(&app, &lab, &path).await, json!(["running", 2, 300, 2, 2, 300, "Running"]));
}

/// A reinstallation that fails before the old guest is deleted changes nothing; after that the server is empty, keeps
/// its address and can be reinstalled again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_reinstall_can_be_retried() {
    expect_error(INJECTED);
    let (app, lab, catalogue) = lab().await;
    let (server, operation) = create(&app, &catalogue).await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    let path = format!("/api/server/{}", server["id"]);
    let wish = json!({ "osId": catalogue.image });
    let reinstall = async || {
        let answer = app.customer.post(&format!("{path}/reinstall"), wish.clone()).await;
        assert!(answer.status == 200 || answer.status == 500, "{}", answer.text);
        let last = app.customer.get(&format!("{path}/operations?limit=1")).await.expect(200).body;
        ended(&app.customer, &last["data"][0]["id"]).await["state"].clone()
    };
    let points = &app.core.engine.failpoints;
    for step in steps(&app, "reinstall") {
        for boundary in ["before", "acted"] {
            let point = format!("reinstall:{step}:{boundary}");
            points.arm(&point, Action::Fail);
            for before in steps(&app, "reinstall").iter().take_while(|s| **s != step) {
                points.arm(&format!("reinstall:{before}:undo-acted"), Action::Repeat);
            }
            assert_eq!(reinstall().await, "failed", "{point}");
            assert!(points.all_fired(), "{point}");
            let shown = app.customer.get(&path).await.expect(200).body["status"].clone();
            let there = lab.guests().await;
            assert_eq!(addresses(&app).await, 1, "{point}");
            let untouched = step == "check_image" || (step == "remove_guest" && boundary == "before");
            assert_eq!((shown, there), if untouched { (json!("running"), 1) } else { (json!("failed"), 0) }, "{point}");
            if !untouched {
                app.customer.post(&format!("{path}/start"), None).await.expect(409);
                points.arm("reinstall:create_guest:acted", Action::Repeat);
                assert_eq!(reinstall().await, "succeeded", "{point}");
                assert_eq!(lab.guests().await, 1, "{point}");
            }
        }
    }
    assert_eq!(delete(&app, &server).await["state"], "succeeded");
    assert_eq!((lab.guests().await, addresses(&app).await), (0, 0));
}
