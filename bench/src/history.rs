//! History: samples written as sweeps write them, next to COPY of the same rows into an identical table; and the 30-day
//! chart, next to pgbench with the same query.

use std::time::{Duration, Instant};

use accounts::model::NewApiToken;
use accounts::service::create_api_token;
use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use compute::ids::{AccountId, HostId, UserId};
use hypervisor::GuestPower;
use kernel::idempotency::Once;
use monitor::Sample;
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;
use watch::monitoring::insert_samples;

use crate::house::House;
use crate::list::{TENANTS, fill};
use crate::report::{Report, Row, say};
use crate::stats::{mean, quantile};
use crate::{load, pgbench};

/// 10,000 servers on one host: a sweep's rows are written in one statement.
const SERVERS_EACH: i32 = 100;
const SWEEPS: usize = 20;
/// At least half of COPY's rate.
const WRITE_AIM: f64 = 2.0;
/// Servers with a whole month of history.
const CHARTED: i64 = 50;
/// Below an hour, so that five-minute steps are read: 8,640 of them.
const STEP: i64 = 1800;
const CLIENTS: usize = 4;
const TIME: Duration = Duration::from_secs(8);

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let house = House::open(None).await?;
    let measured = both(&house, report).await;
    house.close().await.and(measured)
}

async fn both(house: &House, report: &mut Report) -> anyhow::Result<()> {
    let first = fill(&house.app.core.db, SERVERS_EACH).await?;
    let written = writes(&house.app.core.db, report).await;
    report.keep("history: samples written", written);
    charts(house, first, report).await.context("charts")
}

async fn writes(db: &PgPool, report: &mut Report) -> anyhow::Result<()> {
    let host: i64 = sqlx::query_scalar("select id from hosts").fetch_one(db).await?;
    let markers: Vec<Uuid> = sqlx::query_scalar("select uuid from servers order by id").fetch_all(db).await?;
    sqlx::query("create table copied (like samples including all)").execute(db).await?;
    sqlx::query("vacuum analyze").execute(db).await?;
    // Whole seconds: the database does not store nanoseconds.
    let begin = DateTime::from_timestamp(Utc::now().timestamp(), 0).context("now")? - TimeDelta::minutes(20);
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for sweep in 0..=SWEEPS {
        let at = begin + TimeDelta::seconds(i64::try_from(sweep)? * 30);
        let samples: Vec<Sample> =
            markers.iter().zip(0..).map(|(marker, n)| sample(*marker, n, sweep as u64)).collect();
        let start = Instant::now();
        let mut tx = kernel::db::begin(db).await?;
        insert_samples(&mut tx, HostId(host), at, &samples).await?;
        tx.commit().await?;
        let our_time = start.elapsed();

        let rows = rows(db, at).await?;
        let start = Instant::now();
        let mut tx = kernel::db::begin(db).await?;
        let mut copy = tx.copy_in_raw("copy copied from stdin").await?;
        copy.send(rows).await?;
        let copied = copy.finish().await?;
        tx.commit().await?;
        let peer_time = start.elapsed();
        anyhow::ensure!(usize::try_from(copied)? == markers.len(), "{copied} rows were copied");
        // The first write of each side is a warm-up.
        if sweep > 0 {
            ours.push(markers.len() as f64 / our_time.as_secs_f64());
            peer.push(markers.len() as f64 / peer_time.as_secs_f64());
        }
    }
    let written: i64 = sqlx::query_scalar("select count(*) from samples").fetch_one(db).await?;
    anyhow::ensure!(usize::try_from(written)? == markers.len() * (SWEEPS + 1), "{written} rows were written");
    say(&format!("history: {:.0} rows/s, COPY {:.0} rows/s", mean(&ours), mean(&peer)));
    let row = Row::rate("history: samples written", "rows/s", mean(&ours), mean(&peer), "COPY of the same rows");
    report.add(Row { aim: Some(WRITE_AIM), ..row });
    Ok(())
}

fn sample(marker: Uuid, number: u64, sweep: u64) -> Sample {
    let busy = ((number * 7 + sweep) % 100) as f64 / 100.0;
    Sample {
        marker,
        node: "node".into(),
        power: GuestPower::Running,
        reason: None,
        uptime_s: Some(1000 + sweep * 30),
        cpu: Some(busy),
        memory_used: Some((number % 512) << 20),
        memory_max: Some(512 << 20),
        disk_used: Some((number % 10) << 30),
        disk_max: Some(10 << 30),
        net_in: Some(sweep * 100_000 + number),
        net_out: Some(sweep * 50_000 + number),
        net_in_rate: Some(busy * 3333.3),
        net_out_rate: Some(busy * 1666.6),
    }
}

/// A sweep's rows in COPY's format.
async fn rows(db: &PgPool, at: DateTime<Utc>) -> anyhow::Result<Vec<u8>> {
    use futures_util::TryStreamExt;
    let mut connection = db.acquire().await?;
    let sql =
        format!("copy (select * from samples where taken_at = '{}' order by server_id) to stdout", at.to_rfc3339());
    let parts: Vec<bytes::Bytes> = connection.copy_out_raw(&sql).await?.try_collect().await?;
    Ok(parts.concat())
}

async fn charts(house: &House, first: i64, report: &mut Report) -> anyhow::Result<()> {
    let db = &house.app.core.db;
    month(db, first).await?;
    let servers: Vec<(i64, i64)> =
        sqlx::query_as("select id, account_id from servers where account_id = $1 order by id limit $2")
            .bind(first)
            .bind(CHARTED)
            .fetch_all(db)
            .await?;
    let new = NewApiToken { name: "bench".into(), scopes: vec!["read".into()], expires_at: None };
    let token =
        create_api_token(&house.app.features.accounts, &Once::default(), (UserId(first), AccountId(first)), None, new)
            .await?
            .token;
    let from = (Utc::now() - TimeDelta::days(30) + TimeDelta::minutes(10)).format("%Y-%m-%dT%H:%M:%SZ");
    let requests: Vec<(String, String)> = servers
        .iter()
        .map(|(id, _)| (format!("/api/server/{id}/metrics?from={from}&step={STEP}"), token.clone()))
        .collect();
    load::run_each(house.address, &requests, CLIENTS, Duration::from_secs(2)).await?;
    let query = pgbench::prepared(db, "%from samples_1h where server_id%").await?;
    let script = script(&query, servers.first().context("no servers")?.0, servers.last().context("no servers")?.0);
    pgbench::run(&house.database_url, &script, CLIENTS, Duration::from_secs(1)).await?;
    let ours = load::run_each(house.address, &requests, CLIENTS, TIME).await?;
    let peer = pgbench::run(&house.database_url, &script, CLIENTS, TIME).await?;
    let p99 = |times: &[f64]| quantile(times, 0.99);
    say(&format!("chart: {:.1} ms, pgbench {:.1} ms (p99)", p99(&ours.latencies), p99(&peer.latencies)));
    let peer_name = format!("pgbench, the same query, {CLIENTS} clients");
    let name = "chart of 30 days in half hours: p99";
    report.add(Row::cost(name, "ms", p99(&ours.latencies), p99(&peer.latencies), &peer_name));
    Ok(())
}

/// Thirty days of five-minute and hourly steps, all aggregated, for the first tenant's servers.
async fn month(db: &PgPool, tenant: i64) -> anyhow::Result<()> {
    say(&format!("history: 30 days of {CHARTED} servers, {TENANTS} tenants"));
    let now = Utc::now();
    for days in 2..=31 {
        let day = (now - TimeDelta::days(days)).format("%Y-%m-%d").to_string();
        sqlx::raw_sql(AssertSqlSafe(format!(
            "create table if not exists samples_5m_{} partition of samples_5m for values from ('{day} 00:00:00+00')
                 to ('{day} 00:00:00+00'::timestamptz + interval '1 day')",
            day.replace('-', "")
        )))
        .execute(db)
        .await?;
    }
    for (table, step) in [("samples_5m", "5 minutes"), ("samples_1h", "1 hour")] {
        sqlx::query(AssertSqlSafe(format!(
            "insert into {table} (server_id, taken_at, samples, up, cpu_min, cpu_mean, cpu_max, memory_min, memory_mean,
                 memory_max, memory_size, disk_min, disk_mean, disk_max, disk_size, rates, net_in_min, net_in_mean,
                 net_in_max, net_out_min, net_out_mean, net_out_max)
             select s.id, t, 10, 1, 0.1, 0.2, random(), 1, 2, 3, 4, 1, 2, 3, 4, 10, 1, 2, 3, 1, 2, 3
             from generate_series(date_bin('{step}', now() - interval '30 days', 'epoch'),
                                  date_bin('{step}', now() - interval '{step}', 'epoch'), interval '{step}') t,
                  (select id from servers where account_id = $1 order by id limit $2) s
             where t >= (select min(to_timestamp(right(relname, 8), 'YYYYMMDD')) from pg_class
                         where relname ~ '^samples_5m_\\d{{8}}$')
             on conflict do nothing"
        )))
        .bind(tenant)
        .bind(CHARTED)
        .execute(db)
        .await?;
    }
    sqlx::query(
        "update history_progress set done_to = date_bin(case level when '5m' then interval '5 minutes' else interval
                     '1 hour' end, now(), 'epoch')",
    )
    .execute(db)
    .await?;
    sqlx::query("vacuum analyze").execute(db).await?;
    Ok(())
}

/// The pgbench script: each client prepares the query once and runs it with the service's parameters, so that
/// everything comes from five-minute steps, and nothing from hourly steps or the latest samples.
fn script(query: &str, first: i64, last: i64) -> String {
    format!(
        "\\if :prepared\n\\else\n\
         prepare chart (bigint, timestamptz, timestamptz, timestamptz, timestamptz, float8) as {query};\n\
         \\set prepared 1\n\\endif\n\\set server random({first}, {last})\n\
         execute chart (:server, now() - interval '30 days', now() - interval '30 days', \
         date_bin('5 minutes', now(), 'epoch'), now(), {STEP});\n"
    )
}
