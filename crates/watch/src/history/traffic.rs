//! Bytes that servers received and sent per month (UTC), metered from their guests' counters.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use hypervisor::GuestPower;
use kernel::db;
use monitor::{Sample, SweepReport};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::model::TrafficMonth;
use crate::ids::{HostId, ServerId};
use crate::locks;

type Result<T> = sqlx::Result<T>;

/// This month's traffic by server, in bytes.
pub type Metered = HashMap<ServerId, f64>;

/// Meters the samples of a host's sweep and returns this month's totals. Traffic is billed, so this has a transaction
/// of its own: no other failure of the sweep can lose it.
pub async fn meter(db: &PgPool, host: HostId, report: &SweepReport) -> kernel::error::Result<Metered> {
    // Counters of a guest that its host currently knows nothing about mean nothing.
    let known = report.samples.iter().filter(|s| s.power != GuestPower::Unknown);
    let samples: Vec<&Sample> = known.map(|s| (s.marker, s)).collect::<HashMap<_, _>>().into_values().collect();
    let mut tx = db::begin(db).await?;
    locks::traffic(host).hold(&mut tx).await?;
    let months = count(&mut tx, host, report, &samples).await?;
    tx.commit().await?;
    Ok(months)
}

/// Adds the growth of the guests' counters to this month's traffic and returns the totals in bytes. A counter restarted
/// at 0 if it is lower than before, or if the guest was started since it was last seen, however high it is by now. An
/// unknown counter adds nothing. What a guest counted before it was first seen is included if it was created in the
/// same month. A report older than the last one adds nothing. There must be at most one sample per guest.
async fn count(tx: &mut PgConnection, host: HostId, report: &SweepReport, samples: &[&Sample]) -> Result<Metered> {
    let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let samples: Vec<(&Sample, u64, u64)> = samples.iter().filter_map(|s| Some((*s, s.net_in?, s.net_out?))).collect();
    let received: Vec<i64> = samples.iter().map(|(_, received, _)| number(*received)).collect();
    let sent: Vec<i64> = samples.iter().map(|(.., sent)| number(*sent)).collect();
    let markers: Vec<Uuid> = samples.iter().map(|(s, ..)| s.marker).collect();
    // Uptimes are whole seconds and may be slightly old. This uses the clock that recorded when a guest was last seen.
    let known_at = report.taken_at - (report.claimed_at - report.known_at);
    let started = |s: &Sample| {
        let up = TimeDelta::try_seconds(i64::try_from(s.uptime_s.filter(|up| *up > 0)?).ok()?)?;
        known_at.checked_sub_signed(up + TimeDelta::seconds(1))
    };
    let started: Vec<Option<DateTime<Utc>>> = samples.iter().map(|(s, ..)| started(s)).collect();
    let rows = sqlx::query!(
        r#"with seen as (
               select s.id, g.received, g.sent,
                      case when g.started > l.seen_at then 0 else l.last_received end as last_received,
                      case when g.started > l.seen_at then 0 else l.last_sent end as last_sent,
                      s.created_at >= date_trunc('month', $2::timestamptz, 'UTC') as is_new,
                      ($2::timestamptz at time zone 'UTC')::date as day
               from unnest($3::uuid[], $4::bigint[], $5::bigint[], $6::timestamptz[])
                    as g (marker, received, sent, started)
               join servers s on s.uuid = g.marker and s.host_id = $1 and s.deleted_at is null
               left join lateral (select * from traffic where server_id = s.id order by month desc limit 1) l on true
               where l.seen_at is null or l.seen_at < $2
           )
           insert into traffic as m (server_id, month, received, sent, last_received, last_sent, seen_at)
           select id, date_trunc('month', day)::date,
                  case when last_received is null then case when is_new then received else 0 end
                       when received >= last_received then received - last_received else received end,
                  case when last_sent is null then case when is_new then sent else 0 end
                       when sent >= last_sent then sent - last_sent else sent end,
                  received, sent, $2
           from seen
           on conflict (server_id, month) do update
           set received = m.received + excluded.received, sent = m.sent + excluded.sent,
               last_received = excluded.last_received, last_sent = excluded.last_sent, seen_at = excluded.seen_at
           returning m.server_id as "server: ServerId", (m.received + m.sent)::float8 as "bytes!""#,
        host.0,
        report.taken_at,
        &markers,
        &received,
        &sent,
        &started as &[Option<DateTime<Utc>>]
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|r| (r.server, r.bytes)).collect())
}

/// A server's traffic by month, newest first. The current month is always included.
pub(super) async fn months(db: &PgPool, server: ServerId) -> Result<Vec<TrafficMonth>> {
    sqlx::query_as!(
        TrafficMonth,
        r#"select to_char(month, 'YYYY-MM') as "month!", coalesce(received, 0) as "received!",
                  coalesce(sent, 0) as "sent!"
           from (select date_trunc('month', now(), 'UTC') at time zone 'UTC' as month) this
           full join (select month::timestamp, received, sent from traffic where server_id = $1) counted using (month)
           order by month desc"#,
        server.0
    )
    .fetch_all(db)
    .await
}

/// Bytes per month included in a server's tariff; `None` if it sets no limit.
pub(super) async fn quota(db: &PgPool, server: ServerId) -> Result<Option<i64>> {
    sqlx::query_scalar!(
        "select t.traffic_gib * 1073741824 from servers s join tariffs t on t.id = s.tariff_id where s.id = $1",
        server.0
    )
    .fetch_one(db)
    .await
}

/// Deletes months older than two years.
pub(super) async fn purge(db: &PgPool) -> Result<()> {
    sqlx::query!("delete from traffic where month < aged_to() - interval '25 months'").execute(db).await.map(drop)
}
