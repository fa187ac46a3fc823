//! SQL for what is found out about servers on their hosts.

use monitor::SweepReport;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::Result;
use crate::ids::{HostId, ServerId, TariffId};
use crate::servers::size::ServerSize;

/// Moves servers between running, stopped, paused and unknown as the sweep found them, missing ones to unknown, and
/// returns how many changed. Servers that the sweep can't have seen are skipped, and so are those that an operation
/// holds, or held when the host was asked: operations know better than an older sweep.
pub async fn update_statuses(db: &mut PgConnection, host: HostId, report: &SweepReport) -> Result<u64> {
    let markers: Vec<Uuid> = report.samples.iter().map(|s| s.marker).collect();
    let powers: Vec<String> = report.samples.iter().map(|s| s.power.as_str().to_owned()).collect();
    let done = sqlx::query!(
        "with seen as (
             select s.id, coalesce(g.power, 'unknown') as status
             from servers s left join unnest($3::uuid[], $4::text[]) as g (marker, power) on g.marker = s.uuid
             where s.host_id = $1 and s.status in ('running', 'stopped', 'paused', 'unknown')
               and (g.marker is not null or s.node = any($5) and s.guest_number <> all($6))
         )
         update servers s set status = seen.status, updated_at = now() from seen
         where s.id = seen.id and s.status <> seen.status and s.status in ('running', 'stopped', 'paused', 'unknown')
           and not exists (select from operations o where o.subject_kind = 'server' and o.subject_id = s.id::text
               and (o.state in ('queued', 'running', 'undoing', 'stuck') or o.ended_at >= $2))",
        host.0,
        report.known_at,
        &markers,
        &powers,
        &report.coverage.nodes,
        &report.coverage.unread
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Sets what a server holds and, if given, its tariff.
pub(crate) async fn set_size(
    tx: &mut PgConnection,
    id: ServerId,
    size: ServerSize,
    tariff: Option<TariffId>,
) -> Result<()> {
    sqlx::query!(
        "update servers set cores = $2, memory_mib = $3, disk_gib = $4, tariff_id = coalesce($5, tariff_id),
             bandwidth_mbps = $6, updated_at = now()
         where id = $1",
        id.0,
        size.cores,
        size.memory,
        size.disk,
        tariff.map(|t| t.0),
        size.bandwidth
    )
    .execute(tx)
    .await
    .map(drop)
}

/// The host key of a server's guest; pins this one if none is stored.
pub(crate) async fn pin_guest(
    db: impl PgExecutor<'_>,
    host: HostId,
    server: Uuid,
    key: &str,
) -> Result<Option<String>> {
    sqlx::query_scalar!(
        r#"update servers set ssh_host_key = coalesce(ssh_host_key, $3) where host_id = $1 and uuid = $2
           returning ssh_host_key as "key!""#,
        host.0,
        server,
        key
    )
    .fetch_optional(db)
    .await
}
