//! The live view, through the official Socket.IO client.

mod accounts;

use chrono::Utc;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::wait::PATIENCE;
use crate::support::{Live, TestApp, wait_for};

/// A server that exists only in the database: what the sockets show needs no guest.
pub(crate) async fn server(app: &TestApp, email: &str) -> i64 {
    sqlx::query(
        "insert into tariffs (name, kind, cores, memory_mib, disk_gib, price) values ('t', 'lxc', 1, 1024, 10, 1)
         on conflict do nothing",
    )
    .execute(&app.db.pool)
    .await
    .unwrap();
    sqlx::query("insert into images (name, kind) values ('i', 'lxc') on conflict do nothing")
        .execute(&app.db.pool)
        .await
        .unwrap();
    sqlx::query(
        "insert into hosts (name, kind, config_sealed, enabled) values ('h', 'incus', '', false)
         on conflict do nothing",
    )
    .execute(&app.db.pool)
    .await
    .unwrap();
    sqlx::query_scalar(
        "insert into servers (uuid, account_id, tariff_id, image_id, host_id, node, guest_number, kind, name, status,
                              cores, memory_mib, disk_gib)
         select $1, (select a.id from accounts a where a.owner_id = u.id), t.id, i.id, h.id, 'n',
                nextval('guest_numbers'), 'lxc', 'web', 'running', 1, 1024, 10
         from users u, tariffs t, images i, hosts h where u.email = $2 returning id",
    )
    .bind(Uuid::new_v4())
    .bind(email)
    .fetch_one(&app.db.pool)
    .await
    .unwrap()
}

/// What a sweep stores.
async fn swept(app: &TestApp, server: i64, cpu: f64) {
    sqlx::query(
        "with s as (insert into samples values ($1, clock_timestamp(), 'running', 60, $2, 512, 1024, 1, 10, 5, 6))
         select pg_notify('sampled', host_id::text) from servers where id = $1",
    )
    .bind(server)
    .bind(cpu)
    .execute(&app.db.pool)
    .await
    .unwrap();
}

/// An open alert.
async fn alarmed(app: &TestApp, server: i64) {
    sqlx::query(
        "insert into alerts (kind, subject, server_id, level, value, raised_at)
         values ('cpu', 'server:' || $1, $1, 'warning', 0.95, now())",
    )
    .bind(server)
    .execute(&app.db.pool)
    .await
    .unwrap();
}

async fn operation(app: &TestApp, server: i64, state: &str) -> Uuid {
    let id: Uuid = sqlx::query_scalar(
        "insert into operations (id, subject_kind, subject_id, lane, kind, state, step, data, progress, deadline,
                                 ended_at)
         values ($1, 'server', $2::bigint::text, 'host', 'restart', $3, 'restart', '{}', 40, now() + interval '1 hour',
                 case when $3 = 'succeeded' then now() end)
         on conflict (subject_kind, subject_id) where state in ('queued', 'running', 'undoing', 'stuck')
         do update set state = excluded.state, ended_at = excluded.ended_at returning id",
    )
    .bind(Uuid::now_v7())
    .bind(server)
    .bind(state)
    .fetch_one(&app.db.pool)
    .await
    .unwrap();
    id
}

async fn changed(app: &TestApp, operation: Uuid) {
    sqlx::query("select pg_notify('operation_changed', $1::text)").bind(operation).execute(&app.db.pool).await.unwrap();
}

fn token(client: &crate::support::Client) -> &str {
    client.token.as_deref().unwrap()
}

/// Another customer gets the server, and the service is told that its owner has changed.
async fn hand_over(app: &TestApp, server: i64) {
    sqlx::query(
        "update servers set account_id = (select a.id from accounts a join users u on u.id = a.owner_id
                                        where u.email = 'other@example.com') where id = $1",
    )
    .bind(server)
    .execute(&app.db.pool)
    .await
    .unwrap();
    sqlx::query("update users set staff_role = staff_role where email = 'customer@example.com'")
        .execute(&app.db.pool)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_needs_a_valid_token() {
    let app = TestApp::new().await;
    let mut live = Live::new(&app.base);
    for auth in
        [json!({}), json!({ "token": "ink_a_made_up" }), json!({ "token": "" }), json!({ "token": 7 }), json!([])]
    {
        live.tell(json!({ "do": "connect", "auth": auth })).await;
        let refused = live.next("connect_error").await;
        assert!(refused["message"].as_str().unwrap().starts_with("UNAUTHENTICATED: "), "{refused}");
        assert_eq!(refused["active"], false, "the client does not retry by itself");
    }
    let good = token(&app.customer);
    for connect in [
        json!({ "do": "connect", "token": good }),
        json!({ "do": "connect", "token": format!("Bearer {good}") }),
        json!({ "do": "connect", "header": format!("Bearer {good}") }),
        json!({ "do": "connect", "token": good, "transports": ["websocket"] }),
        json!({ "do": "connect", "token": good, "transports": ["polling"] }),
    ] {
        live.tell(connect).await;
        live.next("connect").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_sees_only_its_own_servers() {
    let app = TestApp::new().await;
    let mine = server(&app, "customer@example.com").await;
    let foreign = server(&app, "other@example.com").await;
    let mut live = Live::connected(&app.base, token(&app.customer)).await;

    assert_eq!(live.subscribe(mine).await, json!({ "status": "success", "serverId": mine }));
    let first = live.next("server-stats").await["args"][0].clone();
    let status = app.customer.get(&format!("/api/server/{mine}/status")).await.expect(200).body;
    // JavaScript has no 0.0.
    let stats = status["stats"].to_string().replace("0.0", "0").parse::<Value>().unwrap();
    assert_eq!(first, json!({ "serverId": mine, "stats": stats }), "the same shape as the API's");
    assert_eq!(first["stats"]["data"]["sampledAt"], Value::Null);

    for id in [json!(foreign), json!(foreign.to_string()), json!(987_654_321)] {
        live.tell(json!({ "do": "subscribe", "id": id })).await;
        let refused = live.next("subscribe-error").await["args"][0].clone();
        assert_eq!(refused, json!({ "serverId": id, "error": "There is no such server.", "code": "NOT_FOUND" }));
    }
    for id in [json!(null), json!("x"), json!({ "id": mine }), json!([]), json!(-1)] {
        live.tell(json!({ "do": "emit", "event": "subscribe-server", "args": [id], "ack": true })).await;
        assert_eq!(live.find("ack", |a| a["status"] == "error").await["args"][0]["code"], "MALFORMED");
    }

    swept(&app, foreign, 0.99).await;
    swept(&app, mine, 0.5).await;
    // The foreign server's sweep, on the same host, may have sent our previous values again.
    let sampled = |s: &Value| s["serverId"] != json!(mine) || s["stats"]["data"]["cpu"].is_number();
    let stats = live.find("server-stats", sampled).await["args"][0].clone();
    assert_eq!((&stats["serverId"], &stats["stats"]["data"]["cpu"]), (&json!(mine), &json!(0.5)));
    assert_eq!(stats["stats"]["data"]["memory"]["usage"], 50.0);
    alarmed(&app, mine).await;
    swept(&app, mine, 0.95).await;
    let alerts = live.next("server-alerts").await["args"][0].clone();
    assert_eq!(alerts["serverId"], mine);
    let alert = &alerts["alerts"][0];
    let seen = json!({ "type": alert["type"], "message": alert["message"], "level": alert["level"] });
    assert_eq!(seen, json!({ "type": "cpu", "message": "CPU usage is at 95%", "level": "warning" }), "per contract");
    assert!(alert["id"].is_number() && alert["raisedAt"].is_string() && alert["acknowledged"] == false, "{alert}");
    sqlx::query("update alerts set resolved_at = now(), ended = 'recovered'").execute(&app.db.pool).await.unwrap();
    swept(&app, mine, 0.5).await;
    // The push for an earlier sweep may have sent it a second time.
    let over = live.find("server-alerts", |a| a["alerts"] == json!([])).await["args"][0].clone();
    assert_eq!(over, json!({ "serverId": mine, "alerts": [] }), "the alert is over");
    alarmed(&app, foreign).await;

    // A string works as an id, and the provider sees everything.
    let mut provider = Live::connected(&app.base, token(&app.provider)).await;
    provider.tell(json!({ "do": "subscribe", "id": foreign.to_string() })).await;
    assert_eq!(provider.next("ack").await["args"][0], json!({ "status": "success", "serverId": foreign }));
    provider.next("server-alerts").await;

    live.tell(json!({ "do": "unsubscribe", "id": mine })).await;
    live.find("ack", |a| a == &json!({ "status": "success", "serverId": mine })).await;
    // An event for another server shows that nothing more comes for this one.
    let second = server(&app, "customer@example.com").await;
    live.subscribe(second).await;
    swept(&app, mine, 0.1).await;
    swept(&app, second, 0.3).await;
    let third = |s: &Value| s["stats"]["data"]["cpu"].as_f64() == Some(0.3);
    let (before, _) = live.until("server-stats", third).await;
    assert!(before.iter().all(|seen| seen["args"][0]["serverId"] != json!(mine)), "after unsubscribing: {before:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pushed_chart_equals_the_fetched_one() {
    let app = TestApp::new().await;
    let id = server(&app, "customer@example.com").await;
    // At the start of a step, so that it is known which samples share one.
    let base = Utc::now().timestamp().div_euclid(60) * 60 - 600;
    let sample = async |seconds: i32| {
        sqlx::query(
            "with s as (insert into samples (server_id, taken_at, power, uptime_s, cpu, memory_used, memory_max,
                                             disk_used, disk_max, net_in, net_out)
                        values ($1, to_timestamp($3 + $2), 'running', $2, 0.5, $2, 9999, 1, 10, $2 * $2, 6))
             select pg_notify('sampled', host_id::text) from servers where id = $1",
        )
        .bind(id)
        .bind(seconds)
        .bind(base)
        .execute(&app.db.pool)
        .await
        .unwrap();
    };
    // JavaScript has no 1.0.
    let chart = |stats: &Value| -> Vec<Vec<Option<f64>>> {
        let points = stats["data"]["rrdData"].as_array().unwrap().iter();
        points.map(|p| p.as_object().unwrap().values().map(Value::as_f64).collect()).collect()
    };
    for seconds in [1, 30, 61] {
        sample(seconds).await;
    }
    let mut live = Live::connected(&app.base, token(&app.customer)).await;
    live.subscribe(id).await;
    // Several in one step, and some in a step of their own.
    for (seconds, points) in [(75, 4), (80, 4), (89, 4), (90, 5), (120, 6), (121, 6), (150, 7)] {
        sample(seconds).await;
        let seen = live.find("server-stats", |s| s["stats"]["data"]["uptime"] == json!(seconds)).await;
        let read = app.customer.get(&format!("/api/server/{id}/status")).await.expect(200).body;
        let (seen, read) = (chart(&seen["args"][0]["stats"]), chart(&read["stats"]));
        assert_eq!((&seen, seen.len()), (&read, points), "after {seconds} s");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operation_progress_is_pushed_and_a_reconnect_loses_nothing() {
    let app = TestApp::new().await;
    let mine = server(&app, "customer@example.com").await;
    // Not due for a worker: the test changes its state.
    app.db.allow_unfinished();
    let id = operation(&app, mine, "stuck").await;
    let mut live = Live::connected(&app.base, token(&app.customer)).await;
    live.subscribe(mine).await;
    let seen = live.next("operation").await["args"][0].clone();
    assert_eq!(seen["id"], json!(id));
    let mut keys: Vec<_> = seen.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    let want = [
        "createdAt",
        "endedAt",
        "error",
        "id",
        "kind",
        "number",
        "progress",
        "serverId",
        "startedAt",
        "state",
        "step",
        "subject",
    ];
    assert_eq!(keys, want);

    live.tell(json!({ "do": "drop" })).await;
    live.next("disconnect").await;
    live.next("connect").await;
    live.next("server-stats").await;
    live.find("operation", |o| o["state"] == "stuck").await;

    let id = operation(&app, mine, "succeeded").await;
    changed(&app, id).await;
    live.find("operation", |o| o["state"] == "succeeded" && o["endedAt"].is_string()).await;
    live.next("server-stats").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_end_with_the_token_or_login_that_opened_them() {
    let app = TestApp::new().await;
    let mine = server(&app, "customer@example.com").await;
    let ended = async |live: &mut Live| {
        assert_eq!(live.next("session-ended").await["args"][0]["code"], "UNAUTHENTICATED");
        assert_eq!(live.next("disconnect").await["reason"], "io server disconnect");
    };

    let new = json!({ "name": "watcher", "scopes": [format!("read:server:{mine}")] });
    let api_token = app.customer.post("/api/auth/tokens", new).await.expect(201).body;
    let mut scoped = Live::connected(&app.base, api_token["token"].as_str().unwrap()).await;
    scoped.subscribe(mine).await;
    let second = server(&app, "customer@example.com").await;
    assert_eq!(scoped.subscribe(second).await["status"], "error", "beyond its scopes");

    let mut login = Live::connected(&app.base, token(&app.customer)).await;
    login.subscribe(mine).await;
    let path = format!("/api/auth/tokens/{}", api_token["id"].as_str().unwrap());
    app.customer.delete(&path).await.expect(204);
    ended(&mut scoped).await;

    // The access token's expiry alone does not matter: the login is still valid.
    sqlx::query("update tokens set expires_at = now() where kind = 'access'").execute(&app.db.pool).await.unwrap();
    swept(&app, mine, 0.2).await;
    login.find("server-stats", |s| s["stats"]["data"]["cpu"] == 0.2).await;
    // A server that is transferred or deleted is not shown any more, from the next check at the latest.
    hand_over(&app, mine).await;
    assert_eq!(login.next("subscribe-error").await["args"][0]["code"], "NOT_FOUND");
    sqlx::query("update sessions set revoked_at = now()").execute(&app.db.pool).await.unwrap();
    ended(&mut login).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_message_and_a_shutdown_end_sockets() {
    let mut app = TestApp::new().await;
    let mine = server(&app, "customer@example.com").await;
    let mut huge = Live::connected(&app.base, token(&app.customer)).await;
    huge.tell(json!({ "do": "emit", "event": "subscribe-server", "args": ["x".repeat(20_000)] })).await;
    huge.next("disconnect").await;

    let mut live = Live::connected(&app.base, token(&app.customer)).await;
    live.subscribe(mine).await;
    app.stop().await;
    live.next("disconnect").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribing_again_sends_nothing_again() {
    let app = TestApp::new().await;
    let mine = server(&app, "customer@example.com").await;
    let mut live = Live::connected(&app.base, token(&app.customer)).await;
    live.subscribe(mine).await;
    live.next("server-stats").await;
    for _ in 0..3 {
        assert_eq!(live.subscribe(mine).await, json!({ "status": "success", "serverId": mine }));
    }
    for n in 1..=5 {
        let cpu = f64::from(n) / 10.0;
        swept(&app, mine, cpu).await;
        let new = |s: &Value| s["stats"]["data"]["cpu"].as_f64() == Some(cpu);
        let (before, _) = live.until("server-stats", new).await;
        assert_eq!(before, Vec::<Value>::new(), "acknowledged, and nothing more");
    }
    live.tell(json!({ "do": "unsubscribe", "id": mine })).await;
    live.next("ack").await;
    live.subscribe(mine).await;
    live.next("server-stats").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_sockets_per_login_is_limited() {
    let app = TestApp::new().await;
    let mut live = Live::new(&app.base);
    live.tell(json!({ "do": "crowd", "token": token(&app.customer), "count": 50 })).await;
    for _ in 0..50 {
        live.next("crowd-in").await;
    }
    live.tell(json!({ "do": "connect", "token": token(&app.customer) })).await;
    let refused = live.next("connect_error").await;
    assert!(
        refused["message"].as_str().unwrap().starts_with("RATE_LIMITED: At most 50 connections per login or token"),
        "{refused}"
    );
    // That affects nobody else, and ends when the others leave.
    live.tell(json!({ "do": "connect", "token": token(&app.other) })).await;
    live.next("connect").await;
    live.tell(json!({ "do": "disperse" })).await;
    wait_for("a free socket slot", async || {
        live.tell(json!({ "do": "connect", "token": token(&app.customer), "reconnection": false })).await;
        let seen = live.any(PATIENCE).await.unwrap();
        if seen["event"] == "connect" { Ok(()) } else { Err(seen) }
    })
    .await;
}

/// The statements that this thread's tasks send to the database.
#[derive(Clone, Default)]
struct Statements(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Statements {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{value:?} ");
            }
        }
        if event.metadata().target() == "sqlx::query" {
            let mut text = Text(String::new());
            event.record(&mut text);
            self.0.lock().unwrap().push(text.0);
        }
    }
}

impl Statements {
    fn of(&self, part: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|statement| statement.contains(part)).count()
    }
}

/// Waits until the socket has received an operation of each of these servers.
async fn wait_for_operations_of(live: &mut Live, servers: &[i64]) {
    let mut missing: std::collections::BTreeSet<i64> = servers.iter().copied().collect();
    while !missing.is_empty() {
        let told = live.next("operation").await;
        missing.remove(&told["args"][0]["serverId"].as_i64().unwrap());
    }
}

/// After a database outage everybody is refreshed at once: with one query for all of them, not one for each.
#[tokio::test]
async fn a_resync_takes_a_constant_number_of_statements() {
    use tracing_subscriber::layer::SubscriberExt;
    let app = TestApp::new().await;
    app.db.allow_unfinished();
    let mut servers = vec![];
    for _ in 0..6 {
        let server = server(&app, "customer@example.com").await;
        // In progress, and not due: no worker takes it.
        sqlx::query(
            "insert into operations (id, subject_kind, subject_id, lane, kind, state, step, data, run_at, deadline)
             values (gen_random_uuid(), 'server', $1::bigint::text, 'host', 'restart', 'running', 'restart', '{}',
                     now() + interval '1 hour', now() + interval '2 hours')",
        )
        .bind(server)
        .execute(&app.db.pool)
        .await
        .unwrap();
        servers.push(server);
    }
    let mut sockets = vec![];
    for _ in 0..5 {
        let mut live = Live::connected(&app.base, token(&app.customer)).await;
        for id in &servers {
            live.tell(json!({ "do": "subscribe", "id": id })).await;
        }
        wait_for_operations_of(&mut live, &servers).await;
        sockets.push(live);
    }
    let statements = Statements::default();
    let _here = tracing::subscriber::set_default(tracing_subscriber::registry().with(statements.clone()));
    app.core.events.publish(kernel::events::Event::Resync);
    for live in &mut sockets {
        wait_for_operations_of(live, &servers).await;
    }
    // The check of who may still watch is another task's; a query per socket would follow it at once.
    let looks = || statements.of("from servers s join accounts a on a.id = s.account_id where");
    wait_for("the check of who may still watch", async || (looks() > 0).then_some(())).await;
    // The first round is over when the second has come this far.
    let first = looks();
    app.core.events.publish(kernel::events::Event::Resync);
    for live in &mut sockets {
        wait_for_operations_of(live, &servers).await;
    }
    wait_for("the next check", async || (looks() > first).then_some(())).await;
    assert_eq!(statements.of("from operations where id"), 2, "{:?}", statements.0.lock().unwrap());
    // Two more if the check of every minute has just come, too.
    assert!(looks() <= 4, "{}: {:?}", looks(), statements.0.lock().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_has_one_name() {
    let app = TestApp::new().await;
    let mine = server(&app, "customer@example.com").await;
    let mut live = Live::connected(&app.base, token(&app.customer)).await;
    for (subject, status) in [(format!("server:{mine}"), "success"), (format!("server:0{mine}"), "error")] {
        live.tell(json!({ "do": "emit", "event": "subscribe", "args": [subject], "ack": true })).await;
        assert_eq!(live.next("ack").await["args"][0]["status"], status, "{subject}");
    }
    // Its end is told under both names.
    hand_over(&app, mine).await;
    let ended = live.find("subscribe-error", |error| error["serverId"] == mine).await["args"][0].clone();
    assert_eq!(ended["subject"], format!("server:{mine}"));
}
