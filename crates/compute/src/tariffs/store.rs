//! SQL for tariffs.

use sqlx::{PgConnection, PgExecutor};

use super::model::{NewTariff, ServerKind, Tariff};
use crate::ids::TariffId;

type Result<T> = sqlx::Result<T>;

/// All tariffs in order of creation, or only those that can be ordered.
pub async fn tariffs(db: impl PgExecutor<'_>, only_enabled: bool) -> Result<Vec<Tariff>> {
    sqlx::query_as!(
        Tariff,
        r#"select id as "id: TariffId", name, kind as "kind: ServerKind", cores, memory_mib as memory, disk_gib as disk,
                  traffic_gib as traffic, bandwidth_mbps as bandwidth, price, currency, enabled, max_cores,
                  max_memory_mib as max_memory, max_disk_gib as max_disk, snapshot_limit as snapshots, created_at,
                  updated_at
           from tariffs where enabled or not $1 order by id"#,
        only_enabled
    )
    .fetch_all(db)
    .await
}

/// One tariff, enabled or not.
pub async fn tariff(db: impl PgExecutor<'_>, id: TariffId) -> Result<Option<Tariff>> {
    sqlx::query_as!(
        Tariff,
        r#"select id as "id: TariffId", name, kind as "kind: ServerKind", cores, memory_mib as memory, disk_gib as disk,
                  traffic_gib as traffic, bandwidth_mbps as bandwidth, price, currency, enabled, max_cores,
                  max_memory_mib as max_memory, max_disk_gib as max_disk, snapshot_limit as snapshots, created_at,
                  updated_at
           from tariffs where id = $1"#,
        id.0
    )
    .fetch_optional(db)
    .await
}

/// One tariff, locked until the transaction ends.
pub(super) async fn lock(tx: &mut PgConnection, id: TariffId) -> Result<Option<Tariff>> {
    sqlx::query_as!(
        Tariff,
        r#"select id as "id: TariffId", name, kind as "kind: ServerKind", cores, memory_mib as memory, disk_gib as disk,
                  traffic_gib as traffic, bandwidth_mbps as bandwidth, price, currency, enabled, max_cores,
                  max_memory_mib as max_memory, max_disk_gib as max_disk, snapshot_limit as snapshots, created_at,
                  updated_at
           from tariffs where id = $1 for no key update"#,
        id.0
    )
    .fetch_optional(tx)
    .await
}

/// Adds a tariff; `None` when the name is taken.
pub(super) async fn insert(db: impl PgExecutor<'_>, new: &NewTariff) -> Result<Option<Tariff>> {
    sqlx::query_as!(
        Tariff,
        r#"insert into tariffs (name, kind, cores, memory_mib, disk_gib, traffic_gib, price, currency, enabled,
           max_cores,
                                max_memory_mib, max_disk_gib, snapshot_limit, bandwidth_mbps)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
           on conflict (lower(name)) do nothing
           returning id as "id: TariffId", name, kind as "kind: ServerKind", cores, memory_mib as memory,
           disk_gib as disk,
                     traffic_gib as traffic, bandwidth_mbps as bandwidth, price, currency, enabled, max_cores,
                  max_memory_mib as max_memory, max_disk_gib as max_disk, snapshot_limit as snapshots, created_at,
                  updated_at"#,
        new.name.trim(),
        new.kind.as_str(),
        new.cores,
        new.memory,
        new.disk,
        new.traffic,
        new.price,
        new.currency,
        new.enabled,
        new.max_cores,
        new.max_memory,
        new.max_disk,
        new.snapshots,
        new.bandwidth
    )
    .fetch_optional(db)
    .await
}

/// Updates a tariff's row.
pub(super) async fn update(db: impl PgExecutor<'_>, tariff: &Tariff) -> Result<Tariff> {
    sqlx::query_as!(
        Tariff,
        r#"update tariffs set name = $2, kind = $3, cores = $4, memory_mib = $5, disk_gib = $6, traffic_gib = $7,
                  price = $8, currency = $9, enabled = $10, max_cores = $11, max_memory_mib = $12, max_disk_gib = $13,
                  snapshot_limit = $14, bandwidth_mbps = $15, updated_at = now()
           where id = $1
           returning id as "id: TariffId", name, kind as "kind: ServerKind", cores, memory_mib as memory,
           disk_gib as disk,
                     traffic_gib as traffic, bandwidth_mbps as bandwidth, price, currency, enabled, max_cores,
                  max_memory_mib as max_memory, max_disk_gib as max_disk, snapshot_limit as snapshots, created_at,
                  updated_at"#,
        tariff.id.0,
        tariff.name,
        tariff.kind.as_str(),
        tariff.cores,
        tariff.memory,
        tariff.disk,
        tariff.traffic,
        tariff.price,
        tariff.currency,
        tariff.enabled,
        tariff.max_cores,
        tariff.max_memory,
        tariff.max_disk,
        tariff.snapshots,
        tariff.bandwidth
    )
    .fetch_one(db)
    .await
}

/// Deletes a tariff; false if it does not exist.
pub(super) async fn delete(db: impl PgExecutor<'_>, id: TariffId) -> Result<bool> {
    let done = sqlx::query!("delete from tariffs where id = $1", id.0).execute(db).await?;
    Ok(done.rows_affected() == 1)
}

/// How many servers that aren't deleted have the tariff.
pub(super) async fn live_servers(db: impl PgExecutor<'_>, id: TariffId) -> Result<i64> {
    sqlx::query_scalar!(r#"select count(*) as "n!" from servers where tariff_id = $1 and deleted_at is null"#, id.0)
        .fetch_one(db)
        .await
}
