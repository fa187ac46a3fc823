//! What sweeps raise and end.

use chrono::Utc;
use hypervisor::{Coverage, GuestPower};
use monitor::Sample;
use serde_json::{Value, json};

use super::world::{World, busy, immediate_rule, stopped};

fn pair(kind: &str, level: &str) -> (String, String) {
    (kind.into(), level.into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_needs_a_sustained_value_and_ends_below_its_clear_threshold() {
    let world = World::new().await;
    let (id, marker) = world.server("customer@example.com", "web-1").await;
    for (seconds, cpu) in [(0, 0.97), (30, 0.97), (60, 0.5), (90, 0.97), (120, 0.97)] {
        world.swept(seconds, vec![busy(marker, cpu)]).await;
    }
    assert_eq!(world.open().await, [], "a dip restarts the wait");
    world.swept(150, vec![busy(marker, 0.92)]).await;
    assert_eq!(world.open().await, [pair("cpu", "warning")], "critical was not sustained");
    world.lasts(180, marker, 0.97).await;
    assert_eq!(world.open().await, [pair("cpu", "critical")]);
    let alert = world.only().await;
    assert_eq!((&alert["message"], &alert["serverId"]), (&json!("CPU usage is at 97%"), &json!(id)));
    assert_eq!((&alert["name"], &alert["hostId"]), (&json!("web-1"), &json!(world.host.0)));
    // Neither a value between the thresholds nor a missing sample ends it.
    world.lasts(270, marker, 0.88).await;
    world.report(360, vec![], false).await;
    world.swept(390, vec![busy(marker, 0.3)]).await;
    world.swept(420, vec![busy(marker, 0.3)]).await;
    assert_eq!(world.open().await.len(), 1);
    world.swept(450, vec![busy(marker, 0.3)]).await;
    let alert = world.only().await;
    assert_eq!((&alert["ended"], &alert["message"]), (&json!("recovered"), &json!("CPU usage is at 30%")));
    // The same sweep again, by another process: nothing changes.
    world.swept(450, vec![busy(marker, 0.99)]).await;
    let tracks: i64 = sqlx::query_scalar("select count(*) from alert_tracks where subject like 'server:%'")
        .fetch_one(world.db())
        .await
        .unwrap();
    assert_eq!((world.open().await.len(), tracks), (0, 1), "a new one is at most pending");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_server_that_should_be_up_is_reported_down() {
    let world = World::new().await;
    let (id, marker) = world.server("customer@example.com", "web-1").await;
    let status = async |status: &str| {
        sqlx::query("update servers set status = $2 where id = $1")
            .bind(id)
            .bind(status)
            .execute(world.db())
            .await
            .unwrap();
    };
    let down = async |from: i64, samples: &dyn Fn() -> Vec<Sample>, complete: bool| {
        for n in 0..3 {
            world.report(from + n * 30, samples(), complete).await;
        }
        world.open().await
    };
    // Missing from an incomplete sweep; seen in a state that says nothing.
    assert_eq!(down(0, &|| vec![], false).await, []);
    let odd = || vec![Sample { power: GuestPower::Unknown, ..busy(marker, 0.0) }];
    assert_eq!(down(90, &odd, true).await, []);
    // While an operation holds it, whatever the sweep sees is fine.
    let operation: uuid::Uuid = sqlx::query_scalar(
        "insert into operations (id, subject_kind, subject_id, lane, kind, state, data, deadline)
         values (gen_random_uuid(), 'server', $1::bigint::text, 'host', 'restart', 'stuck', '{}', now()) returning id",
    )
    .bind(id)
    .fetch_one(world.db())
    .await
    .unwrap();
    assert_eq!(down(180, &|| vec![stopped(marker)], true).await, []);
    sqlx::query("delete from operations where id = $1").bind(operation).execute(world.db()).await.unwrap();
    // It shut itself down, or disappeared.
    status("stopped").await;
    assert_eq!(down(270, &|| vec![stopped(marker)], true).await, [pair("down", "critical")]);
    assert_eq!(down(360, &|| vec![], true).await, [pair("down", "critical")]);
    // Its owner stops it: it is not meant to be up any more.
    status("stopping").await;
    status("stopped").await;
    assert_eq!(down(450, &|| vec![stopped(marker)], true).await, []);
    assert_eq!(world.only().await["ended"], "withdrawn");
    // Started, up, down, and up again; then it is suspended.
    status("starting").await;
    status("running").await;
    world.lasts(540, marker, 0.1).await;
    assert_eq!(down(630, &|| vec![stopped(marker)], true).await, [pair("down", "critical")]);
    world.lasts(720, marker, 0.1).await;
    assert_eq!(world.open().await, []);
    sqlx::query("update servers set suspended_at = now(), suspend_reason = 'unpaid'")
        .execute(world.db())
        .await
        .unwrap();
    assert_eq!(down(810, &|| vec![stopped(marker)], true).await, [], "the provider suspended it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_missing_only_if_the_sweep_covered_its_node() {
    let world = World::new().await;
    let (id, marker) = world.server("customer@example.com", "web-1").await;
    let number: i64 = sqlx::query_scalar("select guest_number from servers where id = $1")
        .bind(id)
        .fetch_one(world.db())
        .await
        .unwrap();
    let mut at = 0;
    let mut open = async |nodes: &[&str], unread: &[i64], sample: Option<Sample>| {
        let nodes: Vec<String> = nodes.iter().map(|node| (*node).to_owned()).collect();
        for _ in 0..3 {
            let coverage = Coverage { nodes: nodes.clone(), unread: unread.to_vec() };
            world.covered(at, sample.clone().into_iter().collect(), coverage).await;
            at += 30;
        }
        world.open().await
    };
    assert_eq!(open(&["other"], &[], None).await, [], "its node was not seen");
    assert_eq!(open(&["n", "other"], &[number], None).await, [], "its row could not be read");
    assert_eq!(open(&["n"], &[number + 1], None).await, [pair("down", "critical")]);
    assert_eq!(open(&["n"], &[], Some(busy(marker, 0.1))).await, []);
    // A guest that was seen counts, whatever the sweep missed; and a paused one serves nobody.
    assert_eq!(open(&[], &[], Some(stopped(marker))).await, [pair("down", "critical")]);
    assert_eq!(open(&[], &[], Some(busy(marker, 0.1))).await, []);
    let paused = Sample { power: GuestPower::Paused, reason: Some("io-error".into()), ..busy(marker, 0.0) };
    assert_eq!(open(&[], &[], Some(paused)).await, [pair("down", "critical")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_values_neither_raise_nor_end_alerts() {
    let world = World::new().await;
    let (id, marker) = world.server("customer@example.com", "web-1").await;
    for kind in ["cpu", "memory", "disk"] {
        world.rule(id, kind, immediate_rule()).await;
    }
    let full = Sample { memory_used: Some(990), disk_used: Some(990), ..busy(marker, 0.99) };
    let blind = || Sample { cpu: None, memory_used: None, disk_used: None, net_in: None, ..busy(marker, 0.0) };
    world.swept(0, vec![blind()]).await;
    assert_eq!(world.open().await, []);
    world.swept(30, vec![full]).await;
    assert_eq!(world.open().await.len(), 3);
    world.swept(60, vec![blind()]).await;
    assert_eq!(world.open().await.len(), 3, "unknown is not 0");
    world.swept(90, vec![busy(marker, 0.1)]).await;
    assert_eq!(world.open().await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_request_decides_whether_a_server_should_be_up() {
    let world = World::new().await;
    let (id, _) = world.server("customer@example.com", "web-1").await;
    // A sweep sets only the first three; operations set the others.
    for (status, wanted) in [
        ("stopped", true),
        ("unknown", true),
        ("paused", true),
        ("running", true),
        ("resizing", true),
        ("stopping", false),
        ("stopped", false),
        ("running", false),
        ("restoring", false),
        ("stopped", false),
        ("starting", true),
        ("stopped", true),
        ("restarting", true),
        ("reinstalling", true),
        ("failed", false),
    ] {
        let is: bool = sqlx::query_scalar("update servers set status = $2 where id = $1 returning wanted_up")
            .bind(id)
            .bind(status)
            .fetch_one(world.db())
            .await
            .unwrap();
        assert_eq!(is, wanted, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_is_counted_by_month_across_guest_restarts() {
    let world = World::new().await;
    let (id, marker) = world.server("customer@example.com", "web-1").await;
    const GIB: u64 = 1 << 30;
    // The middle of a month, and a guest older than that month.
    let mut world = world;
    world.start = "2027-03-15T12:00:00Z".parse().unwrap();
    sqlx::query("update servers set created_at = '2026-01-01T00:00:00Z'").execute(world.db()).await.unwrap();
    let used = async |world: &World| -> Vec<(String, i64)> {
        sqlx::query_as(
            "select to_char(month, 'YYYY-MM'), (received + sent) / 1073741824 from traffic
             where server_id = $1 order by month",
        )
        .bind(id)
        .fetch_all(world.db())
        .await
        .unwrap()
    };
    let count = async |world: &World, seconds: i64, net_in: u64, net_out: u64| {
        let (net_in, net_out) = (Some(net_in * GIB), Some(net_out * GIB));
        world.swept(seconds, vec![Sample { uptime_s: Some(90 * 86_400), net_in, net_out, ..busy(marker, 0.1) }]).await;
    };
    count(&world, 0, 50, 50).await;
    assert_eq!(used(&world).await, [("2027-03".into(), 0)], "earlier counts don't belong to this month");
    count(&world, 30, 52, 51).await;
    // A node that knows nothing about its guests for a while has no counters either.
    let unknown = Sample { power: GuestPower::Unknown, net_in: Some(0), net_out: Some(0), ..busy(marker, 0.0) };
    world.swept(59, vec![unknown]).await;
    assert_eq!(used(&world).await, [("2027-03".into(), 3)]);
    // Restarted: its counters began at 0.
    count(&world, 60, 1, 2).await;
    assert_eq!(used(&world).await, [("2027-03".into(), 6)]);
    // The same sweep again, and an earlier one.
    count(&world, 60, 9, 9).await;
    count(&world, 45, 9, 9).await;
    assert_eq!(used(&world).await, [("2027-03".into(), 6)]);
    assert_eq!(world.open().await, []);
    for (seconds, net_in, net_out, open) in
        [(90, 2, 3, None), (120, 3, 3, None), (150, 3, 4, Some("warning")), (180, 4, 4, Some("critical"))]
    {
        count(&world, seconds, net_in, net_out).await;
        let open: Vec<_> = open.map(|level| pair("traffic", level)).into_iter().collect();
        assert_eq!(world.open().await, open, "{seconds}");
    }
    let month = 20 * 86_400;
    count(&world, month, 5, 4).await;
    assert_eq!(used(&world).await, [("2027-03".into(), 11), ("2027-04".into(), 1)]);
    assert_eq!(world.open().await, [], "a new month");
    let shown = world.app.customer.get(&format!("/api/server/{id}/traffic")).await.expect(200).body;
    let month = |month: &str, received: u64, sent: u64| -> Value {
        json!({ "month": month, "received": received * GIB, "sent": sent * GIB })
    };
    let this = month(&Utc::now().format("%Y-%m").to_string(), 0, 0);
    let months = json!([month("2027-04", 1, 0), month("2027-03", 6, 5), this]);
    assert_eq!(shown, json!({ "serverId": id, "quota": 10 * GIB, "months": months }));

    // A new server's traffic counts from its start.
    sqlx::query("delete from traffic").execute(world.db()).await.unwrap();
    sqlx::query("update servers set created_at = $1").bind(world.start).execute(world.db()).await.unwrap();
    count(&world, 200, 2, 1).await;
    assert_eq!(used(&world).await, [("2027-03".into(), 3)]);

    // Without a quota it is still counted, but raises no alert.
    sqlx::query("update tariffs set traffic_gib = null").execute(world.db()).await.unwrap();
    count(&world, 230, 20, 1).await;
    assert_eq!((used(&world).await, world.open().await), (vec![("2027-03".into(), 21)], vec![]));
    // Restarted, and by now past its old count.
    let anew = Sample { uptime_s: Some(5), net_in: Some(25 * GIB), net_out: Some(4 * GIB), ..busy(marker, 0.1) };
    world.swept(260, vec![anew]).await;
    assert_eq!(used(&world).await, [("2027-03".into(), 21 + 29)]);
    let shown = world.app.customer.get(&format!("/api/server/{id}/traffic")).await.expect(200).body;
    assert_eq!(shown["quota"], json!(null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storage_running_full_alerts_only_the_provider() {
    let world = World::new().await;
    world.server("customer@example.com", "web-1").await;
    world.app.provider.put("/api/alert-rules/storage_low", immediate_rule()).await.expect(200);
    world.stored(0, &[20, 89]).await;
    assert_eq!(world.open().await, []);
    world.stored(30, &[20, 92]).await;
    assert_eq!(world.open().await, [pair("storage_low", "warning")]);
    world.stored(60, &[97, 92]).await;
    assert_eq!(world.open().await, [pair("storage_low", "critical")]);
    let shown = world.app.provider.get("/api/alerts?type=storage_low").await.expect(200).body;
    let alert = shown["data"].as_array().unwrap_or_else(|| shown.as_array().unwrap())[0].clone();
    assert_eq!((&alert["message"], &alert["name"]), (&json!("97% of the guests' storage is in use"), &json!("rack-1")));
    let mine = world.app.customer.get("/api/alerts").await.expect(200).body;
    assert!(!mine.to_string().contains("storage_low"), "{mine}");
    world.stored(90, &[20, 30]).await;
    assert_eq!(world.open().await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exhausted_pools_and_stuck_operations_alert_only_the_provider() {
    let world = World::new().await;
    let (id, marker) = world.server("customer@example.com", "web-1").await;
    for kind in ["pool_low", "operation_stuck"] {
        world.app.provider.put(&format!("/api/alert-rules/{kind}"), immediate_rule()).await.expect(200);
    }
    let pool: i64 = sqlx::query_scalar(
        "insert into address_pools (host_id, name, cidr, first_address, last_address, bridge)
         values ($1, 'public', '10.9.0.0/24', '10.9.0.1', '10.9.0.20', 'b') returning id",
    )
    .bind(world.host.0)
    .fetch_one(world.db())
    .await
    .unwrap();
    let take = async |count: i32| {
        sqlx::query(
            "insert into addresses (pool_id, address) select $1, '10.9.0.0'::inet + n from generate_series(1, $2) n
                     on conflict do nothing",
        )
        .bind(pool)
        .bind(count)
        .execute(world.db())
        .await
        .unwrap();
        patrol(&world).await;
        world.open().await
    };
    assert_eq!(take(18).await, [], "90 % exactly");
    assert_eq!(take(19).await, [pair("pool_low", "warning")]);
    assert_eq!(take(20).await, [pair("pool_low", "critical")]);
    assert_eq!((&world.only().await["name"], &world.only().await["poolId"]), (&json!("public"), &json!(pool)));
    sqlx::query("delete from addresses where address > '10.9.0.17'").execute(world.db()).await.unwrap();
    patrol(&world).await;
    assert_eq!(world.open().await, []);

    sqlx::query(
        "insert into operations (id, subject_kind, subject_id, lane, kind, state, data, deadline)
         values (gen_random_uuid(), 'server', $1::bigint::text, 'host', 'resize', 'stuck', '{}', now())",
    )
    .bind(id)
    .execute(world.db())
    .await
    .unwrap();
    patrol(&world).await;
    assert_eq!(world.open().await, [pair("operation_stuck", "critical")]);
    assert_eq!(world.app.customer.get("/api/alerts").await.expect(200).body["total"], 0);
    assert_eq!(world.notify().await, 1);
    let mails = world.mails().await;
    assert_eq!(mails[0].recipient, "provider@example.com");
    assert!(mails[0].subject.contains("operation resize"), "{}", mails[0].subject);
    sqlx::query("update operations set state = 'failed', ended_at = now()").execute(world.db()).await.unwrap();
    patrol(&world).await;
    assert_eq!((world.open().await.len(), world.notify().await), (0, 1));

    // A deleted server is not watched any more.
    world.lasts(0, marker, 0.99).await;
    assert_eq!(world.open().await, [pair("cpu", "critical")]);
    sqlx::query("update servers set status = 'deleted', deleted_at = now(), reserved = false")
        .execute(world.db())
        .await
        .unwrap();
    patrol(&world).await;
    assert_eq!(world.open().await, []);
    let left: i64 = sqlx::query_scalar("select count(*) from alert_tracks where subject not like 'host:%'")
        .fetch_one(world.db())
        .await
        .unwrap();
    assert_eq!(left, 0);
}

/// A customer can't lift a lock on the host: the provider is told, with the command.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_locks_alert_the_provider_until_an_operation_succeeds() {
    let world = World::new().await;
    let (id, _) = world.server("customer@example.com", "web-1").await;
    let (other, _) = world.server("customer@example.com", "web-2").await;
    let ended = async |server: i64, kind: &str, error: Option<hypervisor::Error>| {
        sqlx::query(
            "insert into operations (id, subject_kind, subject_id, lane, kind, state, data, deadline, ended_at,
                                     error_code, error_detail)
             values (gen_random_uuid(), 'server', $1::bigint::text, 'host', $2,
                     case when $3 is null then 'succeeded' else 'failed' end, '{}', now(), clock_timestamp(),
                     case when $3 is not null then 'LOCKED' end, $3)",
        )
        .bind(server)
        .bind(kind)
        .bind(error.map(|error| error.to_string()))
        .execute(world.db())
        .await
        .unwrap();
        patrol(&world).await;
    };
    let text = "CT 1000 on pve1 is locked (backup), but no task is working on it: remove the lock with pct unlock 1000";
    let stale = || Some(hypervisor::Error::StaleLock(text.to_owned()));
    ended(other, "stop", Some(hypervisor::Error::Locked("busy".to_owned()))).await;
    assert_eq!(world.open().await, [], "that lock passes");
    ended(id, "stop", stale()).await;
    ended(id, "restart", stale()).await;
    ended(other, "stop", None).await;
    assert_eq!(world.open().await, [pair("stale_lock", "critical")]);
    assert_eq!(world.only().await["message"], text);
    assert_eq!(world.app.customer.get("/api/alerts").await.expect(200).body["total"], 0);
    assert_eq!(world.notify().await, 1);
    let mails = world.mails().await;
    assert_eq!(mails[0].recipient, "provider@example.com");
    assert!(mails[0].text_body.contains(&format!("operation stop: {text}")), "{}", mails[0].text_body);
    ended(id, "stop", None).await;
    assert_eq!((world.open().await.len(), world.notify().await), (0, 1));
}

async fn patrol(world: &World) {
    watch::alerts::watch::evaluate_periodic(&world.app.service.features.alerts).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_sees_an_alert_begin_and_end() {
    let world = World::new().await;
    let (id, marker) = world.server("customer@example.com", "web-1").await;
    world.rule(id, "cpu", immediate_rule()).await;
    let mut live = crate::support::Live::connected(&world.app.base, world.app.customer.token.as_deref().unwrap()).await;
    live.subscribe(id).await;
    live.next("server-stats").await;
    let swept = async |seconds: i64, cpu: f64| {
        world.swept(seconds, vec![busy(marker, cpu)]).await;
        sqlx::query("select pg_notify('sampled', $1::text)").bind(world.host.0).execute(world.db()).await.unwrap();
    };
    swept(0, 0.92).await;
    let seen = live.next("server-alerts").await["args"][0].clone();
    assert_eq!(seen["serverId"], id);
    let alert = &seen["alerts"][0];
    assert_eq!(
        (&alert["type"], &alert["message"], &alert["level"], &alert["acknowledged"]),
        (&json!("cpu"), &json!("CPU usage is at 92%"), &json!("warning"), &json!(false))
    );
    swept(30, 0.2).await;
    live.find("server-alerts", |a| a["alerts"] == Value::Array(vec![])).await;
    // A silent host is reported for its servers.
    world.app.provider.put("/api/alert-rules/host_unreachable", immediate_rule()).await.expect(200);
    world.silent(60).await;
    let seen = live.find("server-alerts", |a| a["alerts"][0]["type"] == "host_unreachable").await;
    assert_eq!(seen["args"][0]["alerts"][0]["level"], "critical");
}
