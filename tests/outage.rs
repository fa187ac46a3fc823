//! A host or the database that is unavailable for a while, or for good.

use compute::servers::ServerSettings;
use kernel::operations::failpoints::Action;
use secrecy::SecretString;
use serde_json::json;

use crate::support::relay::{DatabaseRelay, Relay};
use crate::support::{Lab, TestApp, TestDb, ended, eventually, expect_error, expect_outage, wait_for, wait_for_sql};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_waits_for_a_host_that_is_down() {
    let app = TestApp::new().await;
    let lab = Lab::new(&app.db).await;
    let socket = app.data.path().join("incus.socket");
    let relay = Relay::unix(&socket, &lab.incus.socket).await;
    let catalogue = lab.register_at(&app.provider, socket.to_str().unwrap()).await;
    relay.cut();

    let server = app.customer.post("/api/server/create", catalogue.order()).await.expect(200).body;
    let path = format!("/api/operations/{}", server["operationId"].as_str().unwrap());
    let waiting = eventually(&app.customer, &path, |o| o["error"].is_object()).await;
    assert_eq!(waiting["error"]["code"], "HOST_UNREACHABLE");
    assert_eq!(waiting["state"], "running");
    let message = waiting["error"]["message"].as_str().unwrap();
    assert!(message.contains("can't be reached") && message.contains("keep trying"), "{message}");

    let _relay = Relay::unix(&socket, &lab.incus.socket).await;
    let operation = ended(&app.customer, &server["operationId"]).await;
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert_eq!(operation["error"], serde_json::Value::Null, "the retries succeeded");
    assert_eq!(lab.guests().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_is_undone_cleanly_when_its_host_stays_down_past_the_deadline() {
    let app = TestApp::with(|c| c.of::<ServerSettings>().create_deadline_seconds = 2).await;
    let lab = Lab::new(&app.db).await;
    let socket = app.data.path().join("incus.socket");
    let relay = Relay::unix(&socket, &lab.incus.socket).await;
    let catalogue = lab.register_at(&app.provider, socket.to_str().unwrap()).await;
    relay.cut();

    let server = app.customer.post("/api/server/create", catalogue.order()).await.expect(200).body;
    let operation = ended(&app.customer, &server["operationId"]).await;
    // The host never heard of it, so the undo does not need the host.
    assert_eq!(operation["state"], "failed", "{operation}");
    assert_eq!(operation["error"]["code"], "HOST_UNREACHABLE");
    let held: i64 = sqlx::query_scalar("select count(*) from addresses where server_id is not null")
        .fetch_one(&app.db.pool)
        .await
        .unwrap();
    assert_eq!(held, 0);
    let path = format!("/api/server/{}", server["id"]);
    assert_eq!(app.customer.get(&path).await.expect(200).body["status"], "failed");
    app.customer.delete(&path).await.expect(200);
    app.customer.get(&path).await.expect(404);
}

/// A guest on an unreachable host is not assumed to be gone: its address is not given to anyone else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_made_server_on_a_lost_host_keeps_its_address_until_the_host_is_back() {
    let app = TestApp::new().await;
    let lab = Lab::new(&app.db).await;
    let socket = app.data.path().join("incus.socket");
    let relay = Relay::unix(&socket, &lab.incus.socket).await;
    let catalogue = lab.register_at(&app.provider, socket.to_str().unwrap()).await;
    // The host goes away between two steps, and the operation's deadline passes.
    let points = &app.core.engine.failpoints;
    points.arm("create:start_guest:before", Action::Hold);
    let server = app.customer.post("/api/server/create", catalogue.order()).await.expect(200).body;
    wait_for("the step after the guest's creation", async || points.all_fired().then_some(())).await;
    assert_eq!(lab.guests().await, 1);
    relay.cut();
    sqlx::query("update operations set deadline = now()").execute(&app.db.pool).await.unwrap();
    points.let_go();
    let undone = "select undoing and attempts >= 2 from operations";
    wait_for_sql(&app.db.pool, "two attempts to undo the guest", undone, true).await;
    let held = async || -> i64 {
        sqlx::query_scalar("select count(*) from addresses where server_id is not null")
            .fetch_one(&app.db.pool)
            .await
            .unwrap()
    };
    assert_eq!(held().await, 1);
    let _relay = Relay::unix(&socket, &lab.incus.socket).await;
    assert_eq!(ended(&app.customer, &server["operationId"]).await["state"], "failed");
    assert_eq!((held().await, lab.guests().await), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unavailable_database_is_a_503_and_the_service_recovers_by_itself() {
    let db = TestDb::new().await;
    let mut db_relay = DatabaseRelay::new(&db).await;
    let app = TestApp::on(db, |c| {
        c.database_url = SecretString::from(db_relay.url.clone());
        // An outage is waited for as in production, and interrupted work is taken up again soon.
        (c.database_wait_seconds, c.lease_seconds) = (3, 5);
    })
    .await;
    expect_outage();
    let lab = Lab::new(&app.db).await;
    let catalogue = lab.register(&app.provider).await;
    let server = app.customer.post("/api/server/create", catalogue.order()).await.expect(200).body;
    db_relay.cut();

    for (method, path) in [("GET", "/api/server"), ("POST", "/api/server/create"), ("GET", "/health/ready")] {
        let body = (method == "POST").then(|| catalogue.order());
        let answer = app.customer.send(method.parse().unwrap(), path, body).await.expect(503);
        assert_eq!(answer.code(), "DATABASE_UNAVAILABLE");
        assert!(answer.headers.contains_key("retry-after"));
    }
    app.nobody.get("/health/live").await.expect(200);
    let login = json!({ "email": "customer@example.com", "password": crate::support::PASSWORD });
    app.nobody.post("/api/auth/login", login).await.expect(503);

    db_relay.mend().await;
    eventually(&app.customer, "/api/server", |_| true).await;
    // The operation in progress has lost nothing.
    assert_eq!(ended(&app.customer, &server["operationId"]).await["state"], "succeeded");
    assert_eq!(lab.guests().await, 1);
    let servers: i64 = sqlx::query_scalar("select count(*) from servers").fetch_one(&app.db.pool).await.unwrap();
    assert_eq!(servers, 1, "an order that got a 503 was not placed");
}

/// Somebody froze while holding a lock: those who wait for it get an error, and their connections are returned.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_a_stuck_lock_ends_in_a_503() {
    let app = TestApp::new().await;
    expect_error("canceling statement due to lock timeout");
    let mut frozen = kernel::db::begin(&app.db.pool).await.unwrap();
    sqlx::query("lock table servers in access exclusive mode").execute(&mut *frozen).await.unwrap();
    let answer = app.customer.get("/api/server").await.expect(503);
    assert_eq!(answer.code(), "DATABASE_UNAVAILABLE");
    assert!(answer.headers.contains_key("retry-after"));
    frozen.rollback().await.unwrap();
    app.customer.get("/api/server").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exhausted_pool_is_a_503_after_the_configured_wait() {
    expect_error("pool timed out");
    let app = TestApp::with(|c| (c.database_pool, c.database_wait_seconds) = (1, 1)).await;
    let only = app.core.db.acquire().await.unwrap();
    let answer = app.customer.get("/api/server").await.expect(503);
    assert_eq!(answer.code(), "DATABASE_UNAVAILABLE");
    drop(only);
    app.customer.get("/api/server").await.expect(200);
}
