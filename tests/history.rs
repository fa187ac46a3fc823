//! History: samples are aggregated once, kept for as long as promised, and charted from the right level.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use watch::history::service::{aggregate, maintain_partitions};

use crate::live::server;
use crate::support::TestApp;

const CUSTOMER: &str = "customer@example.com";

/// Samples every 30 s: CPU usage rises by one thousandth each time and wraps around; in every tenth the server is off.
async fn samples(app: &TestApp, server: i64, from: DateTime<Utc>, to: DateTime<Utc>) {
    sqlx::query(
        "insert into samples (server_id, taken_at, power, uptime_s, cpu, memory_used, memory_max, disk_used, disk_max,
                              net_in, net_out, net_in_rate, net_out_rate)
         select $1, $2 + n * interval '30 seconds', case when n % 10 = 9 then 'stopped' else 'running' end, n * 30,
                (n % 1000) / 1000.0, 1000 + n, 1 << 20, 5000, 1 << 30, n * 3000, 0,
                case when n > 0 then 100 + n end, case when n > 0 then 0 end
         from generate_series(0, (extract(epoch from $3 - $2) / 30)::int - 1) n",
    )
    .bind(server)
    .bind(from)
    .bind(to)
    .execute(&app.db.pool)
    .await
    .unwrap();
}

async fn rewind_history(app: &TestApp, to: DateTime<Utc>) {
    sqlx::query("update history_progress set done_to = date_bin('1 hour', $1, 'epoch')")
        .bind(to)
        .execute(&app.db.pool)
        .await
        .unwrap();
}

async fn count(app: &TestApp, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&app.db.pool).await.unwrap()
}

async fn chart(app: &TestApp, server: i64, from: DateTime<Utc>, to: DateTime<Utc>, step: i64) -> Vec<Value> {
    let time = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let path = format!("/api/server/{server}/metrics?from={}&to={}&step={step}", time(from), time(to));
    let body = app.customer.get(&path).await.expect(200).body;
    assert_eq!((&body["serverId"], &body["step"]), (&json!(server), &json!(step)));
    body["points"].as_array().unwrap().clone()
}

fn near(value: &Value, expected: f64) {
    let value = value.as_f64().unwrap();
    assert!((value - expected).abs() < 1e-6 * expected.abs().max(1.0), "{value}, not {expected}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn samples_are_aggregated_once_and_every_level_gives_the_same_chart() {
    let app = TestApp::new().await;
    let server = server(&app, CUSTOMER).await;
    let hour = TimeDelta::hours(1);
    // What is younger than two minutes is not aggregated yet.
    let settled = Utc::now() - TimeDelta::minutes(3);
    let end = DateTime::from_timestamp(settled.timestamp() / 3600 * 3600, 0).unwrap();
    let start = end - hour * 5;
    samples(&app, server, start, end).await;
    rewind_history(&app, start).await;
    let expected = chart(&app, server, start, end, 3600).await;
    assert_eq!(expected.len(), 5);
    let (one, two) = tokio::join!(aggregate(&app.core), aggregate(&app.core));
    one.unwrap();
    two.unwrap();
    aggregate(&app.core).await.unwrap();
    assert_eq!(count(&app, "select count(*) from samples_5m").await, 5 * 12);
    assert_eq!(count(&app, "select sum(samples)::bigint from samples_5m").await, 5 * 120);
    // The last hour may not have settled.
    let hours = count(&app, "select count(*) from samples_1h").await;
    assert!((4..=5).contains(&hours), "{hours}");

    // Five minutes are ten samples.
    let points = chart(&app, server, start, end, 300).await;
    assert_eq!(points.len(), 60);
    for (n, point) in points.iter().enumerate() {
        let first = n as f64 * 10.0;
        assert_eq!(point["samples"], 10);
        near(&point["up"], 0.9);
        for (figure, min) in [("cpu", first / 1000.0), ("memory", 1000.0 + first), ("netIn", 100.0 + first)] {
            let (scale, first_rate) = (if figure == "cpu" { 0.001 } else { 1.0 }, figure == "netIn" && n == 0);
            // The very first sample has no rate.
            let least = min + if first_rate { 1.0 } else { 0.0 };
            near(&point[figure]["min"], least);
            near(&point[figure]["max"], min + 9.0 * scale);
            near(&point[figure]["mean"], f64::midpoint(least, min + 9.0 * scale));
        }
        assert_eq!((&point["memorySize"], &point["diskSize"]), (&json!(1 << 20), &json!(1 << 30)));
    }
    // Hours, charted from samples alone before and now from hourly rows and the rest, are the same.
    let after = chart(&app, server, start, end, 3600).await;
    assert_eq!(after.len(), 5);
    for (before, after) in expected.iter().zip(&after) {
        assert_eq!((&before["time"], &before["samples"]), (&after["time"], &after["samples"]));
        for figure in ["cpu", "memory", "disk", "netIn", "netOut"] {
            for part in ["min", "mean", "max"] {
                near(&after[figure][part], before[figure][part].as_f64().unwrap());
            }
        }
    }
    // Sample by sample.
    let raw = chart(&app, server, end - hour, end, 30).await;
    assert_eq!(raw.len(), 120);
    assert_eq!((raw[0]["samples"].as_i64(), raw[119]["up"].as_f64()), (Some(1), Some(0.0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_history_is_dropped_by_partition_and_the_rest_stays() {
    let app = TestApp::new().await;
    let server = server(&app, CUSTOMER).await;
    let now = Utc::now();
    let ago = |days: i64| now - TimeDelta::days(days);
    for (parent, day) in
        [("samples_5m", ago(40)), ("samples_5m", ago(20)), ("samples_1h", ago(800)), ("samples_1h", ago(200))]
    {
        let (format, length) = if parent == "samples_1h" { ("%Y%m", 31) } else { ("%Y%m%d", 1) };
        let first = if parent == "samples_1h" { day.format("%Y-%m-01") } else { day.format("%Y-%m-%d") }.to_string();
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
            "set timezone = 'UTC'; create table if not exists {parent}_{} partition of {parent}
                 for values from ('{first}') to ('{first}'::date + {length});
             insert into {parent} (server_id, taken_at, samples, up, cpu_min, cpu_mean, cpu_max, memory_min,
                 memory_mean, memory_max, memory_size, disk_min, disk_mean, disk_max, disk_size, rates)
             values ({server}, '{first}'::timestamptz + interval '1 hour', 1, 1, 0.5, 0.5, 0.5,
                     1, 1, 1, 1, 1, 1, 1, 1, 0)",
            day.format(format)
        )))
        .execute(&app.db.pool)
        .await
        .unwrap();
    }
    let parts = "select count(*) from pg_inherits where inhparent in ('samples_5m'::regclass, 'samples_1h'::regclass)";
    let before = count(&app, parts).await;
    maintain_partitions(&app.core).await.unwrap();
    maintain_partitions(&app.core).await.unwrap();
    assert_eq!(count(&app, parts).await, before - 2);
    assert_eq!(count(&app, "select count(*) from samples_5m").await, 1);
    assert_eq!(count(&app, "select count(*) from samples_1h").await, 1);
    // Data from a year ago is charted in hours, whatever is requested.
    let path = format!("/api/server/{server}/metrics?from={}&step=86400", ago(300).format("%Y-%m-%dT00:00:00Z"));
    let points = app.customer.get(&path).await.expect(200).body["points"].clone();
    assert_eq!(points.as_array().unwrap().len(), 1, "{points}");
    assert_eq!((&points[0]["cpu"]["mean"], &points[0]["netIn"]), (&json!(0.5), &Value::Null));
    let path = format!("/api/server/{server}/metrics?from={}", ago(60).format("%Y-%m-%dT00:00:00Z"));
    assert!(app.customer.get(&path).await.expect(200).body["step"].as_i64().unwrap() >= 3600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_chart_parameters_are_refused() {
    let app = TestApp::new().await;
    let server = server(&app, CUSTOMER).await;
    let path = |query: &str| format!("/api/server/{server}/metrics{query}");
    let empty = app.customer.get(&path("")).await.expect(200).body;
    assert_eq!((&empty["points"], &empty["step"]), (&json!([]), &json!(30)));
    for (query, field) in [
        ("?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
        ("?from=2999-01-01T00:00:00Z", "from"),
        ("?from=2020-01-01T00:00:00Z&step=60", "step"),
        ("?step=0", "step"),
    ] {
        let refused = app.customer.get(&path(query)).await.expect(422);
        assert!(refused.body["details"]["fields"][field].is_string(), "{query}: {}", refused.text);
    }
    app.customer.get(&path("?from=yesterday")).await.expect(422);
    app.customer.get(&path("?from=-262143-01-01T00:00:00Z")).await.expect(200);
    app.other.get(&path("")).await.expect(404);
    app.nobody.get(&path("")).await.expect(401);
}

/// Values that are unknown in some samples are left out of the means at every level; values that were never known are
/// null.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_values_are_left_out_of_means() {
    let app = TestApp::new().await;
    let id = server(&app, CUSTOMER).await;
    let start = DateTime::from_timestamp((Utc::now().timestamp() / 3600 - 3) * 3600, 0).unwrap();
    rewind_history(&app, start).await;
    // CPU and memory are known in every other sample, the disk in none.
    sqlx::query(
        "insert into samples (server_id, taken_at, power, uptime_s, cpu, memory_used, memory_max)
         select $1, $2 + n * interval '30 seconds', 'running', 1, case when n % 2 = 0 then 0.5 end,
                case when n % 2 = 0 then 100 end, 200 from generate_series(0, 239) n",
    )
    .bind(id)
    .bind(start)
    .execute(&app.db.pool)
    .await
    .unwrap();
    let drawn = async |step: i64| chart(&app, id, start, start + TimeDelta::hours(2), step).await;
    let check = |points: Vec<Value>, samples: i64| {
        for point in &points {
            assert_eq!((&point["samples"], &point["up"]), (&json!(samples), &json!(1.0)), "{point}");
            assert_eq!(point["cpu"], json!({ "min": 0.5, "mean": 0.5, "max": 0.5 }), "{point}");
            assert_eq!(point["memory"], json!({ "min": 100.0, "mean": 100.0, "max": 100.0 }), "{point}");
            assert_eq!(
                (&point["memorySize"], &point["disk"], &point["diskSize"]),
                (&json!(200), &json!(null), &json!(null))
            );
        }
        points.len()
    };
    assert_eq!(check(drawn(60).await, 2), 120, "from samples");
    aggregate(&app.core).await.unwrap();
    sqlx::query("delete from samples").execute(&app.db.pool).await.unwrap();
    assert_eq!(check(drawn(300).await, 10), 24, "from five minutes");
    sqlx::query("delete from samples_5m").execute(&app.db.pool).await.unwrap();
    assert_eq!(check(drawn(3600).await, 120), 2, "from hours");
}
