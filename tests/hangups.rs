//! Clients that hang up at any moment, with a database some milliseconds away: no connection is left inside a
//! transaction, and what others were told is done is done.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::relay::Detour;
use crate::support::writes::{Write, second, writes};
use crate::support::{Client, Pve, TestApp, expect_outage, wait_for};

/// Hang-ups at each route, one after the other, while others are at other routes.
const EACH: usize = 4;
/// How often somebody else is told that something was done, at least.
const TOLD: usize = 10;
/// The longest that a client stays, in milliseconds: most requests take less by this way.
const STAYS: u64 = 60;

/// The request as it goes over the wire.
fn bytes(method: &str, path: &str, by: &Client, body: &Value) -> Vec<u8> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let token = by.token.as_deref().map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{token}Content-Type: application/json\r\n");
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn hang_up(base: &str, request: &[u8]) {
    let mut stream = TcpStream::connect(base.trim_start_matches("http://")).await.unwrap();
    stream.write_all(request).await.unwrap();
    let stays = rand::rng().random_range(0..STAYS);
    tokio::time::sleep(Duration::from_millis(stays)).await;
}

/// Each request of every route, as bytes: those that write, and those that read.
async fn requests(app: &TestApp, writes: &[Write], server: i64) -> Vec<Vec<u8>> {
    let mut all: Vec<_> = writes.iter().map(|w| bytes(w.method.as_str(), &w.path, &w.by, &w.body)).collect();
    let document = app.nobody.get("/api/openapi.json").await.expect(200).body;
    for (path, item) in document["paths"].as_object().unwrap() {
        if item.get("get").is_some() {
            let path = path.replace("{id}", &server.to_string()).replace("{type}", "cpu");
            all.push(bytes("GET", &path, &app.provider, &Value::Null));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hang_ups_at_any_moment_leave_no_transaction_open_and_undo_nothing_that_was_told() {
    expect_outage();
    let app = TestApp::with(|c| c.registration = true).await;
    app.db.leaves_work();
    let pve = Pve::new(&app.db).await;
    let (writes, server) = writes(&app, &pve).await;
    let detour = Detour::new(&app.db).await;
    let (second, base) = second(&app, &detour).await;
    detour.delay(Duration::from_millis(4));

    // Signing in is dear, and what ends logins would end this.
    let ends = ["/login", "/register", "/password", "/logout", "/sessions"].map(|last| format!("/api/auth{last}"));
    let writes: Vec<_> = writes.into_iter().filter(|write| !ends.iter().any(|route| *route == write.route)).collect();
    let requests = requests(&app, &writes, server).await;
    let requests = Arc::new(requests);
    let mut leaving = tokio::task::JoinSet::new();
    for nth in 0..6 {
        let (requests, base) = (Arc::clone(&requests), base.clone());
        leaving.spawn(async move {
            for request in requests.iter().cycle().skip(nth * 17).take(requests.len() * EACH / 6) {
                hang_up(&base, request).await;
            }
        });
    }
    // Meanwhile somebody stays, and is told.
    let there = Client { base: base.clone(), ..app.customer.clone() };
    let (mut revoked, mut tries) = (vec![], 0);
    while !leaving.is_empty() || (revoked.len() < TOLD && tries < 100) {
        tries += 1;
        while leaving.try_join_next().transpose().unwrap().is_some() {}
        let token = json!({ "name": "short", "scopes": ["read"] });
        let made = there.post("/api/auth/tokens", token).await;
        if made.status == 201 {
            let id = made.body["id"].as_str().unwrap().to_owned();
            let path = format!("/api/auth/tokens/{id}");
            if there.delete(&path).await.status == 204 {
                revoked.push(id);
            }
        }
    }
    assert!(revoked.len() >= TOLD, "somebody is told of something: {}", revoked.len());

    // With every connection in our hands nobody else has one: what is open then was left open.
    let most = second.core.db.options().get_max_connections();
    let mut all = vec![];
    for _ in 0..most {
        all.push(second.core.db.acquire().await.unwrap());
    }
    let mut pids: Vec<i32> = vec![];
    for connection in &mut all {
        pids.push(sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut **connection).await.unwrap());
    }
    let open: Vec<String> = sqlx::query_scalar(
        "select state || ': ' || query from pg_stat_activity where pid = any($1) and state like 'idle in transaction%'",
    )
    .bind(&pids)
    .fetch_all(&app.db.pool)
    .await
    .unwrap();
    assert!(open.is_empty(), "connections of the pool that are inside a transaction: {open:#?}");
    drop(all);

    // What was told is true, for everybody and for good.
    let good: Vec<String> =
        sqlx::query_scalar("select id::text from tokens where id::text = any($1) and revoked_at is null")
            .bind(&revoked)
            .fetch_all(&app.db.pool)
            .await
            .unwrap();
    assert!(good.is_empty(), "tokens that are good though they were revoked: {good:?}");
    wait_for("the audit log's word on each", async || {
        let told: i64 = sqlx::query_scalar(
            "select count(*) from audit where subject_id = any($1) and status = 204 and ended_at is not null",
        )
        .bind(&revoked)
        .fetch_one(&app.db.pool)
        .await
        .unwrap();
        if told == revoked.len() as i64 { Ok(()) } else { Err(told) }
    })
    .await;
}

/// What a client began is done, though it did not wait for the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_client_has_left_is_done() {
    let app = TestApp::new().await;
    let mut held = innkeeper::db::begin(&app.db.pool).await.unwrap();
    sqlx::query("lock table tariffs in access exclusive mode").execute(&mut *held).await.unwrap();
    let size = json!({ "name": "left", "kind": "lxc", "cores": 1, "memory": 64, "disk": 1, "price": 1 });
    let mut stream = TcpStream::connect(app.base.trim_start_matches("http://")).await.unwrap();
    stream.write_all(&bytes("POST", "/api/tariffs", &app.provider, &size)).await.unwrap();
    let waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    crate::support::wait_for_sql(&app.db.pool, "the request", waits, 1i64).await;
    drop(stream);
    // One more round trip on a connection of its own: by then the server has seen that the first one is closed.
    for _ in 0..20 {
        app.nobody.get("/health/live").await.expect(200);
    }
    held.rollback().await.unwrap();
    let made = "select count(*) from tariffs where name = 'left'";
    crate::support::wait_for_sql(&app.db.pool, "the tariff", made, 1i64).await;
}
