//! The SQL of history. Each level is aggregated from the one below: five minutes from samples, hours from five minutes.

use chrono::{DateTime, TimeDelta, Utc};
use kernel::db;
use sqlx::{PgConnection, PgPool};

use super::model::{MetricSpread, MetricsPoint};
use crate::ids::ServerId;

type Result<T> = sqlx::Result<T>;

/// Resolution of stored history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolution {
    /// Raw samples.
    Raw,
    /// Steps of five minutes.
    Fine,
    /// Steps of an hour.
    Coarse,
}

impl Resolution {
    /// The shortest step that this level can show, in seconds.
    pub(super) fn seconds(self) -> i64 {
        match self {
            Self::Raw => 1,
            Self::Fine => 300,
            Self::Coarse => 3600,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Fine => "5m",
            Self::Coarse => "1h",
        }
    }
}

/// Creates the partitions around a moment.
pub(super) async fn create_partitions(db: &PgPool, moment: DateTime<Utc>) -> Result<()> {
    sqlx::query!(r#"select history_room($1) as "done: ()""#, moment).execute(db).await.map(drop)
}

/// Creates partitions for the coming days and drops expired ones.
pub(super) async fn upkeep(db: &PgPool) -> Result<()> {
    sqlx::query!(r#"select history_upkeep() as "done: ()""#).execute(db).await.map(drop)
}

/// Until when five-minute and hourly steps are aggregated.
pub(super) async fn progress(db: &PgPool) -> Result<[DateTime<Utc>; 2]> {
    let row = sqlx::query!(
        r#"select (select done_to from history_progress where level = '5m') as "fine!",
                  (select done_to from history_progress where level = '1h') as "coarse!""#
    )
    .fetch_one(db)
    .await?;
    Ok([row.fine, row.coarse])
}

/// Aggregates the next span of a level: at most `at_once` long, and older than `settled`. False if there is nothing to
/// do or another process is at it.
pub(super) async fn aggregate(
    db: &PgPool,
    level: Resolution,
    settled: TimeDelta,
    at_once: TimeDelta,
) -> kernel::error::Result<bool> {
    let mut tx = db::begin(db).await?;
    let step = level.seconds();
    // If the clock was ahead for a while, the recorded progress is too: resume a day back. If the clock is behind now,
    // wait for it.
    let span = sqlx::query!(
        r#"with p as (select case when done_to < now() + interval '1 hour' then done_to
                                  else date_bin(make_interval(secs => $2::bigint), now(), 'epoch') - interval '1 day'
                             end as done_to
                      from history_progress
                      where level = $1 and now() > (select horizon from upkeep) - interval '1 hour'
                      for update skip locked),
                finer as (select date_bin(make_interval(secs => $2::bigint), case when $1 = '1h'
                              then (select done_to from history_progress where level = '5m')
                              else now() - make_interval(secs => $3::bigint) end, 'epoch') as end)
           select done_to as "from!", finer.end as "end!",
                  least(done_to + make_interval(secs => $4::bigint), finer.end) as "to!"
           from p, finer"#,
        level.as_str(),
        step as f64,
        settled.num_seconds() as f64,
        at_once.num_seconds() as f64
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(span) = span.filter(|s| s.to > s.from) else { return Ok(false) };
    let summed = match level {
        Resolution::Coarse => {
            sqlx::query!(
                "insert into samples_1h (server_id, taken_at, samples, up, cpu_min, cpu_mean, cpu_max, memory_min,
             memory_mean,
                 memory_max, memory_size, disk_min, disk_mean, disk_max, disk_size, rates, net_in_min, net_in_mean,
                 net_in_max, net_out_min, net_out_mean, net_out_max, cpus, memories, disks)
             select server_id, date_bin('1 hour', taken_at, 'epoch'), sum(samples), sum(up * samples) / sum(samples),
                 min(cpu_min), sum(cpu_mean * coalesce(cpus, samples)) / nullif(sum(coalesce(cpus, samples)), 0),
                 max(cpu_max), min(memory_min),
                 sum(memory_mean * coalesce(memories, samples)) / nullif(sum(coalesce(memories, samples)), 0),
                 max(memory_max), max(memory_size), min(disk_min),
                 sum(disk_mean * coalesce(disks, samples)) / nullif(sum(coalesce(disks, samples)), 0), max(disk_max),
                 max(disk_size), sum(rates),
                 min(net_in_min), sum(net_in_mean * rates) / nullif(sum(rates), 0), max(net_in_max),
                 min(net_out_min), sum(net_out_mean * rates) / nullif(sum(rates), 0), max(net_out_max),
                 sum(coalesce(cpus, samples)), sum(coalesce(memories, samples)), sum(coalesce(disks, samples))
             from samples_5m where taken_at >= $1 and taken_at < $2
             group by 1, 2
             on conflict (server_id, taken_at) do nothing",
                span.from,
                span.to
            )
            .execute(&mut *tx)
            .await?
        }
        _ => {
            sqlx::query!(
                "insert into samples_5m (server_id, taken_at, samples, up, cpu_min, cpu_mean, cpu_max, memory_min,
             memory_mean,
                 memory_max, memory_size, disk_min, disk_mean, disk_max, disk_size, rates, net_in_min, net_in_mean,
                 net_in_max, net_out_min, net_out_mean, net_out_max, cpus, memories, disks)
             select server_id, date_bin('5 minutes', taken_at, 'epoch'), count(*),
                 count(*) filter (where power = 'running')::float8 / count(*), min(cpu), avg(cpu), max(cpu),
                 min(memory_used), avg(memory_used)::float8, max(memory_used), max(samples.memory_max), min(disk_used),
                 avg(disk_used)::float8, max(disk_used), max(samples.disk_max), count(net_in_rate),
                 min(net_in_rate), avg(net_in_rate), max(net_in_rate), min(net_out_rate), avg(net_out_rate),
                 max(net_out_rate), count(cpu), count(memory_used), count(disk_used)
             from samples where taken_at >= $1 and taken_at < $2
             group by 1, 2
             on conflict (server_id, taken_at) do nothing",
                span.from,
                span.to
            )
            .execute(&mut *tx)
            .await?
        }
    };
    let done_to = match summed.rows_affected() {
        0 => next(&mut tx, level, span.to, span.end).await?,
        _ => span.to,
    };
    sqlx::query!("update history_progress set done_to = $2 where level = $1", level.as_str(), done_to)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(true)
}

/// Where the next data to aggregate begins, after a gap without samples or a jump of the clock.
async fn next(
    tx: &mut PgConnection,
    level: Resolution,
    from: DateTime<Utc>,
    end: DateTime<Utc>,
) -> Result<DateTime<Utc>> {
    sqlx::query_scalar!(
        r#"select greatest($2::timestamptz, least($3::timestamptz, date_bin(make_interval(secs => $4::bigint),
                      case when $1 = '1h'
                           then (select min(taken_at) from samples_5m where taken_at >= $2 and taken_at < $3)
                           else (select min(taken_at) from samples where taken_at >= $2 and taken_at < $3)
                      end, 'epoch')))
           as "next!""#,
        level.as_str(),
        from,
        end,
        level.seconds() as f64
    )
    .fetch_one(tx)
    .await
}

/// Source of each part of a chart: hours up to `coarse_to`, five minutes up to `fine_to`, then raw samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ChartSpans {
    pub from: DateTime<Utc>,
    pub coarse_to: DateTime<Utc>,
    pub fine_to: DateTime<Utc>,
    pub to: DateTime<Utc>,
}

/// A server's chart points, oldest first.
pub(super) async fn points(db: &PgPool, server: ServerId, spans: ChartSpans, step: i64) -> Result<Vec<MetricsPoint>> {
    let rows = sqlx::query!(
        r#"with parts as (
               select taken_at, samples, up, cpu_min, cpu_mean, cpu_max, memory_min, memory_mean, memory_max,
                      memory_size, disk_min, disk_mean, disk_max, disk_size, rates, net_in_min, net_in_mean,
                      net_in_max, net_out_min, net_out_mean, net_out_max, coalesce(cpus, samples) as cpus,
                      coalesce(memories, samples) as memories, coalesce(disks, samples) as disks
               from samples_1h where server_id = $1 and taken_at >= $2 and taken_at < $3
               union all
               select taken_at, samples, up, cpu_min, cpu_mean, cpu_max, memory_min, memory_mean, memory_max,
                      memory_size, disk_min, disk_mean, disk_max, disk_size, rates, net_in_min, net_in_mean,
                      net_in_max, net_out_min, net_out_mean, net_out_max, coalesce(cpus, samples) as cpus,
                      coalesce(memories, samples) as memories, coalesce(disks, samples) as disks
               from samples_5m where server_id = $1 and taken_at >= $3 and taken_at < $4
               union all
               select taken_at, 1, (power = 'running')::int, cpu, cpu, cpu, memory_used, memory_used, memory_used,
                      memory_max, disk_used, disk_used, disk_used, disk_max, (net_in_rate is not null)::int,
                      net_in_rate, net_in_rate, net_in_rate, net_out_rate, net_out_rate, net_out_rate,
                      (cpu is not null)::int,
                      (memory_used is not null)::int, (disk_used is not null)::int
               from samples where server_id = $1 and taken_at >= $4 and taken_at < $5)
           select date_bin(make_interval(secs => $6), taken_at, 'epoch') as "time!", sum(samples)::bigint as "samples!",
               sum(up * samples) / sum(samples)::float8 as "up!",
               min(cpu_min) as cpu_min, sum(cpu_mean * cpus) / nullif(sum(cpus), 0)::float8 as cpu_mean,
               max(cpu_max) as cpu_max, min(memory_min)::float8 as memory_min,
               sum(memory_mean * memories) / nullif(sum(memories), 0)::float8 as memory_mean,
               max(memory_max)::float8 as memory_max, max(memory_size) as memory_size,
               min(disk_min)::float8 as disk_min, sum(disk_mean * disks) / nullif(sum(disks), 0)::float8 as disk_mean,
               max(disk_max)::float8 as disk_max, max(disk_size) as disk_size,
               min(net_in_min) as in_min, sum(net_in_mean * rates) / nullif(sum(rates), 0)::float8 as in_mean,
               max(net_in_max) as in_max, min(net_out_min) as out_min,
               sum(net_out_mean * rates) / nullif(sum(rates), 0)::float8 as out_mean, max(net_out_max) as out_max
           from parts group by 1 order by 1"#,
        server.0,
        spans.from,
        spans.coarse_to,
        spans.fine_to,
        spans.to,
        step as f64
    )
    .fetch_all(db)
    .await?;
    let spread = |min, mean, max| Some(MetricSpread { min: min?, mean: mean?, max: max? });
    Ok(rows
        .into_iter()
        .map(|r| MetricsPoint {
            time: r.time,
            samples: r.samples,
            up: r.up,
            cpu: spread(r.cpu_min, r.cpu_mean, r.cpu_max),
            memory: spread(r.memory_min, r.memory_mean, r.memory_max),
            memory_size: r.memory_size,
            disk: spread(r.disk_min, r.disk_mean, r.disk_max),
            disk_size: r.disk_size,
            net_in: spread(r.in_min, r.in_mean, r.in_max),
            net_out: spread(r.out_min, r.out_mean, r.out_max),
        })
        .collect())
}
