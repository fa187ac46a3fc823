//! The rules of guests that no server goes with.

use std::net::IpAddr;
use std::time::Duration;

use hypervisor::GuestRef;
use monitor::Report;
use uuid::Uuid;

use super::model::{AdoptGuest, UnknownGuest};
use super::store;
use crate::core::Core;
use crate::db::{self, is_in_use};
use crate::error::{Code, Error, Result};
use crate::hosts::Hosts;
use crate::idempotency::{Begun, Once};
use crate::ids::HostId;
use crate::servers::model::ServerView;
use crate::servers::placement;
use crate::servers::store::{Adopted, number_holder};
use crate::{addresses, hosts, restores, servers};

/// Guests that a host is asked about after one sweep, and how long it may take over each.
const ASKED: i64 = 200;
const ANSWER: Duration = Duration::from_secs(5);

/// Looks for guests in a sweep that no server goes with, holds back what they have, and forgets those that are gone.
pub async fn swept(hosts: &Hosts, host: HostId, report: &Report) -> Result<()> {
    let core = &hosts.core;
    restores::service::swept(core, report).await?;
    let markers: Vec<Uuid> = report.guests.iter().map(|(at, _)| at.marker).collect();
    let unknown = store::strangers(&core.db, &markers, report.known_at).await?;
    let guests: Vec<&GuestRef> =
        report.guests.iter().map(|(at, _)| at).filter(|at| unknown.contains(&at.marker)).collect();
    metrics::gauge!("innkeeper_unknown_guests", "host" => host.to_string()).set(guests.len() as f64);
    if !guests.is_empty() {
        for number in store::seen(&core.db, host, &guests).await? {
            tracing::warn!(
                %host,
                number,
                "a guest on the host carries our marker, and no server goes with it; its addresses and its number are held \
                 back (innkeeper host unknown, innkeeper host adopt)"
            );
        }
    }
    let (nodes, unread) = (&report.coverage.nodes, &report.coverage.unread);
    let gone = store::gone(&core.db, host, &markers, &unknown, nodes, unread).await?;
    if !gone.is_empty() {
        let mut tx = db::begin(&core.db).await?;
        addresses::store::lock_pools(&mut tx, host).await?;
        addresses::store::forget_guests(&mut tx, &gone).await?;
        store::forget(&mut tx, host, &gone).await?;
        tx.commit().await?;
    }
    let mut known = true;
    if !guests.is_empty() {
        known = ask(hosts, host).await?;
        hold_back(core, host).await?;
    }
    if known {
        hosts::store::record_known(&core.db, host, report.claimed_at).await?;
    }
    Ok(())
}

/// Asks a host what it gave to those that it was not asked about yet. True: it has said all that it ever will.
async fn ask(hosts: &Hosts, host: HostId) -> Result<bool> {
    let core = &hosts.core;
    let unasked = store::unasked(&core.db, host, ASKED).await?;
    if unasked.is_empty() {
        return Ok(true);
    }
    let mut all = unasked.len() < usize::try_from(ASKED).unwrap_or(usize::MAX);
    let driver = hosts.driver(host).await?;
    for guest in unasked {
        match tokio::time::timeout(ANSWER, driver.facts(&guest)).await {
            Ok(Ok(facts)) => store::told(&core.db, host, guest.marker, &facts).await?,
            Ok(Err(error)) if error.is_transient() => all = false,
            // Gone by now, or not whole: the next sweep sees.
            Ok(Err(error)) => {
                tracing::debug!(%host, number = guest.vmid, %error, "what an unknown guest was given is not told");
            }
            Err(_) => return Ok(false),
        }
    }
    Ok(all)
}

/// Holds back what unknown guests have and nobody else does: with each sweep, since pools come and change.
async fn hold_back(core: &Core, host: HostId) -> Result<()> {
    let mut tx = db::begin(&core.db).await?;
    addresses::store::lock_pools(&mut tx, host).await?;
    let held: Vec<(IpAddr, Uuid, String)> = store::addresses(&mut tx, host)
        .await?
        .into_iter()
        .map(|(address, marker, number, hostname)| {
            let name = hostname.map_or(String::new(), |name| format!(" ({name})"));
            (address, marker, format!("guest {number}{name} on the host has it, and no server goes with that guest"))
        })
        .collect();
    addresses::store::hold_for_guests(&mut tx, host, &held).await?;
    tx.commit().await
}

/// A host's guests that no server goes with.
pub async fn of_host(core: &Core, host: HostId) -> Result<Vec<UnknownGuest>> {
    hosts::store::name(&core.db, host).await?.ok_or_else(|| Error::not_found("host"))?;
    store::of_host(&core.db, host).await
}

/// Makes a server of such a guest, with its addresses. The guest is not touched, and the next sweep shows how it stands.
pub async fn adopt(core: &Core, once: &Once, host: HostId, number: i64, wish: AdoptGuest) -> Result<ServerView> {
    let mut tx = match once.begin(core).await? {
        Begun::New(tx) => tx,
        Begun::Done(id) => return servers::service::view(core, id).await,
    };
    placement::lock(&mut tx).await?;
    addresses::store::lock_pools(&mut tx, host).await?;
    let guest = store::lock(&mut tx, host, number).await?.ok_or_else(|| Error::not_found("unknown guest"))?;
    if let Some(other) = number_holder(&mut tx, number, guest.uuid).await? {
        let message = format!("The server {other} has the number {number}, so this guest can't be a server beside it.");
        return Err(Error::new(Code::Conflict, message));
    }
    let Some(held) = &guest.addresses else {
        let message = "The host was not asked yet what the guest's addresses are; try again after its next sweep.";
        return Err(Error::new(Code::Conflict, message));
    };
    let name = wish.name.or_else(|| guest.name.clone()).unwrap_or_else(|| format!("server-{number}"));
    let adopted = Adopted {
        marker: guest.uuid,
        user: wish.user_id,
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
    let id = match servers::store::adopt(&mut tx, &adopted).await {
        Ok(Some(id)) => id,
        Ok(None) => {
            let message = format!("There is no such tariff, or no such image, for {} servers.", guest.kind);
            return Err(Error::field("tariffId", message));
        }
        Err(error) if is_in_use(&error) => return Err(Error::field("userId", "There is no such account.")),
        Err(error) => return Err(error.into()),
    };
    if let Some((address, other)) = addresses::store::adopt(&mut tx, host, guest.uuid, id, held).await?.first() {
        let message = format!(
            "The server {other} has the address {address} as well: delete one of the two guests, this one on its host."
        );
        return Err(Error::new(Code::Conflict, message));
    }
    store::forget(&mut tx, host, &[guest.uuid]).await?;
    let view = servers::service::view_on(&mut *tx, id).await?;
    tx.finish(core, id).await?;
    Ok(view)
}
