//! The audit log: every change leaves an entry, whoever made it and however it ended; it contains no secrets, nothing
//! can be removed from it, and customers see what concerns them.

use accounts::AccountSettings;
use serde_json::{Value, json};

use crate::support::app::login;
use crate::support::child::{Service, command};
use crate::support::{Client, PASSWORD, TestApp, eventually};

/// The newest entry that the provider sees.
async fn latest(app: &TestApp) -> Value {
    app.provider.get("/api/audit?limit=1").await.expect(200).body["data"][0].clone()
}

async fn entries(app: &TestApp) -> i64 {
    sqlx::query_scalar("select count(*) from audit_entries").fetch_one(&app.db.pool).await.unwrap()
}

fn tariff(name: &str) -> Value {
    json!({ "name": name, "kind": "lxc", "cores": 1, "memory": 64, "disk": 1, "price": 1 })
}

/// A server of the customer's, on a host that doesn't answer.
async fn server(app: &TestApp) -> i64 {
    let host = json!({ "name": "h", "kind": "incus", "config": { "socket": "/nowhere" }, "force": true });
    let host = app.provider.post("/api/hosts", host).await.expect(201).body["id"].as_i64().unwrap();
    let tariff = app.provider.post("/api/tariffs", tariff("t")).await.expect(201).body["id"].as_i64().unwrap();
    let image = json!({ "name": "i", "kind": "lxc" });
    let image = app.provider.post("/api/images", image).await.expect(201).body["id"].as_i64().unwrap();
    sqlx::query_scalar(
        "insert into servers (uuid, account_id, tariff_id, image_id, host_id, node, guest_number, kind, name, status,
                              cores, memory_mib, disk_gib)
         values (gen_random_uuid(), $1, $2, $3, $4, 'n', 1000, 'lxc', 's', 'stopped', 1, 64, 1) returning id",
    )
    .bind(app.customer_account.0)
    .bind(tariff)
    .bind(image)
    .bind(host)
    .fetch_one(&app.db.pool)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_range_times_are_refused() {
    let app = TestApp::new().await;
    for at in ["-4800-01-01T00:00:00Z", "%2B12000-01-01T00:00:00Z"] {
        for name in ["from", "to"] {
            app.customer.get(&format!("/api/audit?{name}={at}")).await.expect(422);
        }
    }
    app.customer.get("/api/audit?from=0001-01-01T00:00:00Z&to=9999-01-01T00:00:00Z").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_attempt_is_logged_with_who_where_and_outcome() {
    let app = TestApp::new().await;
    let server = server(&app).await;

    let made = app.provider.post("/api/tariffs", tariff("Pro")).await.expect(201);
    let entry = latest(&app).await;
    let provider = app.provider.get("/api/auth/me").await.body["id"].clone();
    assert_eq!(entry["action"], "POST /api/tariffs");
    assert_eq!((&entry["subject"], &entry["subjectId"]), (&json!("tariffs"), &json!(made.body["id"].to_string())));
    assert_eq!((&entry["userId"], &entry["role"]), (&provider, &json!("provider")));
    assert_eq!((&entry["status"], &entry["code"]), (&json!(201), &Value::Null));
    assert_eq!(entry["address"], "127.0.0.1");
    assert_eq!(entry["requestId"], made.headers["x-request-id"].to_str().unwrap());
    assert!(entry["tokenId"].is_string() && entry["endedAt"].is_string(), "{entry}");

    app.provider.post("/api/tariffs", tariff("Pro")).await.expect(409);
    assert_eq!(latest(&app).await["code"], "ALREADY_EXISTS");
    app.customer.delete(&format!("/api/tariffs/{}", made.body["id"])).await.expect(403);
    let entry = latest(&app).await;
    assert_eq!((&entry["code"], &entry["userId"]), (&json!("FORBIDDEN"), &json!(app.customer_id.0)));

    // For an operation the entry shows its current state.
    let started = app.customer.post(&format!("/api/server/{server}/start"), None).await.expect(200).body;
    let entry = latest(&app).await;
    assert_eq!((&entry["serverId"], &entry["operationId"]), (&json!(server), &started["operationId"]));
    assert!(matches!(entry["operationState"].as_str(), Some("queued" | "running" | "undoing")), "{entry}");
    sqlx::query(
        "update operations set state = 'failed', error_code = 'HOST_UNREACHABLE', ended_at = now(), fence = fence + 1",
    )
    .execute(&app.db.pool)
    .await
    .unwrap();
    let entry = latest(&app).await;
    assert_eq!((&entry["operationState"], &entry["operationCode"]), (&json!("failed"), &json!("HOST_UNREACHABLE")));

    // Logins, successful and failed: which account, and from where.
    let login = |password: &str| json!({ "email": "customer@example.com", "password": password });
    app.nobody.post("/api/auth/login", login("wrong")).await.expect(401);
    let entry = latest(&app).await;
    assert_eq!((&entry["action"], &entry["code"]), (&json!("POST /api/auth/login"), &json!("UNAUTHENTICATED")));
    assert_eq!((&entry["accountId"], &entry["role"]), (&json!(app.customer_account.0), &json!("nobody")));
    app.nobody.post("/api/auth/login", login(PASSWORD)).await.expect(200);
    assert_eq!(latest(&app).await["status"], 200);

    // Reads leave no entries, and unauthenticated clients can't fill the log.
    let before = entries(&app).await;
    app.customer.get("/api/server").await.expect(200);
    app.customer.get("/api/tariffs").await.expect(200);
    app.nobody.post("/api/tariffs", tariff("x")).await.expect(401);
    app.nobody.with_token("ink_a_nonsense").post("/api/tariffs", tariff("x")).await.expect(401);
    app.nobody.post("/api/nothing", tariff("x")).await.expect(404);
    assert_eq!(entries(&app).await, before);

    // Filters and pages.
    let found = async |query: &str| app.provider.get(&format!("/api/audit?{query}")).await.expect(200).body;
    let page = found("action=POST%20/api/tariffs&order=asc&limit=2").await;
    assert_eq!((&page["total"], &page["pages"], &page["limit"]), (&json!(3), &json!(2), &json!(2)));
    assert_eq!(page["data"][1]["status"], 201);
    let newest_last = page["data"][0]["at"].as_str() < page["data"][1]["at"].as_str();
    assert!(newest_last, "{page}");
    assert_eq!(found("code=ALREADY_EXISTS").await["total"], 1);
    assert_eq!(found(&format!("serverId={server}")).await["total"], 1);
    assert_eq!(found("to=2020-01-01T00:00:00Z").await["total"], 0);
    app.provider.get("/api/audit?sort=name").await.expect(422);
    app.provider.get("/api/audit?limit=101").await.expect(422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_the_audit_log() {
    let app = TestApp::new().await;
    let new = json!({ "name": "t", "scopes": ["read"] });
    let token = app.customer.post("/api/auth/tokens", new).await.expect(201).body["token"].clone();
    let change = json!({ "currentPassword": PASSWORD, "newPassword": "a wholly new password" });
    app.customer.post("/api/auth/password", change).await.expect(204);
    app.nobody
        .post("/api/auth/login", json!({ "email": "customer@example.com", "password": "guess!" }))
        .await
        .expect(401);
    let all: String = sqlx::query_scalar("select string_agg(a::text, ' ') from audit_entries a")
        .fetch_one(&app.db.pool)
        .await
        .unwrap();
    for secret in [PASSWORD, "wholly", "guess!", token.as_str().unwrap(), "ink_", "customer@example.com"] {
        assert!(!all.contains(secret), "{secret} is in {all}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn customers_see_only_entries_that_concern_them() {
    let app = TestApp::new().await;
    app.db.allow_unfinished();
    let server = server(&app).await;
    app.provider.post(&format!("/api/server/{server}/stop"), None).await.expect(200);
    app.other.post(&format!("/api/server/{server}/stop"), None).await.expect(404);
    app.other.post("/api/auth/tokens", json!({ "name": "t", "scopes": ["read"] })).await.expect(201);
    app.nobody
        .post("/api/auth/login", json!({ "email": "customer@example.com", "password": "guess" }))
        .await
        .expect(401);

    let mine = app.customer.get("/api/audit?limit=100").await.expect(200).body;
    let theirs = |e: &Value| e["role"] == "provider";
    let stopped: Vec<&Value> = mine["data"].as_array().unwrap().iter().filter(|e| theirs(e)).collect();
    assert_eq!(stopped.len(), 1, "{mine}");
    assert_eq!(
        (&stopped[0]["action"], &stopped[0]["serverId"]),
        (&json!("POST /api/server/{id}/stop"), &json!(server))
    );
    for hidden in ["userId", "tokenId", "address", "requestId"] {
        assert_eq!(stopped[0][hidden], Value::Null, "{hidden}");
    }
    let guess = mine["data"].as_array().unwrap().iter().find(|e| e["code"] == "UNAUTHENTICATED").unwrap();
    assert_eq!(guess["address"], "127.0.0.1", "the guesser's address is shown");
    let me = app.customer_id.0;
    let about_me = |e: &Value| e["accountId"] == app.customer_account.0 || theirs(e);
    assert!(mine["data"].as_array().unwrap().iter().all(about_me), "{mine}");

    let others = app.other.get("/api/audit?limit=100").await.expect(200).body;
    assert!(others["data"].as_array().unwrap().iter().all(|e| !theirs(e) && e["userId"] != me), "{others}");
    assert_eq!(app.other.get(&format!("/api/audit?userId={me}")).await.expect(200).body["total"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_are_immutable_until_their_month_is_dropped() {
    let app = TestApp::with(|c| c.audit_days = 30).await;
    let part: String = sqlx::query_scalar("select 'audit_' || to_char(now() at time zone 'UTC', 'YYYYMM')")
        .fetch_one(&app.db.pool)
        .await
        .unwrap();
    login(&app.nobody, "customer@example.com").await;
    let before = entries(&app).await;
    assert!(before > 0, "the login of this test");
    for forbidden in [
        "update audit set action = 'nothing'".to_owned(),
        "update audit set ended_at = now(), status = 500".to_owned(),
        "delete from audit".to_owned(),
        "truncate audit".to_owned(),
        format!("truncate {part}"),
        format!("delete from {part}"),
    ] {
        let error = sqlx::query(sqlx::AssertSqlSafe(forbidden.clone())).execute(&app.db.pool).await.unwrap_err();
        assert!(error.to_string().contains("append-only"), "{forbidden}: {error}");
    }
    // An entry's end is written once, and nothing else can change.
    let open = "insert into audit (id, role, action) values (gen_random_uuid(), 'nobody', 'open')";
    sqlx::query(open).execute(&app.db.pool).await.unwrap();
    for (change, fine) in [
        ("action = 'x', ended_at = now()", false),
        ("status = 200", false),
        ("status = 200, ended_at = now()", true),
        ("status = 500, ended_at = now()", false),
    ] {
        let sql = format!("update audit set {change} where action = 'open'");
        assert_eq!(sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&app.db.pool).await.is_ok(), fine, "{change}");
    }

    for sql in [
        "create table audit_202001 partition of audit for values from ('2020-01-01') to ('2020-02-01')",
        "insert into audit (id, at, role, action) values (gen_random_uuid(), '2020-01-15', 'nobody', 'long ago')",
    ] {
        sqlx::query(sql).execute(&app.db.pool).await.unwrap();
    }
    let with_old = entries(&app).await;
    kernel::audit::service::upkeep(&app.core).await.unwrap();
    assert_eq!(entries(&app).await, with_old - 1);
    let months: i64 = sqlx::query_scalar("select count(*) from pg_inherits where inhparent = 'audit'::regclass")
        .fetch_one(&app.db.pool)
        .await
        .unwrap();
    assert_eq!(months, 4, "this month and the next three");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_processes_and_disconnected_clients_show_in_the_audit_log() {
    let app = TestApp::new().await;
    let mut service = Service::start(&app.db, app.data.path(), "").await;
    let there = Client { base: service.base.clone(), ..app.provider.clone() };
    let hold = async || {
        let mut held = kernel::db::begin(&app.db.pool).await.unwrap();
        sqlx::query("lock table tariffs in access exclusive mode").execute(&mut *held).await.unwrap();
        held
    };
    let path = "/api/audit?action=POST%20/api/tariffs&order=asc";
    let waits = |client: Client, key: &'static str| {
        tokio::spawn(async move { client.try_post_once("/api/tariffs", key, &tariff(key)).await })
    };
    let held = hold().await;
    let leaving = waits(app.provider.clone(), "leaves");
    eventually(&app.provider, path, |page| page["total"] == 1).await;
    leaving.abort();
    held.rollback().await.unwrap();
    let page = eventually(&app.provider, path, |page| page["data"][0]["endedAt"].is_string()).await;
    assert_eq!(page["data"][0]["code"], Value::Null, "completed, though its client has left: {page}");
    assert!(page["data"][0]["subjectId"].is_string(), "{page}");

    let held = hold().await;
    let waiting = waits(there, "waits");
    eventually(&app.provider, path, |page| page["total"] == 2).await;
    service.kill().await;
    assert!(waiting.await.unwrap().is_err());
    held.rollback().await.unwrap();
    let page = app.provider.get(path).await.expect(200).body;
    assert_eq!(page["data"][1]["endedAt"], Value::Null, "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_in_the_audit_log_too() {
    let app = TestApp::new().await;
    let run = async |arguments: &[&str]| {
        let output = command(&app.db, app.data.path()).args(arguments).output().await.unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    assert!(run(&["user", "disable", "other@example.com"]).await.0);
    let entry = latest(&app).await;
    assert_eq!(
        (&entry["action"], &entry["role"], &entry["status"]),
        (&json!("user disable"), &json!("cli"), &json!(200))
    );
    assert!(entry["accountId"].is_number() && entry["address"].is_null(), "{entry}");
    assert!(!run(&["user", "disable", "nobody@example.com"]).await.0);
    assert_eq!(latest(&app).await["code"], "NOT_FOUND");
    let (_, made) =
        run(&["tariff", "add", "--name", "cli", "--cores", "1", "--memory", "64", "--disk", "1", "--price", "1"]).await;
    let entry = latest(&app).await;
    assert_eq!(entry["subject"], "tariff");
    assert!(made.contains(&format!("id {}", entry["subjectId"].as_str().unwrap())), "{made} {entry}");

    let before = entries(&app).await;
    let (fine, list) = run(&["audit", "list", "--limit", "2"]).await;
    assert!(fine && list.lines().count() == 3, "{list}");
    assert!(list.contains("tariff add") && list.contains("NOT_FOUND"), "{list}");
    assert_eq!(entries(&app).await, before, "reads leave no entries");
}

/// Repeated refusals are counted, and leave no more entries than anybody would read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_refusals_are_counted_and_do_not_fill_the_log() {
    let app = TestApp::new().await;
    let refused = (0..60).map(async |n: u32| {
        app.customer.delete(&format!("/api/tariffs/{n}")).await.expect(403);
    });
    futures_util::future::join_all(refused).await;
    // A successful change always gets an entry, however much was refused before.
    app.customer.post("/api/auth/tokens", json!({ "name": "t", "scopes": ["read"] })).await.expect(201);
    assert_eq!(latest(&app).await["status"], 201);
    let mine = app.customer.get("/api/audit?code=FORBIDDEN").await.expect(200).body;
    assert!(mine["total"].as_i64() <= Some(40), "the first 20 of one hour or two: {}", mine["total"]);
    let count =
        |page: &Value| page["data"].as_array().unwrap().iter().map(|row| row["count"].as_i64().unwrap()).sum::<i64>();
    let counted = app.customer.get("/api/audit/refused").await.expect(200).body;
    assert_eq!(count(&counted), 60, "{counted}");
    assert_eq!(counted["data"][0]["userId"], app.customer_id.0);
    assert_eq!(count(&app.provider.get("/api/audit/refused").await.expect(200).body), 60);
    assert_eq!(count(&app.other.get("/api/audit/refused").await.expect(200).body), 0);
    let open: i64 = sqlx::query_scalar("select count(*) from audit_open").fetch_one(&app.db.pool).await.unwrap();
    assert_eq!(open, 0);
}

/// Guesses at an account's password are shown to its owner: the first few as entries, all of them as a count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_logins_are_counted_for_the_targeted_account() {
    let app = TestApp::with(|c| c.of::<AccountSettings>().login_limit_account = 1000).await;
    for _ in 0..25 {
        let guess = json!({ "email": "customer@example.com", "password": "guess" });
        app.nobody.post("/api/auth/login", guess).await.expect(401);
    }
    let counted = app.customer.get("/api/audit/refused").await.expect(200).body;
    let count: i64 = counted["data"].as_array().unwrap().iter().map(|row| row["count"].as_i64().unwrap()).sum();
    assert_eq!((count, &counted["data"][0]["userId"]), (25, &Value::Null), "{counted}");
    assert_eq!(counted["data"][0]["accountId"], app.customer_account.0);
}

/// An entry without an end is kept as it is, once its process must be dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unfinished_entry_is_kept() {
    let app = TestApp::new().await;
    let begun = "insert into audit_open (id, at, role, action)
                 values (gen_random_uuid(), now() - interval '2 hours', 'nobody', 'old'),
                        (gen_random_uuid(), now(), 'nobody', 'new')";
    sqlx::query(begun).execute(&app.db.pool).await.unwrap();
    kernel::audit::service::upkeep(&app.core).await.unwrap();
    let kept: Vec<String> =
        sqlx::query_scalar("select action from audit where ended_at is null").fetch_all(&app.db.pool).await.unwrap();
    assert_eq!(kept, ["old"]);
    assert_eq!(app.provider.get("/api/audit?action=new").await.expect(200).body["total"], 1);
}
