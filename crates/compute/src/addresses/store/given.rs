//! SQL for assigning addresses to servers, releasing them, and working around addresses in use by others.
//!
//! Released addresses are recorded in `released_addresses`, so that they rest before another account gets them.

use std::net::IpAddr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use kernel::db::Savepoint;
use kernel::error::{Error, Result};
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::super::model::NamedAddress;
use super::ip;
use crate::ids::{HostId, PoolId, ServerId};

/// A server's address, with the network settings that its guest needs.
#[derive(Debug, Clone)]
pub struct ServerAddress {
    /// The address.
    pub address: IpAddr,
    /// The network's prefix length.
    pub prefix: u8,
    /// The default gateway.
    pub gateway: Option<IpAddr>,
    /// The host's bridge or managed network.
    pub bridge: String,
    /// VLAN tag.
    pub vlan: Option<u16>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
}

/// Takes one address of each family that the host's enabled pools have, under the pools' locks. False, and nothing
/// taken, if one of the families has none left, or if the host has pools and all are disabled. A family of which the
/// server already has an address is skipped. A host without any pool assigns none, and that is a success: its guests
/// get no network from us. `rest`: how long an address released by another account is not reused.
pub async fn take(tx: &mut PgConnection, host: HostId, server: ServerId, rest: Duration) -> Result<bool> {
    // Nothing stays taken on failure: the savepoint also rolls back the families before the one that failed.
    let mut tx = Savepoint::begin(tx).await?;
    // The same lock order for every order, so that two can't deadlock.
    let pools = sqlx::query!(
        r#"select id, family(cidr) as "family!", enabled from address_pools where host_id = $1 order by id
           for no key update"#,
        host.0
    )
    .fetch_all(&mut *tx)
    .await?;
    let enabled = |family| -> Vec<PoolId> {
        pools.iter().filter(|p| p.enabled && p.family == family).map(|p| PoolId(p.id)).collect()
    };
    let families = [(4, enabled(4)), (6, enabled(6))];
    if !pools.is_empty() && families.iter().all(|(_, pools)| pools.is_empty()) {
        return Ok(false);
    }
    for (family, pools) in families {
        if pools.is_empty() || holds(&mut tx, server, family).await? {
            continue;
        }
        if !assign_one(&mut tx, &pools, server, rest.as_secs_f64()).await? {
            return Ok(false);
        }
    }
    tx.keep().await?;
    Ok(true)
}

async fn holds(db: &mut PgConnection, server: ServerId, family: i32) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from addresses where server_id = $1 and family(address) = $2) as "held!""#,
        server.0,
        family
    )
    .fetch_one(db)
    .await
}

/// Takes the address that has been free for longest. Those that the account itself released recently come first:
/// otherwise an account that orders and deletes all day would put every address of a pool to rest.
async fn assign_one(tx: &mut PgConnection, pools: &[PoolId], server: ServerId, rest: f64) -> sqlx::Result<bool> {
    for pool in pools {
        if assign_released(tx, *pool, server, rest, true).await? {
            return Ok(true);
        }
    }
    for pool in pools {
        if assign_unused(tx, *pool, server).await? {
            return Ok(true);
        }
    }
    for pool in pools {
        if assign_released(tx, *pool, server, rest, false).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes the pool's lowest address that was never in use. It is the first of the range, or comes right after one that
/// is or was in use, so the cost grows with the number of those, not with the size of the pool.
async fn assign_unused(tx: &mut PgConnection, pool: PoolId, server: ServerId) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "with known as (
             select address from addresses where pool_id = $1
             union all
             select address from released_addresses where pool_id = $1)
         insert into addresses (pool_id, address, server_id)
         select $1, candidate.address, $2 from (
             select first_address as address from address_pools where id = $1
             union all
             select k.address + 1 from known k join address_pools p on p.id = $1
             where k.address >= p.first_address and k.address < p.last_address
         ) candidate
         where not exists (select from addresses b where b.pool_id = $1 and b.address = candidate.address)
           and not exists (select from released_addresses r where r.pool_id = $1 and r.address = candidate.address)
         order by candidate.address limit 1",
        pool.0,
        server.0
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes the address that was released the longest ago: by the server's own account while it rests (`own`), or by any
/// account once it has rested. One that was released while this transaction waited for the pool's lock counts too.
async fn assign_released(
    tx: &mut PgConnection,
    pool: PoolId,
    server: ServerId,
    rest: f64,
    own: bool,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "insert into addresses (pool_id, address, server_id)
         select r.pool_id, r.address, s.id
         from released_addresses r join address_pools p on p.id = r.pool_id, servers s
         where r.pool_id = $1 and s.id = $2 and r.address between p.first_address and p.last_address
           and case when $4 then r.account_id = s.account_id
                        and r.released_at > clock_timestamp() - make_interval(secs => $3)
                    else r.released_at <= clock_timestamp() - make_interval(secs => $3) end
           and not exists (select from addresses b where b.pool_id = r.pool_id and b.address = r.address)
         order by r.released_at, r.address limit 1",
        pool.0,
        server.0,
        rest,
        own
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// When the next address of these hosts' enabled pools has rested; `None` if none is resting.
pub async fn next_rested_at(tx: &mut PgConnection, hosts: &[i64], rest: Duration) -> Result<Option<DateTime<Utc>>> {
    let at = sqlx::query_scalar!(
        "select min(r.released_at) + make_interval(secs => $2)
         from released_addresses r join address_pools p on p.id = r.pool_id
         where p.host_id = any($1) and p.enabled and r.released_at > clock_timestamp() - make_interval(secs => $2)
           and r.address between p.first_address and p.last_address
           and not exists (select from addresses b where b.pool_id = r.pool_id and b.address = r.address)",
        hosts,
        rest.as_secs_f64()
    );
    Ok(at.fetch_one(tx).await?)
}

/// A server's addresses, IPv4 first.
pub async fn of_server(db: &mut PgConnection, server: ServerId) -> Result<Vec<ServerAddress>> {
    let rows = sqlx::query!(
        r#"select host(a.address) as "address!", masklen(p.cidr) as "prefix!", host(p.gateway) as gateway, p.bridge,
                  p.vlan, array(select host(d) from unnest(p.dns) with ordinality as t (d, n) order by n) as "dns!"
           from addresses a join address_pools p on p.id = a.pool_id
           where a.server_id = $1 order by family(a.address), a.address"#,
        server.0
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|r| {
            Ok(ServerAddress {
                address: ip(&r.address)?,
                prefix: u8::try_from(r.prefix).map_err(Error::internal)?,
                gateway: r.gateway.as_deref().map(ip).transpose()?,
                bridge: r.bridge,
                vlan: r.vlan.map(u16::try_from).transpose().map_err(Error::internal)?,
                dns: r.dns.iter().map(|d| ip(d)).collect::<Result<_>>()?,
            })
        })
        .collect()
}

/// A server's addresses with their reverse DNS names, IPv4 first.
pub async fn reverse_dns_of(db: impl PgExecutor<'_>, server: ServerId) -> Result<Vec<NamedAddress>> {
    let rows = sqlx::query!(
        r#"select host(address) as "address!", reverse_dns from addresses
           where server_id = $1 order by family(address), address"#,
        server.0
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(|r| Ok(NamedAddress { address: ip(&r.address)?, reverse_dns: r.reverse_dns })).collect()
}

/// Sets or clears the reverse DNS name of one of a server's addresses; false if the server does not have the address.
pub async fn set_reverse_dns(
    tx: &mut PgConnection,
    server: ServerId,
    address: IpAddr,
    name: Option<&str>,
) -> Result<bool> {
    let done = sqlx::query!(
        "update addresses set reverse_dns = $3 where server_id = $1 and host(address) = $2",
        server.0,
        address.to_string(),
        name
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Releases a server's addresses, and records which account had them; it is no error if there are none.
pub async fn release(tx: &mut PgConnection, server: ServerId) -> Result<()> {
    sqlx::query!(
        "with freed as (delete from addresses where server_id = $1 returning pool_id, address)
         insert into released_addresses (pool_id, address, account_id, server_id)
         select f.pool_id, f.address, s.account_id, s.id from freed f, servers s where s.id = $1
         on conflict (pool_id, address) do update
             set account_id = excluded.account_id, server_id = excluded.server_id, released_at = now()",
        server.0
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Takes an address away from a server because its host has it in use elsewhere, and reserves it with the reason; false
/// if the server does not have it.
pub async fn reserve_conflicting(
    tx: &mut PgConnection,
    server: ServerId,
    address: IpAddr,
    reason: &str,
) -> Result<bool> {
    let done = sqlx::query!(
        "update addresses set server_id = null, reverse_dns = null, taken_at = now(), reason = left($3, 500)
         where server_id = $1 and address = $2::text::inet",
        server.0,
        address.to_string(),
        reason
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Locks a host's pools, in the common lock order, until the transaction ends.
pub async fn lock_pools(tx: &mut PgConnection, host: HostId) -> Result<()> {
    sqlx::query!("select id from address_pools where host_id = $1 order by id for no key update", host.0)
        .fetch_all(tx)
        .await?;
    Ok(())
}

/// Reserves these addresses of a host's pools, each for a guest and with a reason, unless they are in use. The pools
/// are locked.
pub async fn reserve_for_guests(tx: &mut PgConnection, host: HostId, held: &[(IpAddr, Uuid, String)]) -> Result<u64> {
    let addresses: Vec<String> = held.iter().map(|(address, ..)| address.to_string()).collect();
    let guests: Vec<Uuid> = held.iter().map(|(_, guest, _)| *guest).collect();
    let reasons: Vec<String> = held.iter().map(|(.., reason)| reason.clone()).collect();
    let done = sqlx::query!(
        "insert into addresses (pool_id, address, guest, reason)
         select p.id, g.address::inet, g.guest, left(g.reason, 500)
         from unnest($2::text[], $3::uuid[], $4::text[]) as g (address, guest, reason)
         join address_pools p on p.host_id = $1 and family(p.cidr) = family(g.address::inet)
             and g.address::inet between p.first_address and p.last_address
         on conflict do nothing",
        host.0,
        &addresses,
        &guests,
        &reasons
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}

/// Releases the addresses reserved for these guests, which no longer exist. They rest, since they were in use.
pub async fn release_of_guests(tx: &mut PgConnection, guests: &[Uuid]) -> Result<()> {
    sqlx::query!(
        "with freed as (delete from addresses where guest = any($1) returning pool_id, address)
         insert into released_addresses (pool_id, address) select pool_id, address from freed
         on conflict (pool_id, address) do update set account_id = null, server_id = null, released_at = now()",
        guests
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Assigns a server the addresses reserved for its guest, and those of `addresses` that no server has. Returns those
/// that another server has. The pools are locked.
pub async fn adopt(
    tx: &mut PgConnection,
    host: HostId,
    guest: Uuid,
    server: ServerId,
    addresses: &[IpAddr],
) -> Result<Vec<(IpAddr, ServerId)>> {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    sqlx::query!(
        "update addresses set server_id = $2, guest = null, reason = null, taken_at = now() where guest = $1",
        guest,
        server.0
    )
    .execute(&mut *tx)
    .await?;
    // One reserved by the provider, or because the host reported it as in use, is this guest's as well.
    sqlx::query!(
        "insert into addresses (pool_id, address, server_id)
         select p.id, g.address::inet, $2 from unnest($3::text[]) as g (address)
         join address_pools p on p.host_id = $1 and family(p.cidr) = family(g.address::inet)
             and g.address::inet between p.first_address and p.last_address
         on conflict (pool_id, address) do update
             set server_id = excluded.server_id, guest = null, reason = null, taken_at = now()
             where addresses.server_id is null",
        host.0,
        server.0,
        &texts
    )
    .execute(&mut *tx)
    .await?;
    let rows = sqlx::query!(
        r#"select host(a.address) as "address!", a.server_id as "server!: ServerId"
           from addresses a join address_pools p on p.id = a.pool_id
           where p.host_id = $1 and a.server_id <> $2 and a.address = any($3::text[]::inet[])"#,
        host.0,
        server.0,
        &texts
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter().map(|r| Ok((ip(&r.address)?, r.server))).collect()
}

/// Deletes records of previous holders after a year: by then an address counts as never used.
pub async fn purge(db: &PgPool) -> Result<()> {
    sqlx::query!("delete from released_addresses where released_at < aged_to() - interval '1 year'")
        .execute(db)
        .await?;
    Ok(())
}
