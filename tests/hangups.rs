//! Clients that hang up at any moment, with a database some milliseconds away: no connection is left inside a
//! transaction, and what was reported as done stays done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use accounts::AccountSettings;
use rand::RngExt;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::proofs::Told;
use crate::support::relay::DatabaseRelay;
use crate::support::wait::BLOCKED;
use crate::support::writes::{World, Write, second, until_free, writes_of};
use crate::support::{Client, Pve, TestApp, app, expect_outage, wait_for};

/// Hang-ups on each route, at least, one after the other, while others hit other routes.
const HANG_UPS_PER_ROUTE: usize = 4;
/// Accounts for each route that signs in or ends logins: hashing passwords is expensive.
const ACCOUNTS_PER_LOGIN_ROUTE: usize = 2;
/// Sockets of each kind.
const SOCKETS: usize = 4;
/// One in this many requests is not sent completely.
const CUT_SHORT: u32 = 5;
/// How many servers they may order.
const SERVERS: i32 = 10;
/// The longest that a client stays, in milliseconds: most requests take less over this connection.
const MAX_STAY_MS: u64 = 60;

/// The request as bytes on the wire.
fn bytes(method: &str, path: &str, by: &Client, body: &Value) -> Vec<u8> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let token = by.token.as_deref().map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let cookie = by.headers.get("cookie").map_or("", |cookie| cookie.to_str().unwrap());
    let cookie = if cookie.is_empty() { String::new() } else { format!("Cookie: {cookie}\r\n") };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{token}{cookie}Content-Type: application/json\r\n");
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn hang_up(base: &str, request: &[u8]) {
    let mut stream = TcpStream::connect(base.trim_start_matches("http://")).await.unwrap();
    let is_cut = rand::rng().random_ratio(1, CUT_SHORT);
    let sent = if is_cut { rand::rng().random_range(1..request.len()) } else { request.len() };
    stream.write_all(&request[..sent]).await.unwrap();
    let stays = rand::rng().random_range(0..MAX_STAY_MS);
    tokio::time::sleep(Duration::from_millis(stays)).await;
}

/// A request that signs in or ends logins, for accounts of its own: the others stay signed in.
async fn login_requests(test: &TestApp, write: &Write) -> Vec<Vec<u8>> {
    let mut all = vec![];
    for n in 0..ACCOUNTS_PER_LOGIN_ROUTE {
        let email = format!("{n}@{}.example.com", write.route.trim_start_matches("/api/auth/").replace('/', "-"));
        let mut body = write.body.clone();
        if let Some(named) = body.get_mut("email") {
            *named = json!(email);
        }
        let mut by = write.by.clone();
        if !write.route.ends_with("/register") {
            sqlx::query(
                "with u as (insert into users (email, name, password_hash)
                            select $1, name, password_hash from users where email = 'customer@example.com'
                            returning id, email)
                 insert into accounts (name, owner_id) select email, id from u",
            )
            .bind(&email)
            .execute(&test.db.pool)
            .await
            .unwrap();
        }
        if by.token.is_some() {
            by = app::signed_in(&test.db, &test.nobody, &email).await;
        }
        all.push(bytes(write.method.as_str(), &write.path, &by, &body));
    }
    all
}

/// Opens a WebSocket and sends its first message, without waiting for any answer.
fn socket(path: &str, origin: &str, message: &str) -> Vec<u8> {
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    // A text frame of at least 126 bytes, masked with zeros.
    let length = u16::try_from(message.len().max(126)).unwrap().to_be_bytes();
    [head.as_bytes(), &[0x81, 0xfe], &length, &[0; 4], format!("{message:126}").as_bytes()].concat()
}

/// Sockets of the live view and of consoles.
async fn sockets(test: &TestApp, origin: &str, console: &Write) -> Vec<Vec<u8>> {
    let mut all = vec![];
    for _ in 0..SOCKETS {
        let token = json!({ "token": test.customer.token });
        all.push(socket("/socket.io/?EIO=4&transport=websocket", origin, &format!("40{token}")));
        let link = console.by.post(&console.path, console.body.clone()).await.expect(200).body;
        let ticket = link["url"].as_str().unwrap().rsplit_once('#').unwrap().1;
        let open = json!({ "type": "open", "ticket": ticket, "columns": 80, "rows": 24 });
        all.push(socket("/console/socket", origin, &open.to_string()));
    }
    all
}

/// One request for every route, as bytes: writes and reads.
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

/// Sends every request as a client that stays, and gets its answer. Returns the ids of the requests, and what the
/// answers promise: each is true for everybody once it is given.
async fn answered(test: &TestApp, base: &str, writes: &[Write], server: i64) -> (Vec<String>, Vec<Told>) {
    let (mut ids, mut all) = (vec![], vec![]);
    for write in writes {
        if write.is_about_server() {
            until_free(test, server).await;
        }
        // Busy processes refuse before they do anything.
        let answer = wait_for(&format!("{} {}", write.method, write.route), async || {
            let answer = write.send(base).await;
            if matches!(answer.status, 429 | 503) { Err(answer.text) } else { Ok(answer) }
        })
        .await;
        let told = write.told(&answer);
        // This host has no way into its guests.
        if write.route == "/api/server/{id}/password" && answer.status >= 400 {
            continue;
        }
        assert!((200..300).contains(&answer.status), "{}: {} {}", told.what, answer.status, answer.text);
        assert!(told.is_true(&test.db.pool).await, "{}: not true: {} {}", told.what, answer.status, answer.text);
        ids.push(answer.headers["x-request-id"].to_str().unwrap().to_owned());
        all.push(told);
    }
    until_free(test, server).await;
    (ids, all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hang_ups_leave_no_open_transaction_and_undo_nothing_that_was_confirmed() {
    expect_outage();
    let app = TestApp::with(|c| c.of::<AccountSettings>().registration = true).await;
    app.db.allow_unfinished();
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    let (quiet, quiet_server) = writes_of(&app, &catalogue, &World::somebodys(&app).await).await;
    let (writes, server) = writes_of(&app, &catalogue, &World::customers(&app)).await;
    let few = "update accounts set server_limit = $1 where id = $2";
    sqlx::query(few).bind(SERVERS).bind(app.customer_account.0).execute(&app.db.pool).await.unwrap();
    let db_relay = DatabaseRelay::new(&app.db).await;
    let (second, base) = second(&app, &db_relay).await;
    db_relay.delay(Duration::from_millis(4));

    let console = writes.iter().find(|write| write.route == "/api/server/console").unwrap();
    let mut apart = sockets(&app, &second.features.accounts.settings.public_url, console).await;
    let of_logins =
        ["login", "register", "password", "logout", "sessions", "browser/login", "browser/register", "browser/logout"]
            .map(|rest| format!("/api/auth/{rest}"));
    let (logins, writes): (Vec<_>, Vec<_>) =
        writes.into_iter().partition(|write| of_logins.iter().any(|route| *route == write.route));
    for login in &logins {
        apart.extend(login_requests(&app, login).await);
    }
    let mut requests = requests(&app, &writes, server).await;
    requests.extend(apart);
    let (requests, over) = (Arc::new(requests), Arc::new(AtomicBool::new(false)));
    let mut leaving = tokio::task::JoinSet::new();
    for nth in 0..6 {
        let (requests, base, over) = (Arc::clone(&requests), base.clone(), Arc::clone(&over));
        let patient = Client::new(&base, None);
        leaving.spawn(async move {
            let least = requests.len() * HANG_UPS_PER_ROUTE / 6;
            for (sent, request) in requests.iter().cycle().skip(nth * 17).enumerate() {
                if sent >= least && over.load(Ordering::Relaxed) {
                    break;
                }
                hang_up(&base, request).await;
                // No faster than they are served: the one that stays would wait behind all of them.
                patient.get("/health/live").await.expect(200);
            }
        });
    }
    // Meanwhile one client stays connected and gets its answers.
    let (asked, all_told) = answered(&app, &base, &quiet, quiet_server).await;
    over.store(true, Ordering::Relaxed);
    while leaving.join_next().await.transpose().unwrap().is_some() {}

    // We hold every connection of the pool, so a transaction that is open now was left open.
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
    assert!(open.is_empty(), "pool connections inside a transaction: {open:#?}");
    drop(all);

    // What was confirmed is true, for everybody and for good.
    for told in all_told.iter().filter(|told| told.lasts) {
        assert!(told.is_true(&app.db.pool).await, "{}: no longer true", told.what);
    }
    wait_for("the audit entry of each", async || {
        let told: i64 = sqlx::query_scalar(
            "select count(*) from audit where request_id = any($1) and status between 200 and 299
                 and ended_at is not null",
        )
        .bind(&asked)
        .fetch_one(&app.db.pool)
        .await
        .unwrap();
        if told == asked.len() as i64 { Ok(()) } else { Err(told) }
    })
    .await;
}

/// What a client started is completed, though it did not wait for the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_completes_after_its_client_has_left() {
    let app = TestApp::new().await;
    let mut held = kernel::db::begin(&app.db.pool).await.unwrap();
    sqlx::query("lock table tariffs in access exclusive mode").execute(&mut *held).await.unwrap();
    let size = json!({ "name": "left", "kind": "lxc", "cores": 1, "memory": 64, "disk": 1, "price": 1 });
    let mut stream = TcpStream::connect(app.base.trim_start_matches("http://")).await.unwrap();
    stream.write_all(&bytes("POST", "/api/tariffs", &app.provider, &size)).await.unwrap();
    crate::support::wait_for_sql(&app.db.pool, "the request", BLOCKED, 1i64).await;
    drop(stream);
    // More round trips on another connection: by then the server has noticed that the first one is closed.
    for _ in 0..20 {
        app.nobody.get("/health/live").await.expect(200);
    }
    held.rollback().await.unwrap();
    let made = "select count(*) from tariffs where name = 'left'";
    crate::support::wait_for_sql(&app.db.pool, "the tariff", made, 1i64).await;
}

/// A `begin` that is dropped while PostgreSQL answers leaves a transaction that nobody owns: ours completes, and the
/// pool takes back no connection on which sqlx's own was dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_begin_leaves_no_connection_inside_a_transaction() {
    let app = TestApp::new().await;
    let db_relay = DatabaseRelay::new(&app.db).await;
    let (second, _) = second(&app, &db_relay).await;
    let pool = &second.core.db;
    let most = pool.options().get_max_connections();
    let every_connection = async || {
        let mut all = vec![];
        for _ in 0..most {
            all.push(pool.acquire().await.unwrap());
        }
        all
    };
    for ours in [true, false] {
        drop(every_connection().await);
        wait_for("idle connections", async || (pool.num_idle() == most as usize).then_some(())).await;
        db_relay.delay(Duration::from_millis(500));
        for n in 0..u64::from(most) {
            // By then BEGIN is sent, and its answer takes a second.
            let stays = Duration::from_millis(10 + 5 * n);
            let left = match ours {
                true => tokio::time::timeout(stays, kernel::db::begin(pool)).await.is_err(),
                false => tokio::time::timeout(stays, pool.begin()).await.is_err(),
            };
            assert!(left);
        }
        db_relay.delay(Duration::ZERO);
        let mut held = every_connection().await;
        let mut pids: Vec<i32> = vec![];
        for connection in &mut held {
            pids.push(sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut **connection).await.unwrap());
        }
        let open: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity where pid = any($1) and state like 'idle in transaction%'",
        )
        .bind(&pids)
        .fetch_one(&app.db.pool)
        .await
        .unwrap();
        assert_eq!(open, 0, "of {most} pool connections inside a transaction; by our begin: {ours}");
    }
}
