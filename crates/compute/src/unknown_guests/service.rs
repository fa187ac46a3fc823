//! Business logic for unknown guests.

use std::net::IpAddr;
use std::time::Duration;

use hypervisor::GuestRef;
use kernel::core::Core;
use kernel::db;
use kernel::error::{Code, Error, Result};
use kernel::idempotency::Once;
use kernel::{operations, restores};
use monitor::SweepReport;
use uuid::Uuid;

use super::model::{AdoptGuest, UnknownGuest};
use super::store;
use crate::hosts::Hosts;
use crate::ids::{HostId, ServerId};
use crate::servers;
use crate::servers::placement;
use crate::servers::store::{AdoptedGuest, number_holder};
use crate::{addresses, hosts};

/// How many guests a host is asked about after a sweep, and how long it may take for each.
const ASKED: i64 = 200;
const ANSWER: Duration = Duration::from_secs(5);

/// Finds unknown guests in a sweep, reserves what they use, and deletes the records of those that are gone.
pub async fn update_from_sweep(hosts: &Hosts, host: HostId, report: &SweepReport) -> Result<()> {
    let core = &hosts.core;
    let created = report.guests.iter().filter_map(|(guest, at)| Some((guest.vmid, (*at)?)));
    restores::service::check_created(core, created).await?;
    let markers: Vec<Uuid> = report.guests.iter().map(|(at, _)| at.marker).collect();
    let unknown = store::without_server(&core.db, &markers, report.known_at).await?;
    let guests: Vec<&GuestRef> =
        report.guests.iter().map(|(at, _)| at).filter(|at| unknown.contains(&at.marker)).collect();
    metrics::gauge!("innkeeper_unknown_guests", "host" => host.to_string()).set(guests.len() as f64);
    if !guests.is_empty() {
        for number in store::record_seen(&core.db, host, &guests).await? {
            tracing::warn!(
                %host,
                number,
                "a guest on the host carries our marker but belongs to no server; its addresses and its number are \
                 reserved (innkeeper host unknown, innkeeper host adopt)"
            );
        }
    }
    let (nodes, unread) = (&report.coverage.nodes, &report.coverage.unread);
    let gone = store::no_longer_unknown(&core.db, host, &markers, &unknown, nodes, unread).await?;
    if !gone.is_empty() {
        let mut tx = db::begin(&core.db).await?;
        addresses::store::lock_pools(&mut tx, host).await?;
        addresses::store::release_of_guests(&mut tx, &gone).await?;
        store::forget(&mut tx, host, &gone).await?;
        tx.commit().await?;
    }
    let mut known = true;
    if !guests.is_empty() {
        known = fetch_facts(hosts, host).await?;
        reserve_addresses(core, host).await?;
    }
    if known {
        hosts::store::record_unknown_checked(&core.db, host, report.claimed_at).await?;
        operations::service::lane_checked(&core.db, &hosts::lane(host), report.claimed_at).await?;
    }
    Ok(())
}

/// Asks a host about the guests that it has not been asked about yet. True: nothing is left to ask.
async fn fetch_facts(hosts: &Hosts, host: HostId) -> Result<bool> {
    let core = &hosts.core;
    let unasked = store::without_facts(&core.db, host, ASKED).await?;
    if unasked.is_empty() {
        return Ok(true);
    }
    let mut all = unasked.len() < usize::try_from(ASKED).unwrap_or(usize::MAX);
    let driver = hosts.driver(host).await?;
    for guest in unasked {
        match tokio::time::timeout(ANSWER, driver.facts(&guest)).await {
            Ok(Ok(facts)) => store::store_facts(&core.db, host, guest.marker, &facts).await?,
            Ok(Err(error)) if error.is_transient() => all = false,
            // Gone by now, or incomplete: the next sweep will show.
            Ok(Err(error)) => {
                tracing::debug!(%host, number = guest.vmid, %error, "could not read an unknown guest's settings");
            }
            Err(_) => return Ok(false),
        }
    }
    Ok(all)
}

/// Reserves addresses that only unknown guests use: with each sweep, since pools come and go.
async fn reserve_addresses(core: &Core, host: HostId) -> Result<()> {
    let mut tx = db::begin(&core.db).await?;
    addresses::store::lock_pools(&mut tx, host).await?;
    let held: Vec<(IpAddr, Uuid, String)> = store::addresses(&mut tx, host)
        .await?
        .into_iter()
        .map(|(address, marker, number, hostname)| {
            let name = hostname.map_or(String::new(), |name| format!(" ({name})"));
            (address, marker, format!("in use by the unknown guest {number}{name} on the host"))
        })
        .collect();
    addresses::store::reserve_for_guests(&mut tx, host, &held).await?;
    tx.commit().await
}

/// A host's unknown guests.
pub async fn of_host(core: &Core, host: HostId) -> Result<Vec<UnknownGuest>> {
    hosts::store::name(&core.db, host).await?.ok_or_else(|| Error::not_found("host"))?;
    store::of_host(&core.db, host).await
}

/// Turns an unknown guest into a server, with its addresses. The guest is not touched; the next sweep shows its status.
pub async fn adopt(core: &Core, once: &Once, host: HostId, number: i64, wish: AdoptGuest) -> Result<ServerId> {
    once.run(core, async |tx| {
        if !servers::store::lock_active_account(tx, wish.account_id).await? {
            return Err(Error::field("accountId", "There is no such account, or it is suspended."));
        }
        placement::lock(tx).await?;
        addresses::store::lock_pools(tx, host).await?;
        let guest = store::lock(tx, host, number).await?.ok_or_else(|| Error::not_found("unknown guest"))?;
        if let Some(other) = number_holder(tx, number, guest.uuid).await? {
            let message =
                format!("The server {other} already has the number {number}: this guest can't become a server.");
            return Err(Error::new(Code::Conflict, message));
        }
        let Some(held) = &guest.addresses else {
            let message = "The host has not been asked for the guest's addresses yet; try again after its next sweep.";
            return Err(Error::new(Code::Conflict, message));
        };
        let name = wish.name.or_else(|| guest.name.clone()).unwrap_or_else(|| format!("server-{number}"));
        let adopted = AdoptedGuest {
            marker: guest.uuid,
            account: wish.account_id,
            tariff: wish.tariff_id,
            image: wish.os_id,
            host,
            node: &guest.node,
            number,
            kind: &guest.kind,
            name: &name,
            cores: guest.cores,
            memory_mib: guest.memory,
            disk_gib: guest.disk,
        };
        let unknown = || {
            let message = format!("No such tariff or image exists for {} servers.", guest.kind);
            Error::field("tariffId", message)
        };
        let id = servers::store::adopt(tx, &adopted).await?.ok_or_else(unknown)?;
        if let Some((address, other)) = addresses::store::adopt(tx, host, guest.uuid, id, held).await?.first() {
            let message = format!(
                "The server {other} also has the address {address}: delete one of the two guests, this one on its host."
            );
            return Err(Error::new(Code::Conflict, message));
        }
        // It may have been another account's before it was deleted.
        operations::service::hand_over(tx, &servers::subject::subject(id), wish.account_id).await?;
        store::forget(tx, host, &[guest.uuid]).await?;
        Ok(id)
    })
    .await
}
