//! Business logic for address pools.

use std::net::IpAddr;
use std::time::Duration;

use kernel::core::Core;
use kernel::db::{self, is_foreign_key_violation, is_unique_violation};
use kernel::error::{Code, Error, Result};
use kernel::idempotency::Once;
use kernel::listing::Window;
use sqlx::PgExecutor;

use super::Addresses;
use super::model::{Address, NewPool, Pool, ReserveAddress, UpdatePool};
use super::range::{Problem, Range};
use super::store::{self, PoolRow};
use crate::ids::{HostId, PoolId};

fn no_pool() -> Error {
    Error::not_found("address pool")
}

fn name_taken() -> Error {
    Error::new(Code::AlreadyExists, "An address pool with this name already exists.")
}

fn invalid((field, message): Problem) -> Error {
    Error::field(field, message)
}

/// All pools. `rest`: how long released addresses rest.
pub async fn all(db: impl PgExecutor<'_>, rest: Duration) -> Result<Vec<Pool>> {
    store::pools(db, None, rest).await
}

/// One pool.
pub async fn find(pools: &Addresses, id: PoolId) -> Result<Pool> {
    find_on(pools, &pools.core.db, id).await
}

async fn find_on(pools: &Addresses, db: impl PgExecutor<'_>, id: PoolId) -> Result<Pool> {
    store::pools(db, Some(id), pools.settings.rest()).await?.pop().ok_or_else(no_pool)
}

/// Creates a pool. A gateway within the range is reserved.
pub async fn create(pools: &Addresses, once: &Once, new: NewPool) -> Result<Pool> {
    let core = &pools.core;
    let range = Range::new(new.cidr, new.gateway, new.first, new.last).map_err(invalid)?;
    once.run(core, async |tx| {
        // Under the host's lock, so that the second of two overlapping pools created at the same time is refused.
        if !store::lock_host(tx, new.host_id).await? {
            return Err(Error::field("hostId", "No such host exists."));
        }
        let mut pool = PoolRow {
            id: PoolId(0),
            host: new.host_id,
            name: new.name.trim().to_owned(),
            range,
            bridge: new.bridge,
            vlan: new.vlan,
            dns: new.dns,
            enabled: new.enabled,
        };
        refuse_overlap(tx, &pool, None).await?;
        pool.id = store::insert(&mut *tx, &pool).await?.ok_or_else(name_taken)?;
        reserve_gateway(tx, &pool).await?;
        let pool = find_on(pools, &mut *tx, pool.id).await?;
        if !pool.overlaps.is_empty() {
            let others = listed(&pool.overlaps);
            tracing::warn!(pool = pool.name, others, "pools of other hosts have some of these addresses");
        }
        Ok(pool)
    })
    .await
}

/// The warning about a pool that shares addresses with other hosts' pools; `None` if there are none.
pub fn overlap(pool: &Pool) -> Option<String> {
    (!pool.overlaps.is_empty()).then(|| {
        format!(
            "The address pool {} shares addresses with pools of other hosts ({}): if their guests are on one network, \
             two of them may get the same address.",
            pool.name,
            listed(&pool.overlaps)
        )
    })
}

fn listed(pools: &[PoolId]) -> String {
    pools.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Warnings about a host's pools.
pub async fn problems(pools: &Addresses, host: HostId) -> Result<Vec<String>> {
    let all = all(&pools.core.db, pools.settings.rest()).await?;
    Ok(all.iter().filter(|pool| pool.host_id == host).filter_map(overlap).collect())
}

async fn refuse_overlap(tx: &mut sqlx::PgConnection, pool: &PoolRow, id: Option<PoolId>) -> Result<()> {
    match store::overlapping(&mut *tx, pool.host, id, &pool.range).await? {
        None => Ok(()),
        Some(other) => Err(Error::new(
            Code::Conflict,
            format!("The host's address pool {other} overlaps with this range, or one has the other's gateway."),
        )),
    }
}

async fn reserve_gateway(tx: &mut sqlx::PgConnection, pool: &PoolRow) -> Result<()> {
    let Some(gateway) = pool.range.gateway.filter(|g| pool.range.contains(*g)) else { return Ok(()) };
    if store::reserve(&mut *tx, pool.id, gateway, Some("the gateway")).await?.is_some() {
        return Ok(());
    }
    match store::holder(&mut *tx, pool.id, gateway).await? {
        Some(Some(server)) => {
            Err(Error::new(Code::Conflict, format!("The server {server} has the address {gateway}.")))
        }
        _ => Ok(()),
    }
}

/// Changes only the fields that `update` has. Servers keep their addresses, even outside of a new range.
pub async fn update(pools: &Addresses, id: PoolId, update: UpdatePool) -> Result<Pool> {
    let mut tx = db::begin(&pools.core.db).await?;
    // The host before the pool: the lock order everywhere.
    let host = store::host_of(&mut *tx, id).await?.ok_or_else(no_pool)?;
    store::lock_host(&mut tx, host).await?;
    let old = store::lock(&mut tx, id).await?.ok_or_else(no_pool)?;
    let renumbered = update.cidr.is_some_and(|cidr| cidr != old.range.cidr);
    if renumbered {
        let held = store::held_by_servers(&mut *tx, id).await?;
        if held > 0 {
            let message = format!("Servers have addresses of this pool ({held}), so its network can't be changed.");
            return Err(Error::new(Code::Conflict, message));
        }
        store::clear(&mut tx, id).await?;
    }
    // A range belongs to its network: a new network without a range is used as a whole.
    let (first, last) = if renumbered { (None, None) } else { (Some(old.range.first), Some(old.range.last)) };
    let gateway = update.gateway.apply(old.range.gateway.filter(|_| !renumbered));
    let range =
        Range::new(update.cidr.unwrap_or(old.range.cidr), gateway, update.first.or(first), update.last.or(last))
            .map_err(invalid)?;
    if let Some(before) = old.range.gateway.filter(|before| Some(*before) != gateway && !renumbered) {
        store::release_reserved(&mut *tx, id, before).await?;
    }
    let pool = PoolRow {
        id,
        host,
        name: update.name.map_or(old.name, |name| name.trim().to_owned()),
        range,
        bridge: update.bridge.unwrap_or(old.bridge),
        vlan: update.vlan.apply(old.vlan),
        dns: update.dns.unwrap_or(old.dns),
        enabled: update.enabled.unwrap_or(old.enabled),
    };
    refuse_overlap(&mut tx, &pool, Some(id)).await?;
    store::update(&mut *tx, &pool).await.map_err(|e| if is_unique_violation(&e) { name_taken() } else { e.into() })?;
    reserve_gateway(&mut tx, &pool).await?;
    let pool = find_on(pools, &mut *tx, id).await?;
    tx.commit().await?;
    Ok(pool)
}

/// Deletes a pool of which no server has an address.
pub async fn delete(core: &Core, id: PoolId) -> Result<()> {
    let in_use =
        || Error::new(Code::Conflict, "Servers have addresses of this pool; disable it so that no more are used.");
    let mut tx = db::begin(&core.db).await?;
    store::lock(&mut tx, id).await?.ok_or_else(no_pool)?;
    store::clear(&mut tx, id).await?;
    store::delete(&mut *tx, id).await.map_err(|e| if is_foreign_key_violation(&e) { in_use() } else { e.into() })?;
    tx.commit().await?;
    Ok(())
}

/// The pool's addresses in use, and the total count.
pub async fn addresses(core: &Core, id: PoolId, window: Window) -> Result<(Vec<Address>, i64)> {
    store::host_of(&core.db, id).await?.ok_or_else(no_pool)?;
    let total = store::count(&core.db, id).await?;
    Ok((store::addresses(&core.db, id, window.limit, window.offset).await?, total))
}

/// Reserves an address, so that no server gets it.
pub async fn reserve(core: &Core, once: &Once, id: PoolId, wish: ReserveAddress) -> Result<Address> {
    let ReserveAddress { address, reason } = wish;
    once.run(core, async |tx| {
        let pool = store::lock(tx, id).await?.ok_or_else(no_pool)?;
        if !pool.range.contains(address) {
            let (first, last) = (pool.range.first, pool.range.last);
            return Err(Error::field("address", format!("{address} is not in the pool's range, {first} to {last}.")));
        }
        let Some(taken_at) = store::reserve(&mut *tx, id, address, reason.as_deref()).await? else {
            return Err(match store::holder(&mut *tx, id, address).await? {
                Some(Some(server)) => {
                    Error::new(Code::Conflict, format!("The server {server} has the address {address}."))
                }
                _ => Error::new(Code::AlreadyExists, format!("{address} is already reserved.")),
            });
        };
        Ok(Address { address, server_id: None, reason, taken_at })
    })
    .await
}

/// Releases a reserved address.
pub async fn release_reserved(core: &Core, id: PoolId, address: IpAddr) -> Result<()> {
    let mut tx = db::begin(&core.db).await?;
    let pool = store::lock(&mut tx, id).await?.ok_or_else(no_pool)?;
    if pool.range.gateway == Some(address) {
        return Err(Error::new(Code::Conflict, format!("{address} is the pool's gateway; no server can have it.")));
    }
    if store::is_for_guest(&mut *tx, id, address).await? {
        return Err(Error::new(
            Code::Conflict,
            format!(
                "{address} is reserved for an unknown guest, one without a server: adopt that guest, or delete it \
                 on the host."
            ),
        ));
    }
    if !store::release_reserved(&mut *tx, id, address).await? {
        return Err(match store::holder(&mut *tx, id, address).await? {
            Some(Some(server)) => Error::new(Code::Conflict, format!("The server {server} has the address {address}.")),
            _ => Error::not_found("reserved address"),
        });
    }
    tx.commit().await?;
    Ok(())
}

/// Deletes records of previous holders after a year.
pub async fn purge(core: &Core) -> Result<()> {
    store::purge(&core.db).await
}
