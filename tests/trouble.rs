//! Databases in trouble: read-only, full, out of connections, or with a wrong clock. What can't be done is a 503, what
//! can be read is read, nothing is lost for good, and everything recovers by itself.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use kernel::janitor::Clock;
use secrecy::SecretString;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use watch::history::service as history;

use crate::support::client::Response;
use crate::support::relay::DatabaseRelay;
use crate::support::writes::second;
use crate::support::{
    Client, Cluster, PASSWORD, Pve, TestApp, TestDb, ended, eventually, expect_error, expect_outage, wait_for,
};

async fn run(app: &TestApp, sql: &str) {
    sqlx::query(AssertSqlSafe(sql)).execute(&app.db.pool).await.unwrap();
}

async fn count(app: &TestApp, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&app.db.pool).await.unwrap()
}

/// Ends every connection but our own, so that new ones see the database's current settings.
async fn reconnect(app: &TestApp) {
    let others = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                  where datname = current_database() and application_name = 'innkeeper'";
    count(app, others).await;
}

fn assert_unavailable(answer: &Response) {
    assert_eq!((answer.status, answer.code()), (503, "DATABASE_UNAVAILABLE"), "{}", answer.text);
    assert!(answer.headers.contains_key("retry-after"), "{}", answer.text);
    assert!(
        ["Nothing was changed", "read-only", "too slowly"].iter().any(|words| answer.text.contains(words)),
        "{}",
        answer.text
    );
}

/// A token that has not been used yet, so that its first use must be recorded.
async fn api_token(app: &TestApp, by: &Client) -> Client {
    let made = by.post("/api/auth/tokens", json!({ "name": "t", "scopes": ["write"] })).await.expect(201).body;
    app.nobody.with_token(made["token"].as_str().unwrap())
}

fn size(name: &str) -> Value {
    json!({ "name": name, "kind": "lxc", "cores": 1, "memory": 64, "disk": 1, "price": 1 })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_database_serves_reads_and_refuses_writes_until_it_recovers() {
    expect_outage();
    expect_error("cannot claim operations");
    let app = TestApp::new().await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    let token = api_token(&app, &app.customer).await;
    let name = &app.db.name;
    run(&app, &format!("alter database {name} set default_transaction_read_only = on")).await;
    reconnect(&app).await;

    // The connections that the processes held are gone.
    eventually(&app.customer, "/api/server", |_| true).await;
    token.get("/api/server").await.expect(200);
    app.nobody.get("/health/live").await.expect(200);
    let login = json!({ "email": "customer@example.com", "password": PASSWORD });
    for answer in [
        app.nobody.get("/health/ready").await,
        app.customer.post("/api/server/create", catalogue.container()).await,
        app.provider.post("/api/tariffs", size("new")).await,
        app.provider.put(&format!("/api/tariffs/{}", catalogue.lxc.1), json!({ "price": 1 })).await,
        app.provider.delete(&format!("/api/tariffs/{}", catalogue.vm.1)).await,
        app.nobody.post("/api/auth/login", login.clone()).await,
        app.nobody.post("/api/auth/refresh", json!({ "refreshToken": "ink_r_x" })).await,
    ]
    .iter()
    .filter(|answer| answer.status != 401)
    {
        assert_unavailable(answer);
    }

    run(&app, &format!("alter database {name} reset default_transaction_read_only")).await;
    reconnect(&app).await;
    eventually(&app.nobody, "/health/ready", |_| true).await;
    app.nobody.post("/api/auth/login", login).await.expect(200);
    let order = app.customer.post("/api/server/create", catalogue.container()).await.expect(200).body;
    assert_eq!(ended(&app.customer, &order["operationId"]).await["state"], "succeeded");
}

/// As PostgreSQL reports it when an insert finds its disk full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_database_disk_is_a_503_and_not_an_internal_error() {
    expect_outage();
    let app = TestApp::new().await.running("heartbeat");
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    run(
        &app,
        "create function full_disk() returns trigger language plpgsql as $$
         begin raise exception 'could not extend file: No space left on device' using errcode = 'disk_full'; end $$",
    )
    .await;
    let tables = ["servers", "tariffs", "tokens", "installation"];
    for table in tables {
        run(&app, &format!("create trigger full_disk before insert or update on {table} execute function full_disk()"))
            .await;
    }
    assert_unavailable(&app.customer.post("/api/server/create", catalogue.container()).await);
    assert_unavailable(&app.provider.post("/api/tariffs", size("new")).await);
    assert_unavailable(&app.customer.post("/api/auth/tokens", json!({ "name": "t", "scopes": ["read"] })).await);
    app.customer.get("/api/server").await.expect(200);
    let unready = wait_for("the next heartbeat to fail", async || {
        let answer = app.nobody.get("/health/ready").await;
        if answer.status == 200 { Err(answer.text) } else { Ok(answer) }
    })
    .await;
    assert_unavailable(&unready);
    for table in tables {
        run(&app, &format!("drop trigger full_disk on {table}")).await;
    }
    eventually(&app.nobody, "/health/ready", |_| true).await;
    let order = app.customer.post("/api/server/create", catalogue.container()).await.expect(200).body;
    assert_eq!(ended(&app.customer, &order["operationId"]).await["state"], "succeeded");
}

/// First its tables can't grow, then it can't even write its log and ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_disk_that_fills_up() {
    expect_outage();
    let cluster = Cluster::on_small_disk().await;
    let app = TestApp::on(TestDb::within(cluster.url.clone()).await, |_| {}).await;
    let create = async |n: usize| app.provider.post("/api/tariffs", size(&format!("tariff {n}"))).await;
    let names = async || {
        let tariffs = app.provider.get("/api/tariffs").await.expect(200).body;
        tariffs.as_array().unwrap().iter().map(|tariff| tariff["name"].to_string()).collect::<BTreeSet<_>>()
    };
    let mut acknowledged = BTreeSet::new();
    cluster.fill_disk();
    // There is room until the last page of some table is full.
    let refused = loop {
        match create(acknowledged.len()).await {
            made if made.status == 201 => assert!(acknowledged.insert(made.body["name"].to_string())),
            refused => break refused,
        }
        assert!(acknowledged.len() < 1000, "the disk is not full");
    };
    assert_unavailable(&refused);
    assert_eq!(names().await, acknowledged);

    cluster.exhaust_wal().await;
    for answer in [create(0).await, app.provider.get("/api/tariffs").await, app.nobody.get("/health/ready").await] {
        assert_unavailable(&answer);
    }

    cluster.free_disk();
    cluster.start().await;
    eventually(&app.nobody, "/health/ready", |_| true).await;
    assert_eq!(names().await, acknowledged);
    create(acknowledged.len()).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_without_free_connections_is_a_503_and_recovers_by_itself() {
    expect_outage();
    expect_error("too many connections");
    expect_error("pool timed out");
    let db = TestDb::new().await;
    // The service under a role of its own, whose connections can be limited.
    let role = format!("{}_role", db.name);
    let owner: String = sqlx::query_scalar("select current_user::text").fetch_one(&db.pool).await.unwrap();
    let sql = format!("create role {role} login password 'limited' in role {owner}");
    sqlx::query(AssertSqlSafe(sql)).execute(&db.pool).await.unwrap();
    let (url, owned) = (db.url(), format!("postgres://{role}:limited@"));
    let url = owned + url.rsplit_once('@').unwrap().1;
    let app = TestApp::on(db, |c| {
        c.database_url = SecretString::from(url);
        c.database_wait_seconds = 1;
    })
    .await;
    app.customer.get("/api/server").await.expect(200);

    run(&app, &format!("alter role {role} connection limit 0")).await;
    reconnect(&app).await;
    // Connections still thought to be alive are noticed first.
    crate::support::wait_for("the end of the last connection", async || {
        match app.nobody.get("/health/ready").await.status {
            503 => Some(()),
            _ => None,
        }
    })
    .await;
    for answer in [app.customer.get("/api/server").await, app.provider.post("/api/tariffs", size("new")).await] {
        assert_unavailable(&answer);
    }
    run(&app, &format!("alter role {role} connection limit -1")).await;
    eventually(&app.customer, "/api/server", |_| true).await;
    app.provider.post("/api/tariffs", size("new")).await.expect(201);
    run(&app, &format!("alter role {role} nologin")).await;
}

/// A database whose clock the test sets: `now()` is found in this schema before PostgreSQL's own.
async fn db_with_settable_clock() -> TestDb {
    let db = TestDb::new().await;
    let name = &db.name;
    for sql in [
        "create schema clock".to_owned(),
        "create table clock.ahead (by interval)".to_owned(),
        "insert into clock.ahead values ('0')".to_owned(),
        "create function clock.now() returns timestamptz language sql stable as
         'select pg_catalog.now() + by from clock.ahead'"
            .to_owned(),
        "create function clock.clock_timestamp() returns timestamptz language sql as
         'select pg_catalog.clock_timestamp() + by from clock.ahead'"
            .to_owned(),
        "set search_path = clock, pg_catalog, public".to_owned(),
        "alter table audit alter column at set default now()".to_owned(),
        format!("alter database {name} set search_path = clock, pg_catalog, public"),
    ] {
        // One connection, for its search path.
        sqlx::query(AssertSqlSafe(sql)).execute(&db.pool).await.unwrap();
    }
    db
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_whose_database_is_slow_is_not_ready_until_it_recovers() {
    expect_outage();
    let app = TestApp::new().await;
    let relay = DatabaseRelay::new(&app.db).await;
    let (_second, base) = second(&app, &relay).await;
    let nobody = Client::new(&base, None);
    nobody.get("/health/ready").await.expect(200);
    relay.delay(Duration::from_secs(3));
    // An answer may be kept for a moment.
    wait_for("the slowness to be noticed", async || match nobody.get("/health/ready").await {
        answer if answer.status == 200 => Err("ready"),
        answer => {
            assert_unavailable(&answer);
            Ok(())
        }
    })
    .await;
    relay.delay(Duration::ZERO);
    eventually(&nobody, "/health/ready", |_| true).await;
}

/// Ages are measured up to a horizon, which no clock can push.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stored_data_ages_no_faster_than_time_passes_whatever_the_clocks_say() {
    expect_error("the database's clock and this machine's disagree");
    expect_error("the clocks were set forward");
    let app = TestApp::on(db_with_settable_clock().await, |_| {}).await;
    let mut clock = Clock::default();
    clock.follow(&app.core.db, Utc::now()).await.unwrap();
    let horizon = async || -> DateTime<Utc> {
        sqlx::query_scalar("select horizon from upkeep").fetch_one(&app.db.pool).await.unwrap()
    };
    let before = horizon().await;
    run(&app, "update clock.ahead set by = '365 days'").await;
    clock.follow(&app.core.db, Utc::now()).await.unwrap();
    assert_eq!(horizon().await, before, "the clocks disagree: nothing expires");

    clock = Clock::default();
    run(&app, "update clock.ahead set by = '0'").await;
    clock.follow(&app.core.db, Utc::now()).await.unwrap();
    run(&app, "update clock.ahead set by = '365 days'").await;
    clock.follow(&app.core.db, Utc::now() + TimeDelta::days(365)).await.unwrap();
    let after = horizon().await;
    assert!(after > before && after - before < TimeDelta::days(1), "both clocks were set: {before}, then {after}");
}

/// Everything that expires by age.
async fn forget(app: &TestApp) {
    history::maintain_partitions(&app.core).await.unwrap();
    history::aggregate(&app.core).await.unwrap();
    for feature in app.service.features.all() {
        feature.upkeep().await.unwrap();
    }
}

const KEPT: [&str; 7] = [
    "select count(*) from audit",
    "select count(*) from pg_inherits
     where inhparent in ('audit'::regclass, 'samples'::regclass, 'samples_5m'::regclass)",
    "select count(*) from samples",
    "select count(*) from sessions",
    "select count(*) from tokens",
    "select count(*) from mails",
    "select count(*) from idempotency_keys",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_jump_of_a_day_or_a_year_drops_no_data_and_blocks_no_write() {
    let app = TestApp::on(db_with_settable_clock().await, |_| {}).await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    // API tokens that never expire: logins expire by that clock.
    let provider = api_token(&app, &app.provider).await;
    let customer = api_token(&app, &app.customer).await;
    customer.post_once("/api/auth/tokens", "k", &json!({ "name": "k", "scopes": ["read"] })).await;
    provider.post_once("/api/tariffs", "k", &size("kept")).await.expect(201);
    run(
        &app,
        "insert into samples (server_id, taken_at, power, uptime_s)
         select 1, now() - n * interval '1 hour', 'running', 1
         from generate_series(0, 20) n",
    )
    .await;
    run(
        &app,
        "insert into mails (id, event, recipient, subject, text_body, html_body, state)
         values (gen_random_uuid(), 'e', 'customer@example.com', 's', 't', 'h', 'sent')",
    )
    .await;
    let server = customer.post("/api/server/create", catalogue.container()).await.expect(200).body;
    assert_eq!(ended(&customer, &server["operationId"]).await["state"], "succeeded");

    for by in ["1 day", "-1 day", "1 year", "-1 year"] {
        let mut before = vec![];
        for sql in KEPT {
            before.push(count(&app, sql).await);
        }
        run(&app, &format!("update clock.ahead set by = '{by}'")).await;
        provider.post("/api/tariffs", size(by)).await.expect(201);
        forget(&app).await;
        run(&app, "insert into samples (server_id, taken_at, power, uptime_s) values (1, now(), 'running', 1)").await;
        // What starts while the clock is wrong ends when it is right.
        let restarted = customer.post(&format!("/api/server/{}/restart", server["id"]), None).await.expect(200).body;
        run(&app, "update clock.ahead set by = '0'").await;
        assert_eq!(ended(&customer, &restarted["operationId"]).await["state"], "succeeded", "{by}");
        forget(&app).await;
        for (sql, before) in KEPT.into_iter().zip(before) {
            let now = count(&app, sql).await;
            assert!(now >= before, "{by}: {sql}: {before}, then {now}");
        }
        app.customer.get("/api/server").await.expect(200);
    }
}
