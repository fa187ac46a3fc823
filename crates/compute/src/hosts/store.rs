//! SQL for hosts and their nodes.

use std::time::Duration;

use chrono::{DateTime, Utc};
use hypervisor::Node;
use monitor::SweepClaim;
use sqlx::{PgConnection, PgExecutor, PgPool};

use super::kinds::KindName;
use super::model::{HostNode, ReservedCapacity};
use crate::ids::HostId;

type Result<T> = sqlx::Result<T>;

/// A host's row, with sealed settings.
#[derive(Debug)]
pub(super) struct HostRow {
    pub id: HostId,
    pub name: String,
    pub kind: KindName,
    pub config_sealed: Vec<u8>,
    pub management_key: Option<String>,
    pub enabled: bool,
    pub cpu_overcommit: f64,
    pub memory_overcommit: f64,
    pub disk_overcommit: f64,
    pub seen_at: Option<DateTime<Utc>>,
    pub last_error: Option<String>,
    /// Fingerprints that no other host has; empty until a check has reported them.
    pub identity: Vec<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// The enabled hosts, which are monitored and take servers, oldest first.
pub async fn enabled_hosts(db: impl PgExecutor<'_>) -> Result<Vec<HostId>> {
    sqlx::query_scalar!(r#"select id as "id: HostId" from hosts where enabled order by id"#).fetch_all(db).await
}

/// Records that a host responded, and its nodes. A node that is missing from the response is kept, but takes no new
/// servers.
pub async fn record_sweep(db: impl PgExecutor<'_>, host: HostId, nodes: &[Node]) -> Result<()> {
    let names: Vec<String> = nodes.iter().map(|n| n.name.clone()).collect();
    let online: Vec<bool> = nodes.iter().map(|n| n.online).collect();
    let cores: Vec<i32> = nodes.iter().map(|n| i32::try_from(n.cores).unwrap_or(i32::MAX)).collect();
    let memory: Vec<i64> = nodes.iter().map(|n| i64::try_from(n.memory_mib).unwrap_or(i64::MAX)).collect();
    let disk: Vec<i64> = nodes.iter().map(|n| i64::try_from(n.disk_gib).unwrap_or(i64::MAX)).collect();
    let used: Vec<Option<i64>> = nodes.iter().map(|n| n.disk_used.and_then(|used| i64::try_from(used).ok())).collect();
    let shared: Vec<bool> = nodes.iter().map(|n| n.disk_shared).collect();
    sqlx::query!(
        "with there as (
             insert into nodes (host_id, name, online, cores, memory_mib, disk_gib, disk_shared, disk_used)
             select $1, * from unnest($2::text[], $3::bool[], $4::int[], $5::bigint[], $6::bigint[], $7::bool[],
                                      $8::bigint[])
             on conflict (host_id, name) do update set online = excluded.online, cores = excluded.cores,
                 memory_mib = excluded.memory_mib, disk_gib = excluded.disk_gib, disk_shared = excluded.disk_shared,
                 disk_used = excluded.disk_used, seen_at = now()
         ), missing as (
             update nodes set online = false where host_id = $1 and online and name <> all ($2::text[])
         )
         update hosts set seen_at = now(), last_error = null, sweep_failures = 0 where id = $1",
        host.0,
        &names,
        &online,
        &cores,
        &memory,
        &disk,
        &shared,
        &used as &[Option<i64>]
    )
    .execute(db)
    .await
    .map(drop)
}

/// Records that the host's unknown guests are known, as of a sweep that was claimed at this time.
pub async fn record_unknown_checked(db: impl PgExecutor<'_>, host: HostId, claimed_at: DateTime<Utc>) -> Result<()> {
    sqlx::query!("update hosts set guests_known_at = $2 where id = $1", host.0, claimed_at).execute(db).await.map(drop)
}

/// Records why a host did not respond. What is known of its nodes stays.
pub async fn record_failure(db: impl PgExecutor<'_>, host: HostId, text: &str) -> Result<()> {
    let text: String = text.chars().filter(|c| *c != '\0').take(2000).collect();
    sqlx::query!("update hosts set last_error = $2, sweep_failures = sweep_failures + 1 where id = $1", host.0, text)
        .execute(db)
        .await
        .map(drop)
}

/// Records the fingerprints that identify a host, if a check has reported them.
pub(super) async fn record_identity(db: impl PgExecutor<'_>, host: HostId, identity: &[String]) -> Result<()> {
    sqlx::query!("update hosts set identity = $2 where id = $1 and cardinality($2::text[]) > 0", host.0, identity)
        .execute(db)
        .await
        .map(drop)
}

/// What a driver needs to connect to a host.
#[derive(Debug)]
pub(super) struct StoredSettings {
    pub kind: KindName,
    pub config_sealed: Vec<u8>,
    pub management_key: Option<String>,
    pub management_key_sealed: Option<Vec<u8>>,
    /// When any of these last changed.
    pub updated_at: DateTime<Utc>,
}

/// A host's sealed settings.
pub(super) async fn settings(db: impl PgExecutor<'_>, host: HostId) -> Result<Option<StoredSettings>> {
    sqlx::query_as!(
        StoredSettings,
        r#"select kind as "kind: KindName", config_sealed, management_key, management_key_sealed, updated_at
           from hosts where id = $1"#,
        host.0
    )
    .fetch_optional(db)
    .await
}

#[derive(Debug)]
pub(super) struct SealedSecrets {
    pub id: HostId,
    pub config_sealed: Vec<u8>,
    pub management_key_sealed: Option<Vec<u8>>,
}

pub(super) async fn secrets(db: impl PgExecutor<'_>) -> Result<Vec<SealedSecrets>> {
    sqlx::query_as!(
        SealedSecrets,
        r#"select id as "id: HostId", config_sealed, management_key_sealed from hosts order by id"#
    )
    .fetch_all(db)
    .await
}

/// Replaces a host's secrets with the same ones, sealed with another key; false if they have changed meanwhile. Nothing
/// changes for those who use them.
pub(super) async fn replace_secrets(
    db: impl PgExecutor<'_>,
    before: &SealedSecrets,
    after: &SealedSecrets,
) -> Result<bool> {
    let done = sqlx::query!(
        "update hosts set config_sealed = $4, management_key_sealed = $5
         where id = $1 and config_sealed = $2 and management_key_sealed is not distinct from $3",
        before.id.0,
        before.config_sealed,
        before.management_key_sealed,
        after.config_sealed,
        after.management_key_sealed
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn set_management_key(
    db: impl PgExecutor<'_>,
    host: HostId,
    sealed: &[u8],
    public: &str,
) -> Result<()> {
    sqlx::query!(
        "update hosts set management_key_sealed = $2, management_key = $3 where id = $1",
        host.0,
        sealed,
        public
    )
    .execute(db)
    .await
    .map(drop)
}

/// The host key of a node; pins this one if none is stored.
pub(super) async fn pin_node(db: impl PgExecutor<'_>, host: HostId, node: &str, key: &str) -> Result<Option<String>> {
    sqlx::query_scalar!(
        r#"update nodes set ssh_host_key = coalesce(ssh_host_key, $3) where host_id = $1 and name = $2
           returning ssh_host_key as "key!""#,
        host.0,
        node,
        key
    )
    .fetch_optional(db)
    .await
}

/// When a host's settings were last changed.
pub(super) async fn changed_at(db: impl PgExecutor<'_>, host: HostId) -> Result<Option<DateTime<Utc>>> {
    sqlx::query_scalar!("select updated_at from hosts where id = $1", host.0).fetch_optional(db).await
}

/// All hosts in the order they were added.
pub(super) async fn hosts(db: impl PgExecutor<'_>) -> Result<Vec<HostRow>> {
    sqlx::query_as!(
        HostRow,
        r#"select id as "id: HostId", name, kind as "kind: KindName", config_sealed, management_key, enabled,
                  cpu_overcommit, memory_overcommit, disk_overcommit, seen_at, last_error, identity, created_at,
                  updated_at
           from hosts order by id"#
    )
    .fetch_all(db)
    .await
}

/// One host.
pub(super) async fn host(db: impl PgExecutor<'_>, id: HostId) -> Result<Option<HostRow>> {
    sqlx::query_as!(
        HostRow,
        r#"select id as "id: HostId", name, kind as "kind: KindName", config_sealed, management_key, enabled,
                  cpu_overcommit, memory_overcommit, disk_overcommit, seen_at, last_error, identity, created_at,
                  updated_at
           from hosts where id = $1"#,
        id.0
    )
    .fetch_optional(db)
    .await
}

/// One host, locked until the transaction ends. What refers to it (servers, pools) can still be added.
pub(super) async fn lock(tx: &mut PgConnection, id: HostId) -> Result<Option<HostRow>> {
    sqlx::query_as!(
        HostRow,
        r#"select id as "id: HostId", name, kind as "kind: KindName", config_sealed, management_key, enabled,
                  cpu_overcommit, memory_overcommit, disk_overcommit, seen_at, last_error, identity, created_at,
                  updated_at
           from hosts where id = $1 for no key update"#,
        id.0
    )
    .fetch_optional(tx)
    .await
}

/// One host's id by its name, without regard to case.
pub async fn by_name(db: impl PgExecutor<'_>, name: &str) -> Result<Option<HostId>> {
    sqlx::query_scalar!(r#"select id as "id: HostId" from hosts where lower(name) = lower($1)"#, name)
        .fetch_optional(db)
        .await
}

/// The nodes of these hosts, with what servers hold of them.
pub(super) async fn nodes(db: impl PgExecutor<'_>, hosts: &[i64]) -> Result<Vec<(HostId, HostNode)>> {
    let rows = sqlx::query!(
        r#"select n.host_id as "host: HostId", n.name, n.online, n.cores, n.memory_mib, n.disk_gib, n.disk_shared,
                  n.seen_at, count(s.id) as "servers!", coalesce(sum(s.cores), 0)::bigint as "reserved_cores!",
                  coalesce(sum(s.memory_mib), 0)::bigint as "reserved_memory!",
                  coalesce(sum(s.disk_gib + held.gib), 0)::bigint as "reserved_disk!"
           from nodes n left join servers s on s.host_id = n.host_id and s.node = n.name and s.reserved
           left join lateral (select coalesce(sum(r.gib), 0) as gib from snapshot_room r where r.server_id = s.id) held
               on true
           where n.host_id = any ($1)
           group by n.host_id, n.name order by n.host_id, n.name"#,
        hosts
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| {
            let reserved = ReservedCapacity {
                servers: r.servers,
                cores: r.reserved_cores,
                memory: r.reserved_memory,
                disk: r.reserved_disk,
            };
            let node = HostNode {
                name: r.name,
                online: r.online,
                cores: r.cores,
                memory: r.memory_mib,
                disk: r.disk_gib,
                disk_shared: r.disk_shared,
                reserved,
                seen_at: r.seen_at,
            };
            (r.host, node)
        })
        .collect())
}

/// Adds a host; `None` when the name is taken.
pub(super) async fn insert(
    db: impl PgExecutor<'_>,
    name: &str,
    kind: KindName,
    config_sealed: &[u8],
    enabled: bool,
    overcommit: [f64; 3],
) -> Result<Option<HostId>> {
    sqlx::query_scalar!(
        r#"insert into hosts (name, kind, config_sealed, enabled, cpu_overcommit, memory_overcommit, disk_overcommit)
           values ($1, $2, $3, $4, $5, $6, $7) on conflict (lower(name)) do nothing returning id as "id: HostId""#,
        name,
        kind.as_str(),
        config_sealed,
        enabled,
        overcommit[0],
        overcommit[1],
        overcommit[2]
    )
    .fetch_optional(db)
    .await
}

/// Updates a host's row.
pub(super) async fn update(db: impl PgExecutor<'_>, host: &HostRow) -> Result<()> {
    sqlx::query!(
        "update hosts set name = $2, config_sealed = $3, enabled = $4, cpu_overcommit = $5, memory_overcommit = $6,
                disk_overcommit = $7, updated_at = clock_timestamp()
         where id = $1",
        host.id.0,
        host.name,
        host.config_sealed,
        host.enabled,
        host.cpu_overcommit,
        host.memory_overcommit,
        host.disk_overcommit
    )
    .execute(db)
    .await
    .map(drop)
}

/// Deletes a host; false if it does not exist.
pub(super) async fn delete(db: impl PgExecutor<'_>, id: HostId) -> Result<bool> {
    let done = sqlx::query!("delete from hosts where id = $1", id.0).execute(db).await?;
    Ok(done.rows_affected() == 1)
}

/// What is on a host: servers that aren't certainly gone, deleted servers, and address pools.
pub(super) async fn contents(db: impl PgExecutor<'_>, id: HostId) -> Result<(i64, i64, i64)> {
    let row = sqlx::query!(
        r#"select (select count(*) from servers where host_id = $1 and (reserved or deleted_at is null)) as "live!",
                  (select count(*) from servers where host_id = $1 and not reserved and deleted_at is not null)
                      as "past!",
                  (select count(*) from address_pools where host_id = $1) as "pools!""#,
        id.0
    )
    .fetch_one(db)
    .await?;
    Ok((row.live, row.past, row.pools))
}

/// A host's name.
pub async fn name(db: impl PgExecutor<'_>, id: HostId) -> Result<Option<String>> {
    sqlx::query_scalar!("select name from hosts where id = $1", id.0).fetch_optional(db).await
}

/// Claims a host for one interval (two after three failures in a row), unless another process holds it. A claim may
/// come a little early: clocks and networks jitter, and missing one by a hair would halve the rate.
pub async fn claim_sweep(db: &PgPool, host: HostId, interval: Duration) -> Result<SweepClaim> {
    let seconds = interval.as_secs_f64();
    let row = sqlx::query!(
        r#"with mine as (
               update hosts set sweep_started_at = now()
               where id = $1 and enabled
                 -- A claim that this one waited for may have begun after now().
                 and (sweep_started_at is null or sweep_started_at > clock_timestamp()
                      or sweep_started_at <= now() - make_interval(secs =>
                             0.95 * $2::float8 * case when sweep_failures >= 3 then 2 else 1 end))
               returning sweep_started_at
           )
           select mine.sweep_started_at as "mine?",
                  extract(epoch from h.sweep_started_at + make_interval(secs =>
                      $2::float8 * case when h.sweep_failures >= 3 then 2 else 1 end) - now())::float8 as due
           from hosts h left join mine on true where h.id = $1"#,
        host.0,
        seconds
    )
    .fetch_optional(db)
    .await?;
    Ok(match row {
        Some(row) => match (row.mine, row.due) {
            (Some(at), _) => SweepClaim::Ours(at),
            (None, due) => SweepClaim::Due(until_due(due, interval)),
        },
        None => SweepClaim::Due(interval),
    })
}

/// Time until a host is due: never 0, and never more than the interval, which is 0 if every host is to be swept now.
fn until_due(seconds: Option<f64>, interval: Duration) -> Duration {
    let due = seconds.map_or(interval, |seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default());
    due.min(interval).max(Duration::from_millis(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_due_within_its_interval_even_where_that_is_none() {
        let ms = Duration::from_millis;
        assert_eq!(until_due(Some(3.0), ms(30_000)), ms(3_000));
        assert_eq!(until_due(Some(300.0), ms(30_000)), ms(30_000));
        assert_eq!(until_due(Some(-3.0), ms(30_000)), ms(10));
        assert_eq!(until_due(None, Duration::ZERO), ms(10));
    }
}
