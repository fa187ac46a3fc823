//! SQL for address pools and the addresses in use. A row is an address in use; free ones have none.

mod given;

use std::net::IpAddr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};

pub use given::{
    ServerAddress, adopt, lock_pools, next_rested_at, of_server, purge, release, release_of_guests,
    reserve_conflicting, reserve_for_guests, reverse_dns_of, set_reverse_dns, take,
};

use kernel::error::{Error, Result};

use super::model::{Address, Pool};
use super::range::{MOST, Range};
use crate::ids::{AccountId, HostId, PoolId, ServerId};

/// The domains in which an account may name its addresses.
pub(super) async fn suffixes(db: &mut PgConnection, account: AccountId) -> Result<Vec<String>> {
    let names =
        sqlx::query_scalar!("select suffix from reverse_suffixes where account_id = $1 order by suffix", account.0);
    Ok(names.fetch_all(db).await?)
}

/// Allows or forbids an account to name its addresses in a domain.
pub(super) async fn set_suffix(tx: &mut PgConnection, account: AccountId, name: &str, allow: bool) -> Result<()> {
    let done = if allow {
        sqlx::query!(
            "insert into reverse_suffixes (account_id, suffix) values ($1, $2) on conflict do nothing",
            account.0,
            name
        )
        .execute(tx)
        .await
    } else {
        sqlx::query!("delete from reverse_suffixes where account_id = $1 and suffix = $2", account.0, name)
            .execute(tx)
            .await
    };
    Ok(done.map(drop)?)
}

fn ip(text: &str) -> Result<IpAddr> {
    text.parse().map_err(Error::internal)
}

#[derive(Debug, Clone)]
pub(super) struct PoolRow {
    pub id: PoolId,
    pub host: HostId,
    pub name: String,
    pub range: Range,
    pub bridge: String,
    pub vlan: Option<i32>,
    pub dns: Vec<IpAddr>,
    pub enabled: bool,
}

/// Locks a host against other changes of its pools until the transaction ends; false if it does not exist.
pub(super) async fn lock_host(tx: &mut PgConnection, host: HostId) -> Result<bool> {
    let found = sqlx::query_scalar!("select id from hosts where id = $1 for no key update", host.0);
    Ok(found.fetch_optional(tx).await?.is_some())
}

/// All pools in order of creation, or one. `rest`: how long released addresses rest.
pub(super) async fn pools(db: impl PgExecutor<'_>, only: Option<PoolId>, rest: Duration) -> Result<Vec<Pool>> {
    let rows = sqlx::query!(
        r#"select p.id as "id: PoolId", p.host_id as "host: HostId", p.name, text(p.cidr) as "cidr!",
                  host(p.gateway) as gateway, host(p.first_address) as "first!", host(p.last_address) as "last!",
                  p.bridge, p.vlan,
                  array(select host(d) from unnest(p.dns) with ordinality as t (d, n) order by n) as "dns!",
                  p.enabled, p.created_at, p.updated_at, used.taken as "taken!", used.held_back as "held_back!",
                  rest.resting as "resting!",
                  array(select o.id from address_pools o
                        where o.host_id <> p.host_id and family(o.cidr) = family(p.cidr)
                          and o.first_address <= p.last_address and o.last_address >= p.first_address
                        order by o.id) as "overlaps!: Vec<PoolId>"
           from address_pools p, lateral (
               select count(*) as taken, count(*) filter (where server_id is null) as held_back from addresses
               where pool_id = p.id and address between p.first_address and p.last_address
           ) used, lateral (
               select count(*) as resting from released_addresses r
               where r.pool_id = p.id and r.address between p.first_address and p.last_address
                 and r.released_at > now() - make_interval(secs => $2)
                 and not exists (select from addresses b where b.pool_id = p.id and b.address = r.address)
           ) rest
           where $1::bigint is null or p.id = $1 order by p.id"#,
        only.map(|id| id.0),
        rest.as_secs_f64()
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|r| {
            let range = range(&r.cidr, r.gateway.as_deref(), &r.first, &r.last)?;
            let total = range.total();
            // If a range is too large to count, so is what is left of it.
            let free = if total == MOST { MOST } else { (total - r.taken - r.resting).max(0) };
            Ok(Pool {
                id: r.id,
                name: r.name,
                host_id: r.host,
                cidr: range.cidr,
                gateway: range.gateway,
                first: range.first,
                last: range.last,
                bridge: r.bridge,
                vlan: r.vlan,
                dns: r.dns.iter().map(|d| ip(d)).collect::<Result<_>>()?,
                enabled: r.enabled,
                total,
                taken: r.taken,
                held_back: r.held_back,
                resting: r.resting,
                overlaps: r.overlaps,
                free,
                created_at: r.created_at,
                updated_at: r.updated_at,
            })
        })
        .collect()
}

fn range(cidr: &str, gateway: Option<&str>, first: &str, last: &str) -> Result<Range> {
    Ok(Range {
        cidr: cidr.parse().map_err(Error::internal)?,
        gateway: gateway.map(ip).transpose()?,
        first: ip(first)?,
        last: ip(last)?,
    })
}

/// The host of a pool.
pub(super) async fn host_of(db: impl PgExecutor<'_>, pool: PoolId) -> Result<Option<HostId>> {
    let host = sqlx::query_scalar!(r#"select host_id as "id: HostId" from address_pools where id = $1"#, pool.0);
    Ok(host.fetch_optional(db).await?)
}

/// One pool, locked until the transaction ends, so that no address of it is taken meanwhile.
pub(super) async fn lock(tx: &mut PgConnection, id: PoolId) -> Result<Option<PoolRow>> {
    let row = sqlx::query!(
        r#"select host_id as "host: HostId", name, text(cidr) as "cidr!", host(gateway) as gateway,
                  host(first_address) as "first!", host(last_address) as "last!", bridge, vlan,
                  array(select host(d) from unnest(dns) with ordinality as t (d, n) order by n) as "dns!", enabled
           from address_pools where id = $1 for no key update"#,
        id.0
    )
    .fetch_optional(tx)
    .await?;
    row.map(|r| {
        Ok(PoolRow {
            id,
            host: r.host,
            name: r.name,
            range: range(&r.cidr, r.gateway.as_deref(), &r.first, &r.last)?,
            bridge: r.bridge,
            vlan: r.vlan,
            dns: r.dns.iter().map(|d| ip(d)).collect::<Result<_>>()?,
            enabled: r.enabled,
        })
    })
    .transpose()
}

/// The name of another pool of the host that overlaps with this range, or whose gateway this one would assign or vice
/// versa.
pub(super) async fn overlapping(
    db: impl PgExecutor<'_>,
    host: HostId,
    not: Option<PoolId>,
    range: &Range,
) -> Result<Option<String>> {
    let gateway = range.gateway.map(|g| g.to_string());
    let name = sqlx::query_scalar!(
        "select name from address_pools
         where host_id = $1 and id is distinct from $2 and family(cidr) = family($3::text::inet)
           and (first_address <= $4::text::inet and last_address >= $3::text::inet
                or gateway between $3::text::inet and $4::text::inet and gateway is distinct from $5::text::inet
                or $5::text::inet between first_address and last_address and gateway is distinct from $5::text::inet)
         order by id limit 1",
        host.0,
        not.map(|id| id.0),
        range.first.to_string(),
        range.last.to_string(),
        gateway
    );
    Ok(name.fetch_optional(db).await?)
}

/// Adds a pool; `None` when the name is taken.
pub(super) async fn insert(db: impl PgExecutor<'_>, pool: &PoolRow) -> Result<Option<PoolId>> {
    let id = sqlx::query_scalar!(
        r#"insert into address_pools (host_id, name, cidr, gateway, first_address, last_address, bridge, vlan, dns,
           enabled)
           values ($1, $2, $3::text::cidr, $4::text::inet, $5::text::inet, $6::text::inet, $7, $8,
                   $9::text[]::inet[], $10)
           on conflict (lower(name)) do nothing returning id as "id: PoolId""#,
        pool.host.0,
        pool.name,
        pool.range.cidr.to_string(),
        pool.range.gateway.map(|g| g.to_string()),
        pool.range.first.to_string(),
        pool.range.last.to_string(),
        pool.bridge,
        pool.vlan,
        &texts(&pool.dns),
        pool.enabled
    );
    Ok(id.fetch_optional(db).await?)
}

/// Updates a pool's row. Returns the database's own error, so that the caller can recognise a taken name.
pub(super) async fn update(db: impl PgExecutor<'_>, pool: &PoolRow) -> sqlx::Result<()> {
    sqlx::query!(
        "update address_pools set name = $2, cidr = $3::text::cidr, gateway = $4::text::inet,
                first_address = $5::text::inet, last_address = $6::text::inet, bridge = $7, vlan = $8,
                dns = $9::text[]::inet[], enabled = $10, updated_at = now()
         where id = $1",
        pool.id.0,
        pool.name,
        pool.range.cidr.to_string(),
        pool.range.gateway.map(|g| g.to_string()),
        pool.range.first.to_string(),
        pool.range.last.to_string(),
        pool.bridge,
        pool.vlan,
        &texts(&pool.dns),
        pool.enabled
    )
    .execute(db)
    .await
    .map(drop)
}

fn texts(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

/// Deletes a pool with no address in use; false if it does not exist. Returns the database's own error.
pub(super) async fn delete(db: impl PgExecutor<'_>, id: PoolId) -> sqlx::Result<bool> {
    let done = sqlx::query!("delete from address_pools where id = $1", id.0).execute(db).await?;
    Ok(done.rows_affected() == 1)
}

/// The number of a pool's addresses that servers have.
pub(super) async fn held_by_servers(db: impl PgExecutor<'_>, id: PoolId) -> Result<i64> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "n!" from addresses where pool_id = $1 and server_id is not null"#,
        id.0
    );
    Ok(count.fetch_one(db).await?)
}

/// The number of a pool's addresses in use.
pub(super) async fn count(db: impl PgExecutor<'_>, id: PoolId) -> Result<i64> {
    let count = sqlx::query_scalar!(r#"select count(*) as "n!" from addresses where pool_id = $1"#, id.0);
    Ok(count.fetch_one(db).await?)
}

/// A page of a pool's addresses in use, lowest first.
pub(super) async fn addresses(db: impl PgExecutor<'_>, id: PoolId, limit: i64, offset: i64) -> Result<Vec<Address>> {
    let rows = sqlx::query!(
        r#"select host(address) as "address!", server_id as "server: ServerId", reason, taken_at from addresses
           where pool_id = $1 order by addresses.address limit $2 offset $3"#,
        id.0,
        limit,
        offset
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|r| Ok(Address { address: ip(&r.address)?, server_id: r.server, reason: r.reason, taken_at: r.taken_at }))
        .collect()
}

/// Reserves an address; `None` if it is in use.
pub(super) async fn reserve(
    db: impl PgExecutor<'_>,
    id: PoolId,
    address: IpAddr,
    reason: Option<&str>,
) -> Result<Option<DateTime<Utc>>> {
    let taken_at = sqlx::query_scalar!(
        "insert into addresses (pool_id, address, reason) values ($1, $2::text::inet, $3)
         on conflict do nothing returning taken_at",
        id.0,
        address.to_string(),
        reason
    );
    Ok(taken_at.fetch_optional(db).await?)
}

/// Who has an address: no one, a server, or (the inner `None`) the provider.
pub(super) async fn holder(db: impl PgExecutor<'_>, id: PoolId, address: IpAddr) -> Result<Option<Option<ServerId>>> {
    let holder = sqlx::query_scalar!(
        r#"select server_id as "server: ServerId" from addresses where pool_id = $1 and address = $2::text::inet"#,
        id.0,
        address.to_string()
    );
    Ok(holder.fetch_optional(db).await?)
}

/// Releases a reserved address; false if it is not reserved.
pub(super) async fn release_reserved(db: impl PgExecutor<'_>, id: PoolId, address: IpAddr) -> Result<bool> {
    let done = sqlx::query!(
        "delete from addresses where pool_id = $1 and address = $2::text::inet and server_id is null",
        id.0,
        address.to_string()
    );
    Ok(done.execute(db).await?.rows_affected() == 1)
}

/// Whether an address is reserved for an unknown guest.
pub(super) async fn is_for_guest(db: impl PgExecutor<'_>, id: PoolId, address: IpAddr) -> Result<bool> {
    let held = sqlx::query_scalar!(
        r#"select exists (select from addresses where pool_id = $1 and address = $2::text::inet and guest is not null)
           as "held!""#,
        id.0,
        address.to_string()
    );
    Ok(held.fetch_one(db).await?)
}

/// Deletes all reservations of a pool, and the records of its addresses' previous holders.
pub(super) async fn clear(db: &mut PgConnection, id: PoolId) -> Result<()> {
    sqlx::query!("delete from addresses where pool_id = $1 and server_id is null", id.0).execute(&mut *db).await?;
    sqlx::query!("delete from released_addresses where pool_id = $1", id.0).execute(db).await?;
    Ok(())
}
