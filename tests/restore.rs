//! A database restored to an older state: nothing that it says is in progress resumes by itself, what it has forgotten
//! is found, and no address of a living guest is assigned.

use std::sync::Arc;
use std::time::Duration;

use hypervisor::{Driver, GuestKind, GuestRef};
use kernel::operations::failpoints::Action;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::app::signed_in;
use crate::support::child::Service;
use crate::support::lab::remove;
use crate::support::{
    Client, Cluster, Lab, Pve, TestApp, TestDb, ended, eventually, expect_error, wait_for, wait_for_sql,
};

/// What the log says about a restored database.
const FOUND: &str = "the database was restored to an earlier state";

/// Every guest that the database knows.
async fn guests(db: &TestDb) -> Vec<GuestRef> {
    let rows: Vec<(Uuid, i64, String)> =
        sqlx::query_as("select uuid, guest_number, node from servers where reserved order by id")
            .fetch_all(&db.pool)
            .await
            .unwrap();
    rows.into_iter().map(|(marker, vmid, node)| GuestRef { marker, vmid, kind: GuestKind::Lxc, node }).collect()
}

/// What a guest's owner wrote into it, and when it was last started. A busy Incus sometimes loses all output of a
/// command, and is then asked again.
async fn inside(driver: &dyn Driver, guest: &GuestRef) -> String {
    let argv = ["sh", "-c", "cat /root/data; stat -c %Y /proc/1"];
    wait_for("a guest's content", async || match driver.exec(guest, &argv, &[], Duration::from_secs(20)).await {
        Ok(output) if output.stdout.is_empty() => Err(output),
        Ok(output) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(error) => Ok(error.to_string()),
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restore_no_guest_is_touched_and_every_unknown_one_is_reported() {
    crate::support::log();
    expect_error(FOUND);
    let db = Arc::new(TestDb::new().await);
    db.allow_unfinished();
    let data = tempfile::tempdir().unwrap();
    let lab = Lab::new(&db).await;
    let driver = lab.incus.driver();
    let settings = [("INNKEEPER_SWEEP_SECONDS", "1"), ("INNKEEPER_SHUTDOWN_SECONDS", "2")];
    let mut service = Service::start_with(&db, data.path(), &settings).await;
    let nobody = Client::new(&service.base, None);
    let provider = signed_in(&db, &nobody, "provider@example.com").await;
    let customer = signed_in(&db, &nobody, "customer@example.com").await;
    let catalogue = lab.register(&provider).await;
    let create = async |client: &Client| client.post("/api/server/create", catalogue.order()).await.expect(200).body;
    let (first, second) = tokio::join!(create(&customer), create(&customer));
    for made in [&first, &second] {
        assert_eq!(ended(&customer, &made["operationId"]).await["state"], "succeeded");
    }

    // Many things at once, and a backup at some moment in between.
    let post = |path: String, body: Value| {
        let customer = customer.clone();
        tokio::spawn(async move {
            let body = (!body.is_null()).then(|| ("application/json", body.to_string().into_bytes()));
            let _ = customer.try_send(Method::POST, &path, body).await;
        })
    };
    let acts = [
        post(format!("/api/server/{}/reinstall", first["id"]), json!({ "osId": catalogue.image })),
        post(format!("/api/server/{}/password", second["id"]), Value::Null),
        post("/api/server/create".into(), catalogue.order()),
    ];
    wait_for_sql(&db.pool, "a reinstallation", "select count(*) from operations where kind = 'reinstall'", 1_i64).await;
    let pause = rand::random_range(0..300);
    eprintln!("the backup begins {pause} ms later");
    tokio::time::sleep(Duration::from_millis(pause)).await;
    let file = data.path().join("backup.sql");
    db.dump(&file).await;

    // All of it ends, one more server is ordered, and people use what they have.
    futures_util::future::join_all(acts).await;
    db.all_ended(crate::support::wait::PATIENCE).await;
    let late = create(&customer).await;
    assert_eq!(ended(&customer, &late["operationId"]).await["state"], "succeeded");
    let there = guests(&db).await;
    assert_eq!(there.len(), 4);
    for guest in &there {
        let argv = ["sh", "-c", "echo precious > /root/data"];
        driver.exec(guest, &argv, &[], Duration::from_secs(20)).await.unwrap();
    }
    let before: Vec<String> = futures_util::future::join_all(there.iter().map(|at| inside(&*driver, at))).await;
    let addresses: Vec<String> = sqlx::query_scalar("select host(address) from addresses where server_id is not null")
        .fetch_all(&db.pool)
        .await
        .unwrap();

    service.kill().await;
    db.restore(&file).await;
    let under_way: i64 =
        sqlx::query_scalar("select count(*) from operations where state in ('queued', 'running', 'undoing')")
            .fetch_one(&db.pool)
            .await
            .unwrap();
    assert!(under_way > 0, "the backup has operations in progress");
    db.release_dead_leases().await;
    let service = Service::start_with(&db, data.path(), &settings).await;
    let nobody = Client::new(&service.base, None);
    let provider = signed_in(&db, &nobody, "provider@example.com").await;
    let customer = signed_in(&db, &nobody, "customer@example.com").await;
    let stuck = provider.get("/api/operations?state=stuck").await.expect(200).body["data"].clone();
    assert_eq!(stuck.as_array().unwrap().len() as i64, under_way, "every one waits for a person: {stuck}");
    let reinstall = stuck.as_array().unwrap().iter().find(|o| o["kind"] == "reinstall").cloned();
    for operation in stuck.as_array().unwrap() {
        assert!(operation["error"]["detail"].as_str().unwrap().contains("restored"), "{operation}");
    }

    // Guests that the backup does not know are found, and their addresses are reserved.
    let unknown = format!("/api/hosts/{}/unknown-guests", catalogue.host);
    let known: Vec<i64> = guests(&db).await.iter().map(|at| at.vmid).collect();
    let lost: Vec<i64> = there.iter().map(|at| at.vmid).filter(|number| !known.contains(number)).collect();
    assert!(!lost.is_empty());
    eventually(&provider, &unknown, |found| {
        let found = found.as_array().unwrap();
        let asked = found.iter().filter(|guest| guest["addresses"].is_array());
        let numbers: Vec<i64> = asked.map(|guest| guest["proxmoxId"].as_i64().unwrap()).collect();
        lost.iter().all(|number| numbers.contains(number))
    })
    .await;
    let of_lab = format!("/api/address-pools/{}", catalogue.pool);
    let held = |pool: &Value| pool["taken"].as_u64() >= Some(addresses.len() as u64);
    eventually(&provider, &of_lab, held).await;
    let next = wait_for("room for an order", async || {
        let answer = customer.post("/api/server/create", catalogue.order()).await;
        if answer.status == 200 { Ok(answer.body) } else { Err(answer.text) }
    })
    .await;
    assert_eq!(ended(&customer, &next["operationId"]).await["state"], "succeeded");
    let given: Vec<String> = sqlx::query_scalar("select host(address) from addresses where server_id = $1")
        .bind(next["id"].as_i64())
        .fetch_all(&db.pool)
        .await
        .unwrap();
    assert!(given.iter().all(|address| !addresses.contains(address)), "{given:?} of {addresses:?}");
    let after: Vec<String> = futures_util::future::join_all(there.iter().map(|at| inside(&*driver, at))).await;
    assert_eq!(after, before, "no guest was touched");
    assert!(after.iter().all(|text| text.starts_with("precious")), "{after:?}");

    // The provider decides: the reinstallation is abandoned, and the leftover guests are adopted.
    if let Some(reinstall) = reinstall {
        let give_up = format!("/api/operations/{}/abandon", reinstall["id"].as_str().unwrap());
        assert_eq!(provider.post(&give_up, None).await.expect(200).body["state"], "failed");
        eventually(&customer, &format!("/api/server/{}", first["id"]), |server| server["status"] == "running").await;
    }
    let owner: i64 = sqlx::query_scalar(
        "select a.id from accounts a join users u on u.id = a.owner_id where u.email = 'customer@example.com'",
    )
    .fetch_one(&db.pool)
    .await
    .unwrap();
    for number in &lost {
        let wish = json!({ "accountId": owner, "tariffId": catalogue.tariff, "osId": catalogue.image });
        let adopted = provider.post(&format!("{unknown}/{number}/adopt"), wish).await.expect(201).body;
        eventually(&customer, &format!("/api/server/{}", adopted["id"]), |server| server["status"] == "running").await;
    }
    let after: Vec<String> = futures_util::future::join_all(there.iter().map(|at| inside(&*driver, at))).await;
    assert_eq!(after, before, "and adopting them touched nothing");
    for guest in &there {
        remove(&*driver, guest).await.unwrap();
    }
}

/// As docs/backup.md has it, from a base backup and the WAL archive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_recovered_to_a_point_in_time_has_all_until_then_and_finds_what_came_later() {
    crate::support::log();
    expect_error(FOUND);
    let cluster = Cluster::with_archive().await;
    let db = Arc::new(TestDb::within(cluster.url.clone()).await);
    db.allow_unfinished();
    let data = tempfile::tempdir().unwrap();
    let settings = [("INNKEEPER_SWEEP_SECONDS", "1"), ("INNKEEPER_SHUTDOWN_SECONDS", "2")];
    let mut service = Service::start_with(&db, data.path(), &settings).await;
    let nobody = Client::new(&service.base, None);
    let customer = signed_in(&db, &nobody, "customer@example.com").await;
    let pve = Pve::new(&db).await;
    let catalogue = pve.register(&signed_in(&db, &nobody, "provider@example.com").await).await;
    let create = async || {
        let made = customer.post("/api/server/create", catalogue.container()).await.expect(200).body;
        assert_eq!(ended(&customer, &made["operationId"]).await["state"], "succeeded");
        made["id"].as_i64().unwrap()
    };
    let first = create().await;
    cluster.back_up().await;
    let second = create().await;
    db.hold_operations().await;
    let restart = customer.post(&format!("/api/server/{second}/restart"), None).await.expect(200).body;
    let time = cluster.now().await;
    db.release_operations().await;
    assert_eq!(ended(&customer, &restart["operationId"]).await["state"], "succeeded");
    let third = create().await;
    let deleted = customer.delete(&format!("/api/server/{first}")).await.expect(200).body;
    assert_eq!(ended(&customer, &deleted["operationId"]).await["state"], "succeeded");
    let number: i64 = sqlx::query_scalar("select guest_number from servers where id = $1")
        .bind(third)
        .fetch_one(&db.pool)
        .await
        .unwrap();
    cluster.archived().await;
    service.kill().await;
    cluster.stop().await;

    cluster.recover_to(&time).await;
    db.release_operations().await;
    db.release_dead_leases().await;
    let service = Service::start_with(&db, data.path(), &settings).await;
    let nobody = Client::new(&service.base, None);
    let (provider, customer) =
        tokio::join!(signed_in(&db, &nobody, "provider@example.com"), signed_in(&db, &nobody, "customer@example.com"));
    let servers = customer.get("/api/server").await.expect(200).body;
    let servers: Vec<i64> = servers.as_array().unwrap().iter().map(|server| server["id"].as_i64().unwrap()).collect();
    assert_eq!(servers, [first, second]);
    let restart = format!("/api/operations/{}", restart["operationId"].as_str().unwrap());
    assert_eq!(provider.get(&restart).await.expect(200).body["state"], "stuck");
    eventually(&customer, &format!("/api/server/{first}"), |server| server["status"] == "unknown").await;
    eventually(&provider, &format!("/api/hosts/{}/unknown-guests", catalogue.host), |found| {
        found.as_array().unwrap().iter().any(|guest| guest["proxmoxId"] == number)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_restored_under_a_running_process_is_noticed_once() {
    expect_error(FOUND);
    let app = TestApp::new().await.running("heartbeat");
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    app.core.engine.failpoints.arm("create:prepare_guest:before", Action::Hold);
    let made = app.customer.post("/api/server/create", catalogue.container()).await.expect(200).body;
    let step = "select exists (select from operations where step = 'prepare_guest')";
    wait_for_sql(&app.db.pool, "the step that is held", step, true).await;
    sqlx::query(
        "insert into mails (id, event, recipient, subject, text_body, html_body)
         values (gen_random_uuid(), 'e', 'customer@example.com', 's', 't', 'h')",
    )
    .execute(&app.db.pool)
    .await
    .unwrap();
    let beats =
        async || -> i64 { sqlx::query_scalar("select beats from installation").fetch_one(&app.db.pool).await.unwrap() };
    let before = beats().await;
    sqlx::query("update installation set beats = 0").execute(&app.db.pool).await.unwrap();
    let restored = "select restored_at is not null from installation";
    wait_for_sql(&app.db.pool, "the discovery of the restore", restored, true).await;
    assert!(beats().await > before);

    let path = format!("/api/operations/{}", made["operationId"].as_str().unwrap());
    let stuck = app.provider.get(&path).await.expect(200).body;
    assert_eq!(stuck["state"], "stuck", "{stuck}");
    let told = app.customer.get(&path).await.expect(200).body;
    assert!(told["error"]["message"].as_str().unwrap().contains("restored from a backup"), "{told}");
    // The worker that was running it writes nothing any more.
    app.core.engine.failpoints.let_go();
    wait_for_sql(&app.db.pool, "a later beat", &format!("select beats > {} from installation", beats().await), true)
        .await;
    assert_eq!(app.provider.get(&path).await.expect(200).body["state"], "stuck");
    let mail: String =
        sqlx::query_scalar("select state from mails where event = 'e'").fetch_one(&app.db.pool).await.unwrap();
    assert_eq!(mail, "unknown", "it may have been sent");
    let rows = "select count(*) from operation_log where message like '%restored to its state%'";
    let told: i64 = sqlx::query_scalar(rows).fetch_one(&app.db.pool).await.unwrap();
    assert_eq!(told, 1, "it is noticed once");
    watch::alerts::watch::evaluate_periodic(&app.service.features.alerts).await.unwrap();
    let alerts = app.provider.get("/api/alerts?open=true&type=database_restored").await.expect(200).text;
    assert!(alerts.contains("restored to an older state"), "{alerts}");

    // No new server is placed on a host that has not been swept since.
    let refused = app.customer.post("/api/server/create", catalogue.container()).await.expect(507);
    assert!(refused.text.contains("being checked"), "{}", refused.text);
    watch::sweep::sweep_now(&app.service.features.sweeps).await.unwrap();
    let next = app.customer.post("/api/server/create", catalogue.container()).await.expect(200).body;
    assert_eq!(ended(&app.customer, &next["operationId"]).await["state"], "succeeded");

    // The provider retries it.
    app.provider.post(&format!("{path}/retry"), None).await.expect(200);
    assert_eq!(ended(&app.customer, &made["operationId"]).await["state"], "succeeded");
    app.provider.post(&format!("{path}/abandon"), None).await.expect(409);
    pve.assert_no_orphan("after all").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_operation_is_claimed_before_a_restore_is_noticed() {
    // No heartbeat runs here, so nobody notices.
    let app = TestApp::new().await;
    app.db.allow_unfinished();
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    let made = app.customer.post("/api/server/create", catalogue.container()).await.expect(200).body;
    assert_eq!(ended(&app.customer, &made["operationId"]).await["state"], "succeeded");
    sqlx::query("update installation set beats = beats - 1").execute(&app.db.pool).await.unwrap();
    let action = app.customer.post(&format!("/api/server/{}/restart", made["id"]), None).await.expect(200).body;
    let path = format!("/api/operations/{}", action["operationId"].as_str().unwrap());
    // The worker has looked by now: the answer waits two seconds for the host's task.
    assert_eq!(app.customer.get(&path).await.expect(200).body["state"], "queued");
    sqlx::query("update installation set beats = beats + 1").execute(&app.db.pool).await.unwrap();
    assert_eq!(ended(&app.customer, &action["operationId"]).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_can_be_declared_and_a_new_machine_distrusts_a_silent_database() {
    expect_error(FOUND);
    let mut app = TestApp::new().await;
    app.db.allow_unfinished();
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    app.core.engine.failpoints.arm("create:prepare_guest:before", Action::Hold);
    let made = app.customer.post("/api/server/create", catalogue.container()).await.expect(200).body;
    let step = "select exists (select from operations where step = 'prepare_guest')";
    wait_for_sql(&app.db.pool, "the step that is held", step, true).await;
    assert_eq!(kernel::restores::service::declare_restored(&app.core).await.unwrap(), 1);
    let path = format!("/api/operations/{}", made["operationId"].as_str().unwrap());
    assert_eq!(app.provider.get(&path).await.expect(200).body["state"], "stuck");

    // As if it were still in progress, and no process had been alive for an hour: without a heartbeat file nobody can
    // tell what became of it.
    app.core.engine.failpoints.let_go();
    app.stop().await;
    for sql in [
        "update operations set state = 'running', error_detail = null, updated_at = now() - interval '1 hour'",
        "update installation set restored_at = null, beat_at = now() - interval '1 hour'",
    ] {
        sqlx::query(sql).execute(&app.db.pool).await.unwrap();
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let _service = Service::start(&app.db, elsewhere.path(), "").await;
    let state: String = sqlx::query_scalar("select state from operations").fetch_one(&app.db.pool).await.unwrap();
    assert_eq!(state, "stuck");
    assert!(elsewhere.path().join("heartbeat.json").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_created_during_a_silent_period_reveals_a_restored_machine() {
    expect_error(FOUND);
    let app = TestApp::new().await;
    app.db.allow_unfinished();
    let lab = Lab::new(&app.db).await;
    let catalogue = lab.register(&app.provider).await;
    let made = app.customer.post("/api/server/create", catalogue.order()).await.expect(200).body;
    assert_eq!(ended(&app.customer, &made["operationId"]).await["state"], "succeeded");
    let silence = async |from: &str, to: &str| {
        let sql = format!("update installation set silent_from = now() {from}, silent_to = now() {to}");
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&app.db.pool).await.unwrap();
    };
    let restart = async || {
        let action = app.customer.post(&format!("/api/server/{}/restart", made["id"]), None).await.expect(200).body;
        format!("/api/operations/{}", action["operationId"].as_str().unwrap())
    };
    // No process was alive for a while, and the guest is from another time: work in progress goes on once its host has
    // been swept.
    silence("+ interval '1 second'", "+ interval '1 hour'").await;
    let harmless = restart().await;
    assert_eq!(app.customer.get(&harmless).await.expect(200).body["state"], "queued");
    silence("- interval '1 minute'", "").await;
    watch::sweep::sweep_now(&app.service.features.sweeps).await.unwrap();
    eventually(&app.customer, &harmless, |operation| operation["state"] == "succeeded").await;

    // The guest was created in that time, by nobody that this database has heard of.
    silence("- interval '1 hour'", "+ interval '1 hour'").await;
    let waits = restart().await;
    assert_eq!(app.customer.get(&waits).await.expect(200).body["state"], "queued");
    watch::sweep::sweep_now(&app.service.features.sweeps).await.unwrap();
    assert_eq!(app.provider.get(&waits).await.expect(200).body["state"], "stuck");
}
