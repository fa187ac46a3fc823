//! Orders: placement, addresses and operation in one transaction.

use chrono::{DateTime, Utc};
use hypervisor::GuestKind;
use kernel::auth::{Caller, account_suspended};
use kernel::error::{Code, Error, Result};
use kernel::idempotency::Once;
use kernel::operations::NewOperation;
use kernel::{secrets, stored};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::model::CreateServer;
use super::store::{NewServer, ServerQuota};
use super::workflows::create;
use super::{Servers, placement, rules, store, subject};
use crate::ids::ServerId;
use crate::{addresses, hosts, ssh_keys, tariffs};

/// An accepted order, stored under the names that the API has for it.
#[derive(Debug, Serialize, Deserialize)]
pub struct OrderedServer {
    /// The new server's id.
    pub id: ServerId,
    /// The guest's number.
    #[serde(rename = "proxmoxId")]
    pub number: i64,
    /// Root's password.
    #[serde(rename = "rootPassword")]
    pub password: String,
    /// The operation that creates the server.
    #[serde(rename = "operationId")]
    pub operation: Uuid,
}

/// Accepts an order: placement, addresses and operation in one transaction, so that either all of it exists or nothing.
pub async fn order(servers: &Servers, once: &Once, caller: &Caller, order: CreateServer) -> Result<OrderedServer> {
    let core = &servers.hosts.core;
    let account = caller.account;
    let password = secrets::readable_password();
    let _turn = servers.placing.turn().await?;
    once.run(core, async |tx| {
        let offer = store::offer(tx, order.tariff_id)
            .await?
            .ok_or_else(|| Error::field("tariffId", "No such tariff is available."))?;
        let kind = store::image_kind(tx, order.os_id)
            .await?
            .ok_or_else(|| Error::field("osId", "No such image is available."))?;
        GuestKind::try_from(stored::parse_known(&offer.kind).unwrap_or(tariffs::ServerKind::Unknown))?;
        if kind != offer.kind {
            return Err(Error::field(
                "osId",
                format!("This image is for {kind} servers; the tariff is for {}.", offer.kind),
            ));
        }
        let ssh_keys = ssh_keys::service::together(tx, account, &order.ssh_keys, &order.ssh_key_ids).await?;
        check_quotas(&store::lock_quotas(tx, account).await?)?;
        placement::lock(tx).await?;
        if !placement::is_image_available(tx, order.os_id).await? {
            return Err(Error::field("osId", "No host has this image at the moment."));
        }
        let candidates =
            placement::candidates(tx, order.os_id, &offer, servers.settings.storage_margin_percent).await?;
        let Some(first) = candidates.first() else {
            if placement::awaits_sweep(tx).await? {
                return Err(Error::new(
                    Code::ResourceUnavailable,
                    "The provider's database was restored, and hosts are being checked before new servers are created; \
                     try again in a minute.",
                ));
            }
            return Err(Error::new(
                Code::ResourceUnavailable,
                "No host has the capacity for this tariff at the moment; choose a smaller one or try again later.",
            ));
        };
        let new = NewServer {
            account,
            tariff: order.tariff_id,
            image: order.os_id,
            host: first.host,
            node: &first.node,
            name: order.name.as_deref(),
            offer: &offer,
            ssh_keys: &ssh_keys,
            labels: &order.labels,
        };
        let (id, number) = store::insert(tx, &new).await?;
        let rest = servers.hosts.addresses.settings.rest();
        let Some(host) = placement::place_with_addresses(tx, id, &candidates, rest).await? else {
            let hosts: Vec<i64> = candidates.iter().map(|candidate| candidate.host.0).collect();
            return Err(no_address(addresses::store::next_rested_at(tx, &hosts, rest).await?));
        };
        let data = create::Data::new(core.sealer.seal_text(create::PASSWORD, &password)?);
        let deadline = rules::seconds(servers.settings.create_deadline_seconds);
        let operation = NewOperation {
            kind: create::KIND,
            subject: subject::subject(id),
            lane: hosts::lane(host),
            account: Some(account),
            data,
            user: Some(caller.user),
            deadline,
        };
        let operation = core.engine.enqueue(tx, operation).await?;
        Ok(OrderedServer { id, number, password: password.expose_secret().to_owned(), operation })
    })
    .await
}

/// Refuses an order of a suspended account, or of one that has as many servers as it or its reseller may have.
fn check_quotas(quotas: &[ServerQuota]) -> Result<()> {
    for ServerQuota { of_reseller, limit, count, suspend_reason, is_deleted, is_locked } in quotas {
        if !is_locked {
            return Err(Error::new(
                Code::Conflict,
                "Your account has just become another reseller's customer; try again.",
            ));
        }
        if *is_deleted {
            return Err(Error::not_found("account"));
        }
        if let Some(reason) = suspend_reason {
            return Err(account_suspended(reason));
        }
        let Some(limit) = limit.filter(|limit| *count >= i64::from(*limit)) else { continue };
        let message = match of_reseller {
            false => {
                format!("Your account has {count} of at most {limit} servers; delete one or ask for a higher limit.")
            }
            true => "Your reseller has reached its limit of servers; ask it for a higher one.".to_owned(),
        };
        return Err(Error::new(Code::ResourceUnavailable, message));
    }
    Ok(())
}

/// The error for a new server without a free address on any host; `rested_at`: when the next resting one becomes
/// available.
fn no_address(rested_at: Option<DateTime<Utc>>) -> Error {
    let message = match rested_at {
        Some(at) => format!(
            "There is no free address at the moment: addresses that others released are not reused at once; the \
             next one becomes available at {}. Try again then, or ask the provider.",
            at.format("%Y-%m-%d %H:%M UTC")
        ),
        None => "There is no free address at the moment; try again later or ask the provider.".to_owned(),
    };
    Error::new(Code::ResourceUnavailable, message)
}
