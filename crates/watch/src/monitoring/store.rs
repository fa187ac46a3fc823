//! The SQL of samples.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use monitor::Sample;
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::charts::STEP;
use super::model::{FleetHost, FleetServer};
use crate::ids::{HostId, ServerId};

type Result<T> = sqlx::Result<T>;

/// A server with its latest sample.
#[derive(Debug)]
pub(super) struct ServerRow {
    pub id: ServerId,
    pub guest_number: i64,
    pub status: String,
    pub memory_mib: i64,
    pub disk_gib: i64,
    pub sample: Option<SampleRow>,
}

#[derive(Debug, Default)]
pub(super) struct SampleRow {
    pub taken_at: DateTime<Utc>,
    pub power: String,
    pub reason: Option<String>,
    pub uptime_s: Option<i64>,
    pub cpu: Option<f64>,
    pub memory_used: Option<i64>,
    pub memory_max: Option<i64>,
    pub disk_used: Option<i64>,
    pub disk_max: Option<i64>,
    pub net_in: Option<i64>,
    pub net_out: Option<i64>,
    pub net_in_rate: Option<f64>,
    pub net_out_rate: Option<f64>,
}

/// These servers with their latest samples; only those on `host` if given.
pub(super) async fn servers(
    db: impl PgExecutor<'_>,
    host: Option<HostId>,
    servers: &[ServerId],
) -> Result<Vec<ServerRow>> {
    let ids: Vec<i64> = servers.iter().map(|s| s.0).collect();
    let rows = sqlx::query!(
        r#"select s.id as "id: ServerId", s.guest_number, s.status, s.memory_mib, s.disk_gib,
                  l.taken_at as "taken_at?", l.power as "power?", l.reason as "reason?", l.uptime_s as "uptime_s?",
                  l.cpu as "cpu?", l.memory_used as "memory_used?", l.memory_max as "memory_max?",
                  l.disk_used as "disk_used?", l.disk_max as "disk_max?", l.net_in as "net_in?", l.net_out as "net_out?",
                  l.net_in_rate as "net_in_rate?", l.net_out_rate as "net_out_rate?"
           from servers s
           left join lateral (select * from samples where server_id = s.id order by taken_at desc limit 1) l on true
           where s.id = any($1) and ($2::bigint is null or s.host_id = $2)"#,
        &ids,
        host.map(|h| h.0)
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| ServerRow {
            id: r.id,
            guest_number: r.guest_number,
            status: r.status,
            memory_mib: r.memory_mib,
            disk_gib: r.disk_gib,
            sample: r.taken_at.map(|taken_at| SampleRow {
                taken_at,
                power: r.power.unwrap_or_default(),
                reason: r.reason,
                uptime_s: r.uptime_s,
                cpu: r.cpu,
                memory_used: r.memory_used,
                memory_max: r.memory_max,
                disk_used: r.disk_used,
                disk_max: r.disk_max,
                net_in: r.net_in,
                net_out: r.net_out,
                net_in_rate: r.net_in_rate,
                net_out_rate: r.net_out_rate,
            }),
        })
        .collect())
}

impl SampleRow {
    /// The sample as a chart point.
    pub(super) fn point(&self, server_id: ServerId) -> PointRow {
        PointRow {
            server_id,
            taken_at: self.taken_at,
            cpu: self.cpu,
            memory_used: self.memory_used,
            memory_max: self.memory_max,
            disk_used: self.disk_used,
            disk_max: self.disk_max,
            net_in: self.net_in,
            net_out: self.net_out,
        }
    }
}

/// One point of a chart.
#[derive(Debug)]
pub(super) struct PointRow {
    pub server_id: ServerId,
    pub taken_at: DateTime<Utc>,
    pub cpu: Option<f64>,
    pub memory_used: Option<i64>,
    pub memory_max: Option<i64>,
    pub disk_used: Option<i64>,
    pub disk_max: Option<i64>,
    pub net_in: Option<i64>,
    pub net_out: Option<i64>,
}

/// Points of the last hour and slightly before, oldest first; at most one per [`STEP`] and server.
pub(super) async fn points(db: &PgPool, servers: &[ServerId]) -> Result<Vec<PointRow>> {
    let ids: Vec<i64> = servers.iter().map(|s| s.0).collect();
    sqlx::query_as!(
        PointRow,
        r#"select distinct on (server_id, div(extract(epoch from taken_at), $2::bigint))
                  server_id as "server_id: ServerId", taken_at, cpu, memory_used, memory_max, disk_used, disk_max,
                  net_in, net_out
           from samples
           where server_id = any($1) and taken_at > now() - interval '65 minutes'
           order by server_id, div(extract(epoch from taken_at), $2::bigint), taken_at desc"#,
        &ids,
        STEP
    )
    .fetch_all(db)
    .await
}

/// Means of a server's samples in one step.
#[derive(Debug)]
pub(super) struct StepRow {
    pub server_id: ServerId,
    /// How many steps ago, by the database's clock.
    pub ago: i64,
    pub cpu: Option<f64>,
    pub memory: Option<f64>,
}

/// Samples of the last hour and of these servers, by steps of so many seconds. Steps begin at fixed times.
pub(super) async fn steps(db: &mut PgConnection, servers: &[ServerId], seconds: i64) -> Result<Vec<StepRow>> {
    let ids: Vec<i64> = servers.iter().map(|s| s.0).collect();
    sqlx::query_as!(
        StepRow,
        r#"select server_id as "server_id: ServerId",
                  (div(extract(epoch from now()), $2::bigint) - div(extract(epoch from taken_at), $2::bigint))::bigint
                      as "ago!",
                  avg(cpu) as cpu, avg(memory_used)::double precision as memory
           from samples where server_id = any($1) and taken_at > now() - interval '1 hour' group by 1, 2"#,
        &ids,
        seconds
    )
    .fetch_all(db)
    .await
}

/// Stores the samples of a host in one statement. Guests that belong to no server of that host are skipped.
pub async fn insert_samples(
    db: &mut PgConnection,
    host: HostId,
    taken_at: DateTime<Utc>,
    samples: &[Sample],
) -> Result<()> {
    // A manual clone may carry another guest's marker; `on conflict` would cost more than this check.
    let mut seen = HashSet::with_capacity(samples.len());
    let samples: Vec<&Sample> = samples.iter().filter(|s| seen.insert(s.marker)).collect();
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let column = |figure: fn(&Sample) -> Option<u64>| -> Vec<Option<i64>> {
        samples.iter().map(|s| figure(s).map(number)).collect()
    };
    let (uptimes, memory, memory_max) = (column(|s| s.uptime_s), column(|s| s.memory_used), column(|s| s.memory_max));
    let (disk, disk_max) = (column(|s| s.disk_used), column(|s| s.disk_max));
    let (net_in, net_out) = (column(|s| s.net_in), column(|s| s.net_out));
    let markers: Vec<Uuid> = samples.iter().map(|s| s.marker).collect();
    let powers: Vec<String> = samples.iter().map(|s| s.power.as_str().to_owned()).collect();
    let reasons: Vec<Option<String>> = samples.iter().map(|s| s.reason.clone()).collect();
    let cpus: Vec<Option<f64>> = samples.iter().map(|s| s.cpu).collect();
    let in_rates: Vec<Option<f64>> = samples.iter().map(|s| s.net_in_rate).collect();
    let out_rates: Vec<Option<f64>> = samples.iter().map(|s| s.net_out_rate).collect();
    sqlx::query!(
        "insert into samples (server_id, taken_at, power, uptime_s, cpu, memory_used, memory_max, disk_used, disk_max,
                              net_in, net_out, net_in_rate, net_out_rate, reason)
         select s.id, $2, g.power, g.uptime_s, g.cpu, g.memory_used, g.memory_max, g.disk_used, g.disk_max, g.net_in,
                g.net_out, g.net_in_rate, g.net_out_rate, g.reason
         from unnest($3::uuid[], $4::text[], $5::bigint[], $6::float8[], $7::bigint[], $8::bigint[], $9::bigint[],
                     $10::bigint[], $11::bigint[], $12::bigint[], $13::float8[], $14::float8[], $15::text[])
              as g (marker, power, uptime_s, cpu, memory_used, memory_max, disk_used, disk_max, net_in, net_out,
                    net_in_rate, net_out_rate, reason)
         join servers s on s.uuid = g.marker and s.host_id = $1 and s.deleted_at is null",
        host.0,
        taken_at,
        &markers,
        &powers,
        &uptimes as &[Option<i64>],
        &cpus as &[Option<f64>],
        &memory as &[Option<i64>],
        &memory_max as &[Option<i64>],
        &disk as &[Option<i64>],
        &disk_max as &[Option<i64>],
        &net_in as &[Option<i64>],
        &net_out as &[Option<i64>],
        &in_rates as &[Option<f64>],
        &out_rates as &[Option<f64>],
        &reasons as &[Option<String>]
    )
    .execute(db)
    .await
    .map(drop)
}

/// Notifies all processes of a host's new samples when the transaction commits.
pub async fn notify_sampled(db: &mut PgConnection, host: HostId) -> Result<()> {
    sqlx::query!(r#"select pg_notify('sampled', $1) as "notified: ()""#, host.to_string()).execute(db).await.map(drop)
}

/// All enabled hosts.
pub(super) async fn fleet_hosts(db: &PgPool) -> Result<Vec<FleetHost>> {
    sqlx::query_as!(
        FleetHost,
        r#"select name, seen_at is not null and last_error is null as "up!", seen_at
           from hosts where enabled order by id"#
    )
    .fetch_all(db)
    .await
}

/// All servers that are not deleted. Old samples are left out: they say nothing about the present.
pub(super) async fn fleet_servers(db: &PgPool) -> Result<Vec<FleetServer>> {
    sqlx::query_as!(
        FleetServer,
        r#"select s.id, s.guest_number, s.name, s.kind, h.name as host, s.node, t.name as tariff, s.status, s.cores,
                  l.taken_at as "taken_at?", l.power as "power?", l.uptime_s as "uptime_s?", l.cpu as "cpu?",
                  l.memory_used as "memory_used?", l.memory_max as "memory_max?", l.disk_used as "disk_used?",
                  l.disk_max as "disk_max?", l.net_in as "net_in?", l.net_out as "net_out?",
                  l.net_in_rate as "net_in_rate?", l.net_out_rate as "net_out_rate?"
           from servers s
           join hosts h on h.id = s.host_id
           join tariffs t on t.id = s.tariff_id
           left join lateral (select * from samples where server_id = s.id and taken_at > now() - interval '10 minutes'
                              order by taken_at desc limit 1) l on true
           where s.deleted_at is null order by s.id"#
    )
    .fetch_all(db)
    .await
}
