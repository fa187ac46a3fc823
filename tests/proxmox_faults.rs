//! What can go wrong on Proxmox VE, by name: the operation ends as it should, the user gets a plain explanation, and
//! the host and the database agree.

use std::time::Duration;

use compute::servers::ServerSettings;
use serde_json::{Value, json};
use uuid::Uuid;
use watch::monitoring::MonitoringSettings;

use crate::support::app::NO_SWEEPS;
use crate::support::pve::Catalogue;
use crate::support::{Pve, TestApp, ended, wait_for, wait_for_sql};

/// How an operation ends.
#[derive(Debug, Clone, Copy)]
enum Ends {
    /// It succeeds in spite of the fault.
    Well,
    /// It is undone, with this code.
    Undone(&'static str),
}
use Ends::{Undone, Well};

async fn pve(deadline: u32) -> (TestApp, Pve, Catalogue) {
    swept(deadline, NO_SWEEPS).await
}

/// With a sweep every `seconds`: a host that was away gets orders again after the next one.
async fn swept(deadline: u32, seconds: u32) -> (TestApp, Pve, Catalogue) {
    let app = TestApp::with(|c| {
        let servers = c.of::<ServerSettings>();
        (servers.create_deadline_seconds, servers.shutdown_seconds) = (deadline, 2);
        c.workers = 20;
        c.database_pool = 40;
        c.of::<MonitoringSettings>().sweep_seconds = seconds;
    })
    .await;
    sqlx::query("update accounts set server_limit = 1000").execute(&app.db.pool).await.unwrap();
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    if seconds != NO_SWEEPS {
        // The first sweep must not run into what the test does to the host.
        let looked = "select coalesce(seen_at > sweep_started_at, false) from hosts";
        wait_for_sql(&app.db.pool, "the first sweep", looked, true).await;
    }
    (app, pve, catalogue)
}

/// Fails the test unless an operation ended as expected, with an explanation that a customer can read.
#[track_caller]
fn assert_ended(operation: &Value, ends: Ends, what: &str) {
    match ends {
        Well => assert_eq!(
            (&operation["state"], &operation["error"]),
            (&json!("succeeded"), &Value::Null),
            "{what}: {operation}"
        ),
        Undone(code) => {
            assert_eq!(
                (&operation["state"], &operation["error"]["code"]),
                (&json!("failed"), &json!(code)),
                "{what}: {operation}"
            );
            let message = operation["error"]["message"].as_str().unwrap();
            assert!(message.starts_with(char::is_uppercase) && message.ends_with('.'), "{what}: {message}");
            for word in ["UPID", "HTTP", "pve1", "/nodes", "lock file", "{", "\n"] {
                assert!(!message.contains(word), "{what}: {message}");
            }
        }
    }
}

/// Orders like a patient customer: what can't be accepted for the moment (no room, a busy database) is sent again.
async fn place(app: &TestApp, order: &Value) -> Value {
    let key = Uuid::new_v4().to_string();
    wait_for("an accepted order", async || {
        let answer = app.customer.post_once("/api/server/create", &key, order).await;
        if matches!(answer.status, 503 | 507) { Err(answer.text) } else { Ok(answer.expect(200).body) }
    })
    .await
}

async fn create(app: &TestApp, order: &Value) -> (Value, Value) {
    let created = place(app, order).await;
    let operation = ended(&app.customer, &created["operationId"]).await;
    (created, operation)
}

/// Creates servers with a fault raised by `raise`, temporary or not, and repaired by `mend` afterwards.
async fn creates(app: &TestApp, pve: &Pve, order: &Value, cases: &[(&str, &str, Ends, &str)]) {
    for (what, raise, ends, mend) in cases {
        if !raise.is_empty() {
            pve.run(raise).await;
        }
        let (_, operation) = create(app, order).await;
        assert_ended(&operation, *ends, what);
        if !mend.is_empty() {
            pve.run(mend).await;
        }
        pve.run("pve.failures.clear() or pve.canned.clear() or pve.after.clear()").await;
        pve.assert_no_orphan(what).await;
    }
}

/// One answer about a task's status.
fn status(exit: &str) -> String {
    let body = json!({ "data": { "status": "stopped", "exitstatus": exit } }).to_string();
    format!("pve.canned.update({{('GET', '/status'): [[200, 'OK', {body:?}]]}})")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn container_creation_survives_temporary_faults() {
    let (app, pve, catalogue) = pve(900).await;
    let refuse = |path: &str, text: &str| format!("pve.fail('POST', '{path}', 500, {text:?}, times=1)");
    let mut cases: Vec<(String, String)> = Vec::new();
    for lock in [
        "backup",
        "create",
        "destroyed",
        "disk",
        "fstrim",
        "migrate",
        "mounted",
        "rollback",
        "snapshot",
        "snapshot-delete",
    ] {
        cases.push((format!("locked by {lock}"), refuse("/status/start", &format!("CT is locked ({lock})"))));
    }
    for text in [
        "can't lock file '/run/lock/lxc/pve-config-100.lock' - got timeout",
        "can't lock file '/var/lock/pve-manager/pve-storage-local-lvm' - got timeout",
        "cfs-lock 'file-user_cfg' error: got lock request timeout",
        "cluster not ready - no quorum?",
    ] {
        cases.push((text.to_owned(), refuse("/nodes/pve1/lxc", text)));
    }
    let named = |name: &str| format!("pve.fail('POST', '/nodes/pve1/lxc', error='{name}', times=1)");
    let lost = |status: u16| {
        format!("pve.canned.update({{('POST', '/nodes/pve1/lxc'): [[{status}, 'Connection timed out', '']]}})")
    };
    let kept = |status: u16| format!("pve.after.update({{('POST', '/nodes/pve1/lxc'): [{status}, 1]}})");
    cases.extend([
        ("an expired ticket".to_owned(), named("invalid_ticket")),
        ("595, and nothing was made".to_owned(), lost(595)),
        ("596, and nothing was made".to_owned(), lost(596)),
        ("596, and it was made".to_owned(), kept(596)),
        ("599, and it was made".to_owned(), kept(599)),
        ("a task with warnings".to_owned(), status("WARNINGS: 1")),
        ("a task whose end is only in its log".to_owned(), status("unexpected status")),
        (
            "a task that is locked out".to_owned(),
            "pve.fail('POST', '/status/start', error='config_lock_timeout', times=1)".to_owned(),
        ),
        (
            "a proxy's page".to_owned(),
            "pve.fail('GET', '/cluster/resources', 502, '<html>', html=True, times=1)".to_owned(),
        ),
        (
            "no next id for a while".to_owned(),
            "pve.fail('GET', '/cluster/nextid', 596, 'Connection timed out', times=2)".to_owned(),
        ),
    ]);
    let cases: Vec<_> = cases.iter().map(|(what, raise)| (what.as_str(), raise.as_str(), Well, "")).collect();
    creates(&app, &pve, &catalogue.container(), &cases).await;
    assert_eq!(pve.fake.guests().await.len(), cases.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn impossible_creations_are_undone() {
    let (app, pve, catalogue) = pve(900).await;
    let full = |text: &str| format!("pve.fail('POST', '/nodes/pve1/lxc', 500, {text:?}, times=1)");
    let task_full = status("unable to create CT 1000 - No space left on device");
    let gone = "[pve.storages['local'].setdefault('kept', pve.storages['local'].pop('volumes')), \
                pve.storages['local'].update(volumes={})] and None";
    let back = "pve.storages['local'].update(volumes=pve.storages['local'].pop('kept'))";
    creates(
        &app,
        &pve,
        &catalogue.container(),
        &[
            (
                "the storage is full",
                &full("lvcreate failed: insufficient free space"),
                Undone("RESOURCE_UNAVAILABLE"),
                "",
            ),
            ("the storage is full in the task", &task_full, Undone("RESOURCE_UNAVAILABLE"), ""),
            (
                "the storage is offline",
                "pve.storages['local-lvm'].update(active=0)",
                Undone("HOST_ERROR"),
                "pve.storages['local-lvm'].update(active=1)",
            ),
            ("the template is gone", gone, Undone("HOST_ERROR"), back),
            (
                "the bridge is gone",
                "pve.fail('POST', '/nodes/pve1/lxc', error='bridge_does_not_exist', times=1)",
                Undone("HOST_ERROR"),
                "",
            ),
            (
                "a 500 after the guest was created",
                "pve.after.update({('POST', '/nodes/pve1/lxc'): [500, 1]})",
                Undone("HOST_ERROR"),
                "",
            ),
            (
                "a start that fails",
                "pve.fail('POST', '/status/start', error='missing_rootfs_configuration', times=1)",
                Undone("HOST_ERROR"),
                "",
            ),
        ],
    )
    .await;
    creates(
        &app,
        &pve,
        &catalogue.machine(),
        &[
            (
                "a clone that fails",
                "pve.fail('POST', '/clone', 500, 'clone failed: it broke', times=1)",
                Undone("HOST_ERROR"),
                "",
            ),
            (
                "a disk that can't grow",
                "setattr(pve, 'broken_resize', True)",
                Undone("RESOURCE_UNAVAILABLE"),
                "setattr(pve, 'broken_resize', False)",
            ),
            (
                "the template is locked for a moment",
                "pve.fail('POST', '/clone', 500, 'VM is locked (clone)', times=1)",
                Well,
                "",
            ),
            (
                "the configuration was changed by another",
                "pve.fail('PUT', '/config', 500, 'detected modified configuration - \
                 file changed by other user? Try again.', times=1)",
                Well,
                "",
            ),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_privilege_fails_a_creation_at_once() {
    let (app, pve, catalogue) = pve(900).await;
    pve.run("pve.fail('POST', '/nodes/pve1/lxc', 403, 'Permission check failed (/vms/1000, VM.Allocate)')").await;
    let (created, operation) = create(&app, &catalogue.container()).await;
    assert_ended(&operation, Undone("HOST_ERROR"), "no privilege");
    pve.assert_no_orphan("no privilege").await;
    // The provider sees which one.
    let seen =
        app.provider.get(&format!("/api/operations/{}", created["operationId"].as_str().unwrap())).await.expect(200);
    assert!(seen.text.contains("VM.Allocate"), "{}", seen.text);
}

/// A host that was unreachable when the order came can't have heard of it, so the undo does not need the host.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_never_reached_its_host_is_undone_without_it() {
    let (app, pve, catalogue) = pve(3).await;
    pve.run("close()").await;
    let (_, operation) = create(&app, &catalogue.container()).await;
    assert_ended(&operation, Undone("HOST_UNREACHABLE"), "never heard of");
    pve.run("reopen()").await;
    pve.assert_no_orphan("never heard of").await;
}

/// The host goes away while it creates the guest, in three ways, and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creation_waits_for_a_host_that_disappears_midway() {
    let (app, pve, catalogue) = swept(900, 1).await;
    for (what, away, back) in [
        ("a node is offline", "pve.set_node_offline('pve1')", "pve.set_node_offline('pve1', False)"),
        ("quorum is lost", "pve.lose_quorum()", "pve.regain_quorum()"),
        ("nothing answers", "close()", "reopen()"),
    ] {
        pve.run("pve.ct_secs.update(create=2)").await;
        pve.run("pve.time_scale = 0.5").await;
        let created = place(&app, &catalogue.container()).await;
        let id = created["operationId"].as_str().unwrap();
        let path = format!("/api/operations/{id}");
        crate::support::eventually(&app.customer, &path, |o| o["step"] == "create_guest").await;
        pve.run(away).await;
        crate::support::eventually(&app.customer, &path, |o| o["error"]["code"] == "HOST_UNREACHABLE").await;
        pve.run(back).await;
        pve.run("pve.time_scale = 0").await;
        assert_ended(&ended(&app.customer, &created["operationId"]).await, Well, what);
        pve.assert_no_orphan(what).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_actions_survive_faults_too() {
    let (app, pve, catalogue) = pve(900).await;
    let me = &app.customer;
    for (order, kind) in [(catalogue.container(), "lxc"), (catalogue.machine(), "qemu")] {
        let (created, operation) = create(&app, &order).await;
        assert_ended(&operation, Well, kind);
        let (path, number) = (format!("/api/server/{}", created["id"]), &created["proxmoxId"]);
        let act = async |action: &str| {
            let answer = me.post(&format!("{path}/{action}"), None).await.expect(200).body;
            ended(me, &answer["operationId"]).await
        };
        // A guest that ignores the shutdown is forced off.
        pve.run("pve.time_scale = 0.05").await;
        pve.run(&format!("guest({number}).shutdown_secs = 1e6")).await;
        assert_ended(&act("stop").await, Well, "a slow shutdown");
        assert_eq!(pve.run(&format!("guest({number}).status")).await, "stopped");
        pve.run("pve.time_scale = 0").await;
        pve.run("pve.fail('POST', '/status/start', error='config_lock_timeout', times=2)").await;
        assert_ended(&act("start").await, Well, "a locked start");

        // There is no way to set a password: the error says so, and no harm is done.
        let refused = me.post(&format!("{path}/password"), None).await;
        assert!(matches!(refused.status, 409 | 422), "{kind}: {}", refused.text);
        assert_eq!(me.get(&path).await.body["status"], "running");

        // A protected guest stays, and can be deleted later.
        pve.run(&format!("guest({number}).config.update(protection=1)")).await;
        assert_eq!(me.delete(&path).await.expect(409).body["code"], "CONFLICT");
        pve.assert_no_orphan("protected").await;
        pve.run(&format!("guest({number}).config.pop('protection') and None")).await;
        let suffix = format!("/nodes/pve1/{kind}/{number}");
        pve.run(&format!("pve.fail('DELETE', '{suffix}', error='locked', times=1)")).await;
        pve.run(&format!("pve.after.update({{('DELETE', '{suffix}'): [596, 1]}})")).await;
        let deleted = me.delete(&path).await.expect(200).body;
        assert_ended(&ended(me, &deleted["operationId"]).await, Well, "a locked deletion that loses its answer");
        pve.assert_no_orphan(kind).await;
        pve.run("pve.failures.clear() or pve.after.clear()").await;
    }
    assert_eq!(pve.fake.guests().await, Vec::<i64>::new());
}

/// ZFS rolls back to the newest snapshot only, which a safety snapshot would be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_safety_snapshot_that_blocks_the_rollback_is_deleted() {
    let (app, pve, catalogue) = pve(900).await;
    let me = &app.customer;
    let (created, operation) = create(&app, &catalogue.container()).await;
    assert_ended(&operation, Well, "a container");
    let path = format!("/api/server/{}/snapshots", created["id"]);
    let taken = me.post(&path, json!({ "snapname": "one" })).await.expect(200).body;
    assert_ended(&ended(me, &taken["operationId"]).await, Well, "a snapshot");
    for (safety, words) in [(true, "without a safety snapshot"), (false, "delete the newer ones")] {
        let refusal = "can't rollback, 'one' is not most recent snapshot on 'zfs:subvol-1'";
        pve.run(&format!("pve.fail('POST', '/rollback', 500, {refusal:?}, times=1)")).await;
        let wish = json!({ "snapname": "one", "safetySnapshot": safety });
        let answer = me.post(&format!("{path}/rollback"), wish).await;
        // The operation may have ended before the answer was given.
        let (code, message) = match answer.status {
            200 => {
                let error = ended(me, &answer.body["operationId"]).await["error"].clone();
                (error["code"].clone(), error["message"].clone())
            }
            _ => (answer.body["code"].clone(), answer.body["error"].clone()),
        };
        assert_eq!(code, "CONFLICT", "{message}");
        assert!(message.as_str().unwrap().contains(words), "{message}");
        crate::support::eventually(me, &format!("/api/server/{}", created["id"]), |s| s["status"] == "running").await;
        let names: Vec<_> = me.get(&path).await.expect(200).body["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["name"].clone())
            .collect();
        assert_eq!(names, ["one"], "the safety snapshot is gone");
    }
}

/// Two hundred orders, twenty at a time, on a host that suffers a hundred faults meanwhile and drops every fiftieth
/// request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_creations_under_faults_leave_no_orphans_and_no_duplicates() {
    let (app, pve, catalogue) = swept(900, 1).await;
    pve.run("pve.flaky_network(drop_rate=0.02, seed=7)").await;
    let faults = [
        "pve.fail('POST', '/nodes/pve1/lxc', 500, 'cfs-lock error: got lock request timeout', times=2)",
        "pve.fail('POST', '/nodes/pve1/lxc', 500, 'unable to create CT 1 - CT 1 already exists on node', times=2)",
        "pve.fail('POST', '/nodes/pve1/lxc', 500, 'No space left on device', times=1)",
        "pve.fail('POST', '/status/start', error='locked', times=2)",
        "pve.fail('POST', '/status/start', error='missing_rootfs_configuration', times=1)",
        "pve.after.update({('POST', '/nodes/pve1/lxc'): [596, 2]})",
        "pve.after.update({('POST', '/nodes/pve1/lxc'): [500, 1]})",
        "pve.after.update({('POST', '/status/start'): [596, 2]})",
        "pve.canned.setdefault(('POST', '/nodes/pve1/lxc'), []).append([596, 'Connection timed out', ''])",
        "pve.fail('GET', '/cluster/resources', 502, '<html>', html=True, times=2)",
    ];
    let troubled = async {
        for n in 0..100 {
            pve.run(faults[n % faults.len()]).await;
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        // What is in progress by then must be able to finish.
        pve.run("pve.failures.clear() or pve.canned.clear() or pve.after.clear() or pve.flaky_network()").await;
        std::future::pending::<()>().await;
    };
    let orders = async {
        let one = async |_: usize| {
            for _ in 0..10 {
                place(&app, &catalogue.container()).await;
            }
        };
        futures_util::future::join_all((0..20).map(one)).await;
        app.all_ended(Duration::from_secs(600)).await;
    };
    tokio::select! {
        () = orders => {}
        () = troubled => unreachable!("the faults never end"),
    }
    let states: Vec<(String, i64)> = sqlx::query_as("select state, count(*) from operations group by 1 order by 1")
        .fetch_all(&app.db.pool)
        .await
        .unwrap();
    eprintln!("200 creations: {states:?}");
    assert_eq!(states.iter().map(|(_, n)| n).sum::<i64>(), 200);
    assert!(states.iter().all(|(state, _)| matches!(state.as_str(), "succeeded" | "failed")), "{states:?}");
    assert!(states.iter().any(|(state, n)| state == "succeeded" && *n > 100), "{states:?}");
    // Host and database agree, and no server exists twice under two numbers.
    pve.assert_no_orphan("two hundred").await;
    let tags = pve.run("[t for g in pve.cts for t in g.config.get('tags', '').split(';')]").await;
    let tags: Vec<String> = serde_json::from_value(tags).unwrap();
    let uuids: std::collections::HashSet<_> =
        tags.iter().map(|t| t.rsplitn(6, '-').take(5).collect::<Vec<_>>()).collect();
    assert_eq!(uuids.len(), tags.len(), "one guest per server");
}
