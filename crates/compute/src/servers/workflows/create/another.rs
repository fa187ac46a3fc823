//! Alternatives for a new server if its host uses something for another guest, or lacks it: another number, address or
//! node.

use hypervisor::Presence;
use kernel::error::Code;
use kernel::operations::{Context, Fault, FaultKind, Outcome};

use super::Data;
use crate::hosts::{self, Hosts};
use crate::servers::placement::{self, Candidate};
use crate::servers::store;
use crate::servers::subject::server_of;
use crate::servers::workflows::guest::Guest;
use crate::{addresses, images};

/// How many numbers in a row may be taken on the host.
const NUMBERS: u32 = 50;
/// How many addresses in a row may be in use on the host.
const ADDRESSES: u32 = 50;

/// Takes the next number if another guest has this one; nothing of ours is under it then.
pub(super) async fn use_next_number(
    ctx: &Context<'_>,
    guest: &Guest,
    data: &mut Data,
    fault: Fault,
) -> Result<Outcome, Fault> {
    match guest.driver.find(&guest.at).await {
        Ok(Presence::Absent) | Err(hypervisor::Error::NotOurs(_)) => {}
        // It is ours after all: the host's next answer shows its state.
        Ok(Presence::Present { .. }) => {
            data.heard = true;
            return Err(fault.with_kind(FaultKind::Retry));
        }
        Err(error) => return Err(error.into()),
    }
    data.taken += 1;
    if data.taken > NUMBERS {
        return Err(fault);
    }
    let mut tx = ctx.begin().await?;
    store::renumber(&mut tx, server_of(ctx)?).await?;
    tx.commit().await?;
    (data.heard, data.intent) = (false, None);
    Ok(Outcome::Again)
}

/// Takes the next address if something else on the host has this one, which is reserved from now on: whatever becomes
/// of this order, the next one must not run into the same address. An existing guest is to be prepared again.
pub(super) async fn use_next_address(
    hosts: &Hosts,
    ctx: &Context<'_>,
    guest: &Guest,
    data: &mut Data,
    error: hypervisor::Error,
) -> Result<Outcome, Fault> {
    let hypervisor::Error::AddressInUse(address, text) = &error else { return Err(error.into()) };
    let reason = format!("reported by the host as in use when a server was to get it: {text}");
    let mut tx = ctx.begin().await?;
    if addresses::store::reserve_conflicting(&mut tx, server_of(ctx)?, *address, &reason).await? {
        tracing::warn!(subject = %ctx.subject, %address, text, "an address is in use on the host; it is now reserved");
    }
    data.passed_over += 1;
    let rest = hosts.addresses.settings.rest();
    let found = data.passed_over <= ADDRESSES
        && addresses::store::take(&mut tx, guest.server.host_id, server_of(ctx)?, rest).await?;
    tx.commit().await?;
    if found {
        return Ok(Outcome::Again);
    }
    let message = "Every free address is in use by something else on the host; the provider has to check.";
    Err(Fault { message: message.to_owned(), code: Code::ResourceUnavailable, ..error.into() })
}

/// Moves to another node if this one can't create the guest; nothing of it is on this one then.
pub(super) async fn use_other_node(
    hosts: &Hosts,
    ctx: &Context<'_>,
    guest: &Guest,
    data: &mut Data,
    margin: u32,
    fault: Fault,
) -> Result<Outcome, Fault> {
    if guest.driver.find(&guest.at).await? != Presence::Absent {
        return Err(fault);
    }
    // So that the next order knows; if the check fails now, that order finds out as this one did.
    let image = store::image_of(&mut *ctx.core.db.acquire().await?, server_of(ctx)?).await?;
    if let Err(error) = images::service::recheck_sources(hosts, image, guest.server.host_id).await {
        tracing::warn!(%error, subject = %ctx.subject, "could not check which nodes have an image");
    }
    data.refused.push(Candidate { host: guest.server.host_id, node: guest.at.node.clone() });
    let mut tx = ctx.begin().await?;
    let rest = hosts.addresses.settings.rest();
    let Some(host) = placement::find_other_node(&mut tx, &guest.server, &data.refused, margin, rest).await? else {
        return Err(fault);
    };
    ctx.set_lane(&mut tx, &hosts::lane(host)).await?;
    tx.commit().await?;
    tracing::info!(
        subject = %ctx.subject, node = guest.at.node, detail = fault.detail,
        "a node can't create a server; trying the next"
    );
    (data.heard, data.intent) = (false, None);
    Ok(Outcome::Again)
}
