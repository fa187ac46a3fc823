//! The SQL of giving addresses out: to servers, back from them, and around what is in use without us.
//!
//! What was given back is remembered in `released_addresses`, so that it rests before another account has it.

use std::net::IpAddr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::super::model::NamedAddress;
use super::ip;
use crate::db::Savepoint;
use crate::error::{Error, Result};
use crate::ids::{HostId, PoolId, ServerId};

/// An address that a server holds, with what its guest must know of the network.
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
/// taken, when one of the families has none left, or when the host has pools and all are disabled. A family of which
/// the server holds an address already is left as it is. A host without any pool gives none, and that is a success:
/// its guests get no network from us. `rest`: how long one that another account gave back is left alone.
pub async fn take(tx: &mut PgConnection, host: HostId, server: ServerId, rest: Duration) -> Result<bool> {
    // Nothing taken on failure: what was taken before the family that failed goes with the savepoint.
    let mut tx = Savepoint::begin(tx).await?;
    // One order of locking for everyone, so that two orders can't wait for each other.
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
        if !take_one(&mut tx, &pools, server, rest.as_secs_f64()).await? {
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

/// Takes the address that was free for longest. First come those that the account itself gave back a short while ago:
/// who orders and deletes all day would have every address of a pool at rest otherwise.
async fn take_one(tx: &mut PgConnection, pools: &[PoolId], server: ServerId, rest: f64) -> sqlx::Result<bool> {
    for pool in pools {
        if take_released(tx, *pool, server, rest, true).await? {
            return Ok(true);
        }
    }
    for pool in pools {
        if take_fresh(tx, *pool, server).await? {
            return Ok(true);
        }
    }
    for pool in pools {
        if take_released(tx, *pool, server, rest, false).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes the pool's lowest address that nobody ever had. It is the first of the range or comes right after one that
/// somebody has or had, so the work grows with those and not with the size of the pool.
async fn take_fresh(tx: &mut PgConnection, pool: PoolId, server: ServerId) -> sqlx::Result<bool> {
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

/// Takes what was given back the longest ago: by the server's own account while it rests (`own`), or by whomever once it
/// has rested.
async fn take_released(
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
           and case when $4 then r.user_id = s.user_id and r.released_at > now() - make_interval(secs => $3)
                    else r.released_at <= now() - make_interval(secs => $3) end
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

/// When the next address of these hosts' enabled pools has rested; `None` where none rests.
pub async fn rested_at(tx: &mut PgConnection, hosts: &[i64], rest: Duration) -> Result<Option<DateTime<Utc>>> {
    let at = sqlx::query_scalar!(
        "select min(r.released_at) + make_interval(secs => $2)
         from released_addresses r join address_pools p on p.id = r.pool_id
         where p.host_id = any($1) and p.enabled and r.released_at > now() - make_interval(secs => $2)
           and r.address between p.first_address and p.last_address
           and not exists (select from addresses b where b.pool_id = r.pool_id and b.address = r.address)",
        hosts,
        rest.as_secs_f64()
    );
    Ok(at.fetch_one(tx).await?)
}

/// What a server holds, IPv4 first.
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

/// What a server holds with its reverse names, IPv4 first.
pub async fn names_of(db: impl PgExecutor<'_>, server: ServerId) -> Result<Vec<NamedAddress>> {
    let rows = sqlx::query!(
        r#"select host(address) as "address!", reverse_dns from addresses
           where server_id = $1 order by family(address), address"#,
        server.0
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(|r| Ok(NamedAddress { address: ip(&r.address)?, reverse_dns: r.reverse_dns })).collect()
}

/// Gives one of a server's addresses a reverse name, or takes it; false when the server does not hold it.
pub async fn set_name(tx: &mut PgConnection, server: ServerId, address: IpAddr, name: Option<&str>) -> Result<bool> {
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

/// Gives a server's addresses back, with a note whose they were; nothing held is no error.
pub async fn release(tx: &mut PgConnection, server: ServerId) -> Result<()> {
    sqlx::query!(
        "with freed as (delete from addresses where server_id = $1 returning pool_id, address)
         insert into released_addresses (pool_id, address, user_id, server_id)
         select f.pool_id, f.address, s.user_id, s.id from freed f, servers s where s.id = $1
         on conflict (pool_id, address) do update
             set user_id = excluded.user_id, server_id = excluded.server_id, released_at = now()",
        server.0
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Takes from a server an address that its host has for something else, and holds it back with the reason; false where
/// the server does not hold it.
pub async fn pass_over(tx: &mut PgConnection, server: ServerId, address: IpAddr, reason: &str) -> Result<bool> {
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

/// Locks a host's pools, in the one order, until the transaction ends.
pub async fn lock_pools(tx: &mut PgConnection, host: HostId) -> Result<()> {
    sqlx::query!("select id from address_pools where host_id = $1 order by id for no key update", host.0)
        .fetch_all(tx)
        .await?;
    Ok(())
}

/// Holds these addresses of a host's pools back, each for a guest and with a reason, where nobody has them. The pools
/// are locked.
pub async fn hold_for_guests(tx: &mut PgConnection, host: HostId, held: &[(IpAddr, Uuid, String)]) -> Result<u64> {
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

/// Lets go what was held back for these guests, which are there no more. It rests: somebody had it.
pub async fn forget_guests(tx: &mut PgConnection, guests: &[Uuid]) -> Result<()> {
    sqlx::query!(
        "with freed as (delete from addresses where guest = any($1) returning pool_id, address)
         insert into released_addresses (pool_id, address) select pool_id, address from freed
         on conflict (pool_id, address) do update set user_id = null, server_id = null, released_at = now()",
        guests
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Gives a server what was held back for its guest, and of these addresses those that nobody has. Gives those that
/// another server has. The pools are locked.
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
    // One that the provider, or the host's word, held back is this guest's as well.
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

/// Forgets who had what a year ago: such an address is as good as new.
pub async fn purge(db: &PgPool) -> Result<()> {
    sqlx::query!("delete from released_addresses where released_at < aged_to() - interval '1 year'")
        .execute(db)
        .await?;
    Ok(())
}
