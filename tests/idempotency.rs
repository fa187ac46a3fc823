//! `Idempotency-Key`: every POST by a signed-in user takes it, runs once and gets the same answer; and an order makes
//! one server, whatever goes wrong in between.

use std::collections::BTreeSet;

use secrecy::SecretString;
use serde_json::{Value, json};

use crate::support::app::Idle;
use crate::support::relay::DatabaseRelay;
use crate::support::wait::PATIENCE;
use crate::support::{Client, Lab, PASSWORD, Pve, TestApp, TestDb, ended, eventually, expect_outage, wait_for};

/// POSTs without a user, so there is nobody whose key it could be. Signing in again is harmless, and so is a refused
/// repeat of the others.
const OPEN: [&str; 9] = [
    "/api/auth/register",
    "/api/auth/login",
    "/api/auth/login-link",
    "/api/auth/confirm",
    "/api/auth/refresh",
    "/api/auth/browser/register",
    "/api/auth/browser/login",
    "/api/auth/browser/refresh",
    "/api/auth/browser/logout",
];

/// Every POST that takes a key: its route, path, sender and body, and what counts how often it was done.
struct Case {
    route: &'static str,
    path: String,
    by: Client,
    body: Value,
    counts: String,
}

async fn cases(app: &TestApp, lab: &Lab) -> (Vec<Case>, i64) {
    let catalogue = lab.register(&app.provider).await;
    let server = app.customer.post("/api/server/create", catalogue.order()).await.expect(200).body;
    assert_eq!(ended(&app.customer, &server["operationId"]).await["state"], "succeeded");
    let server = server["id"].as_i64().unwrap();
    // No worker knows this kind, so the operation stays as it is.
    let stuck = async |name: &str| -> String {
        sqlx::query_scalar(
            "with s as (insert into servers (uuid, account_id, tariff_id, image_id, host_id, node, guest_number, kind,
                        name, status, cores, memory_mib, disk_gib, reserved)
                        select gen_random_uuid(), account_id, tariff_id, image_id, host_id, node,
                               nextval('guest_numbers'), kind, $2, 'unknown', 1, 1, 1, false
                        from servers where id = $1 returning id)
             insert into operations (id, subject_kind, subject_id, lane, kind, state, data, deadline)
             select gen_random_uuid(), 'server', id::text, 'host', 'unknown', 'stuck', 'null', now() from s
             returning id::text",
        )
        .bind(server)
        .bind(name)
        .fetch_one(&app.db.pool)
        .await
        .unwrap()
    };
    let (stuck, given_up) = (stuck("stuck").await, stuck("given up").await);
    sqlx::query(
        "insert into unknown_guests (host_id, marker, guest_number, kind, node, addresses)
         values ($1, gen_random_uuid(), 999999999, 'lxc', 'n', '{}')",
    )
    .bind(catalogue.host)
    .execute(&app.db.pool)
    .await
    .unwrap();
    let adoption = json!({ "accountId": app.customer_account.0, "tariffId": catalogue.tariff,
                           "osId": catalogue.image, "name": "adopted" });
    let mail: String = sqlx::query_scalar(
        "insert into mails (id, event, recipient, subject, text_body, html_body, state)
         values (gen_random_uuid(), 'e', 'customer@example.com', 's', 't', 'h', 'failed') returning id::text",
    )
    .fetch_one(&app.db.pool)
    .await
    .unwrap();
    let login = crate::support::app::login(&app.nobody, "customer@example.com").await;
    let leaving = crate::support::app::login(&app.nobody, "customer@example.com").await;
    let socket = json!({ "socket": "/nowhere/incus.socket" });
    let (host, pool) = (catalogue.host, catalogue.pool);
    let size = json!({ "name": "again", "kind": "lxc", "cores": 1, "memory": 64, "disk": 1, "price": 1 });
    let network = json!({ "name": "again", "hostId": host, "cidr": "10.77.0.0/24", "bridge": "b" });
    let password = json!({ "currentPassword": PASSWORD, "newPassword": "another long password" });
    let (provider, customer) = (&app.provider, &app.customer);
    let operations = |kind: &str| format!("from operations where subject_id = '{server}' and kind = '{kind}'");
    let case = |route, path: String, by: &Client, body: Value, counts: &str| Case {
        route,
        path,
        by: by.clone(),
        body,
        counts: format!("select count(*) {counts}"),
    };
    let on = |what: &str, id: &dyn std::fmt::Display, verb: &str| format!("/api/{what}/{id}/{verb}");
    let asked = "update users set confirmed_at = null where email = 'other@example.com'";
    sqlx::query(asked).execute(&app.db.pool).await.unwrap();
    let mut cases = vec![
        case(
            "/api/auth/confirm/mail",
            "/api/auth/confirm/mail".into(),
            &app.other,
            Value::Null,
            "from address_confirmations",
        ),
        case("/api/auth/logout", "/api/auth/logout".into(), &leaving, Value::Null, "from servers where false"),
        case("/api/tariffs", "/api/tariffs".into(), provider, size, "from tariffs"),
        case("/api/images", "/api/images".into(), provider, json!({ "name": "again", "kind": "lxc" }), "from images"),
        case(
            "/api/hosts",
            "/api/hosts".into(),
            provider,
            json!({ "name": "again", "kind": "incus", "config": socket, "force": true }),
            "from hosts",
        ),
        case("/api/hosts/{id}/check", on("hosts", &host, "check"), provider, Value::Null, "from hosts"),
        case("/api/address-pools", "/api/address-pools".into(), provider, network, "from address_pools"),
        case(
            "/api/address-pools/{id}/reserve",
            on("address-pools", &pool, "reserve"),
            provider,
            json!({ "address": lab.last }),
            "from addresses",
        ),
        case(
            "/api/operations/{id}/retry",
            on("operations", &stuck, "retry"),
            provider,
            Value::Null,
            "from operation_log where message like 'retried by%'",
        ),
        case(
            "/api/operations/{id}/abandon",
            on("operations", &given_up, "abandon"),
            provider,
            Value::Null,
            "from operation_log where message like 'abandoned by%'",
        ),
        case(
            "/api/hosts/{id}/unknown-guests/{number}/adopt",
            on("hosts", &host, "unknown-guests/999999999/adopt"),
            provider,
            adoption,
            "from servers where name = 'adopted'",
        ),
        case(
            "/api/mails/{id}/retry",
            on("mails", &mail, "retry"),
            provider,
            Value::Null,
            "from mails where queued_at > created_at",
        ),
        case("/api/server/create", "/api/server/create".into(), customer, catalogue.order(), "from servers"),
        case(
            "/api/auth/tokens",
            "/api/auth/tokens".into(),
            customer,
            json!({ "name": "again", "scopes": ["read"] }),
            "from tokens where kind = 'api'",
        ),
    ];
    let idle = Idle::new(&app.db, "idle").await;
    let new_user = json!({ "email": "again@example.com", "name": "Again" });
    let new_account = json!({ "name": "Again", "owner": { "email": "owner@example.com", "name": "Owner" } });
    Idle::new(&app.db, "fellow").await;
    let new_member = json!({ "email": "fellow@example.com", "role": "viewer" });
    let reason = json!({ "reason": "again" });
    for (route, path, body, counts) in [
        ("/api/users", "/api/users".into(), new_user, "from users"),
        ("/api/users/{id}/login-link", on("users", &idle.user, "login-link"), reason.clone(), "from login_links"),
        ("/api/accounts", "/api/accounts".into(), new_account, "from accounts"),
        ("/api/accounts/{id}/members", on("accounts", &idle.account, "members"), new_member, "from account_members"),
        (
            "/api/accounts/{id}/suspend",
            on("accounts", &idle.account, "suspend"),
            reason,
            "from accounts where suspended_at is not null",
        ),
        (
            "/api/accounts/{id}/unsuspend",
            on("accounts", &idle.account, "unsuspend"),
            Value::Null,
            "from accounts where suspended_at is null",
        ),
    ] {
        cases.push(case(route, path, provider, body, counts));
    }
    for (route, verb) in [
        ("/api/server/{id}/start", "start"),
        ("/api/server/{id}/stop", "stop"),
        ("/api/server/{id}/restart", "restart"),
        ("/api/server/{id}/password", "password"),
    ] {
        cases.push(case(route, on("server", &server, verb), customer, Value::Null, &operations(verb)));
    }
    let (snapshot, at) = (json!({ "snapname": "again" }), |rest: &str| on("server", &server, rest));
    let suspended = "from servers where suspended_at is not null";
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2X0OWNlLS+ChqYjV8kNwVsWTB5Yc7vYXxWk0GmKoIh me";
    let number: i64 = sqlx::query_scalar("select guest_number from servers where id = $1")
        .bind(server)
        .fetch_one(&app.db.pool)
        .await
        .unwrap();
    let console = json!({ "vmid": number });
    let alert: i64 = sqlx::query_scalar(
        "insert into alerts (kind, subject, server_id, level, value, raised_at)
         values ('cpu', 'server:' || $1, $1, 'critical', 1, now()) returning id",
    )
    .bind(server)
    .fetch_one(&app.db.pool)
    .await
    .unwrap();
    let mute = json!({ "until": chrono::Utc::now() + chrono::TimeDelta::days(1) });
    let taken = "from alerts where acknowledged_at is not null";
    for (route, path, by, body, counts) in [
        ("/api/server/{id}/mute", at("mute"), customer, mute.clone(), "from alert_mutes".into()),
        (
            "/api/alert-rules/{type}/mute",
            "/api/alert-rules/disk/mute".into(),
            provider,
            mute,
            "from alert_mutes".into(),
        ),
        (
            "/api/alerts/{id}/acknowledge",
            format!("/api/alerts/{alert}/acknowledge"),
            customer,
            Value::Null,
            taken.to_owned(),
        ),
        ("/api/server/console", "/api/server/console".into(), customer, console, "from consoles".into()),
        ("/api/server/{id}/snapshots", at("snapshots"), customer, snapshot.clone(), operations("snapshot")),
        ("/api/server/{id}/snapshots/rollback", at("snapshots/rollback"), customer, snapshot, operations("rollback")),
        ("/api/server/{id}/suspend", at("suspend"), provider, json!({ "reason": "unpaid" }), suspended.to_owned()),
        (
            "/api/server/{id}/unsuspend",
            at("unsuspend"),
            provider,
            Value::Null,
            format!("from servers where id = {server} and suspended_at is null"),
        ),
        (
            "/api/server/{id}/reinstall",
            at("reinstall"),
            customer,
            json!({ "osId": catalogue.image }),
            operations("reinstall"),
        ),
        (
            "/api/ssh-keys",
            "/api/ssh-keys".into(),
            customer,
            json!({ "name": "again", "publicKey": key }),
            "from ssh_keys".into(),
        ),
    ] {
        cases.push(case(route, path, by, body, &counts));
    }
    // It ends the customer's other logins, so it comes last.
    cases.push(case(
        "/api/auth/password",
        "/api/auth/password".into(),
        &login,
        password,
        "from sessions where revoked_at is not null",
    ));
    (cases, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_authenticated_post_takes_a_key_and_runs_once() {
    let app = TestApp::new().await;
    app.db.allow_unfinished();
    let lab = Lab::new(&app.db).await;
    let (cases, server) = cases(&app, &lab).await;

    let document = app.nobody.get("/api/openapi.json").await.expect(200).body;
    let takes_key =
        |post: &Value| post["parameters"].as_array().is_some_and(|p| p.iter().any(|p| p["name"] == "Idempotency-Key"));
    let mut routes = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        if let Some(post) = item.get("post") {
            assert_eq!(takes_key(post), !OPEN.contains(&path.as_str()), "{path}: what the document says about the key");
            routes.insert(path.as_str());
        }
    }
    let listed: BTreeSet<_> = OPEN.into_iter().chain(cases.iter().map(|c| c.route)).collect();
    assert_eq!(routes, listed, "every POST has a case here, and every case a POST");

    let count = async |case: &Case| -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(case.counts.clone())).fetch_one(&app.db.pool).await.unwrap()
    };
    for case in &cases {
        let (route, before) = (case.route, count(case).await);
        let refused = case.by.post_once(&case.path, &"k".repeat(256), &case.body).await.expect(422);
        assert!(refused.body["details"]["fields"]["Idempotency-Key"].is_string(), "{route}: {}", refused.text);
        assert_eq!(count(case).await, before, "{route}");
        if route.ends_with("/restart") {
            // The previous one stops the server, and returns without waiting.
            eventually(&app.customer, &format!("/api/server/{server}"), |s| s["status"] == "stopped").await;
        }
        free(&app, server).await;
        if route.ends_with("/password") && route.contains("server") {
            eventually(&app.customer, &format!("/api/server/{server}"), |s| s["status"] == "running").await;
        }
        // Two at once, and one afterwards: the second waits for the first.
        let send = || case.by.post_once(&case.path, route, &case.body);
        let (one, two) = tokio::join!(send(), send());
        assert!((200..300).contains(&one.status), "{route}: {}", one.text);
        if route.ends_with("/logout") {
            // It can't be told any more whose key it is.
            send().await.expect(401);
            continue;
        }
        let three = send().await;
        for other in [&two, &three] {
            assert_eq!((other.status, &other.body), (one.status, &one.body), "{route}");
        }
        let done = if case.counts.contains("from hosts") && route.ends_with("/check") { 0 } else { 1 };
        let now = count(case).await;
        match route {
            // It ends every other login.
            "/api/auth/password" => assert!(now > before),
            _ => assert_eq!(now, before + done, "{route}"),
        }
        let mut other = case.body.clone();
        match &mut other {
            Value::Object(fields) => drop(fields.insert("name".into(), json!("another"))),
            other => *other = json!({ "another": "body" }),
        }
        let refused = case.by.post_once(&case.path, route, &other).await.expect(422);
        let fields = refused.body["details"]["fields"].as_object().unwrap();
        let ours = fields.contains_key("Idempotency-Key");
        // If the body has no such field, that error comes first.
        assert!(ours || fields.keys().any(|f| f.is_empty() || f == "name"), "{route}: {}", refused.text);
    }
    let stored: Vec<Vec<u8>> =
        sqlx::query_scalar("select answer_sealed from idempotency_keys where answer_sealed is not null")
            .fetch_all(&app.db.pool)
            .await
            .unwrap();
    assert!(stored.len() >= cases.len() - 1);
    assert!(!stored.iter().any(|s| s.windows(4).any(|w| w == b"ink_" || w == b"\"id\"")), "sealed at rest");
}

/// Waits until no operation holds the server.
async fn free(app: &TestApp, server: i64) {
    eventually(&app.customer, &format!("/api/server/{server}/operations"), |page| {
        page["data"].as_array().unwrap().iter().all(|o| matches!(o["state"].as_str(), Some("succeeded" | "failed")))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_orders_with_one_key_make_one_server_and_keys_are_per_user() {
    let app = TestApp::new().await;
    let lab = Lab::new(&app.db).await;
    let catalogue = lab.register(&app.provider).await;
    let orders: Vec<_> = (0..20)
        .map(|_| {
            let client = app.customer.clone();
            tokio::spawn(async move {
                client.post_once("/api/server/create", "order 1", &catalogue.order()).await.expect(200).body
            })
        })
        .collect();
    let mut answers = vec![];
    for order in orders {
        answers.push(order.await.unwrap());
    }
    assert!(answers.iter().all(|a| *a == answers[0]), "{answers:?}");
    assert_eq!(ended(&app.customer, &answers[0]["operationId"]).await["state"], "succeeded");
    assert_eq!(lab.guests().await, 1);

    let theirs = app.other.post_once("/api/server/create", "order 1", &catalogue.order()).await.expect(200).body;
    assert_ne!(theirs["id"], answers[0]["id"]);
    assert_eq!(ended(&app.other, &theirs["operationId"]).await["state"], "succeeded");
    // The same body sent to another path is another request.
    let path = format!("/api/server/{}/stop", answers[0]["id"]);
    let refused = app.customer.post_once(&path, "order 1", &catalogue.order()).await.expect(422);
    assert!(refused.body["details"]["fields"]["Idempotency-Key"].is_string(), "{}", refused.text);
}

/// The same request is still in progress elsewhere: the client is told to retry for the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_still_in_progress_is_a_409_with_retry_after() {
    let app = TestApp::new().await;
    let mut slow = kernel::db::begin(&app.db.pool).await.unwrap();
    sqlx::query("insert into idempotency_keys (user_id, key, request_hash) values ($1, 'slow', sha256(''))")
        .bind(app.customer_id.0)
        .execute(&mut *slow)
        .await
        .unwrap();
    let body = json!({ "name": "t", "scopes": ["read"] });
    let answer = app.customer.post_once("/api/auth/tokens", "slow", &body).await.expect(409);
    assert_eq!(answer.code(), "CONFLICT");
    assert!(answer.headers.contains_key("retry-after"));
    slow.rollback().await.unwrap();
    app.customer.post_once("/api/auth/tokens", "slow", &body).await.expect(201);
}

/// Each has inserted its key, which refers to the account, before it locks the account.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_orders_of_one_account_with_different_keys_do_not_block_each_other() {
    let app = TestApp::with(|c| c.database_pool = 25).await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    sqlx::query("update accounts set server_limit = 1000").execute(&app.db.pool).await.unwrap();
    for round in 0..3 {
        let order = async |n: usize| {
            let key = format!("order {round}.{n}");
            app.customer.post_once("/api/server/create", &key, &catalogue.container()).await.expect(200).body["id"]
                .as_i64()
        };
        let ids = futures_util::future::join_all((0..20).map(order)).await;
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 20, "{ids:?}");
    }
    app.all_ended(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_orders_with_one_key_make_one_server_though_the_database_is_cut_off() {
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

    // Like a careful client: it retries until it knows.
    let client = async |_: usize| {
        let mut failures = 0;
        let answer = wait_for("an answer", async || {
            let sent = app.customer.try_post_once("/api/server/create", "cut", &catalogue.order()).await;
            let seen = match sent {
                Ok(answer) if answer.status == 200 => return Ok(answer.body),
                Ok(answer) => {
                    assert!(matches!(answer.status, 409 | 503), "{}", answer.text);
                    answer.text
                }
                Err(error) => error.to_string(),
            };
            failures += 1;
            Err(seen)
        })
        .await;
        (answer, failures)
    };
    // Cut again and again, at arbitrary moments, while they try.
    let cuts = async {
        for gap in [1, 3, 7, 15, 30, 60, 90, 120] {
            tokio::time::sleep(std::time::Duration::from_millis(gap)).await;
            db_relay.cut();
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
            db_relay.mend().await;
        }
    };
    let (clients, ()) = tokio::join!(futures_util::future::join_all((0..8).map(client)), cuts);
    let (answers, failures): (Vec<Value>, Vec<u32>) = clients.into_iter().unzip();
    let failures: u32 = failures.into_iter().sum();
    assert!(failures > 0, "the cuts were noticed");
    assert!(answers.iter().all(|a| *a == answers[0]), "{answers:?}");
    assert_eq!(ended(&app.customer, &answers[0]["operationId"]).await["state"], "succeeded");
    let servers: i64 = sqlx::query_scalar("select count(*) from servers").fetch_one(&app.db.pool).await.unwrap();
    assert_eq!((servers, lab.guests().await), (1, 1));
}
