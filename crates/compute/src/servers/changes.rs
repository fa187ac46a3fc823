//! Business logic for changing a server's name, labels and protection, and for reinstalling it.

use std::net::IpAddr;

use kernel::core::Core;
use kernel::db;
use kernel::error::{Code, Error, Result};
use kernel::http::text;
use kernel::idempotency::{Once, OnceCheck};
use kernel::secrets;
use secrecy::ExposeSecret;

use super::actions::ServerAction;
use super::model::{ReinstallServer, ServerState, ServerView, UpdateServer};
use super::service::{self, Accepted, StoredRequest};
use super::workflows::{create, reinstall};
use super::{ServerAccess, Servers, store};
use crate::addresses;
use crate::addresses::model::NamedAddress;
use crate::hosts::Hosts;
use crate::ssh_keys;

/// Renames, labels and protects a server. The host is not involved.
pub async fn update(servers: &Servers, access: &ServerAccess, update: UpdateServer) -> Result<ServerView> {
    let mut tx = db::begin(&servers.hosts.core.db).await?;
    let server = service::lock(&mut tx, access).await?;
    store::update(&mut tx, server.id, update.name.as_deref(), update.labels.as_ref(), update.deletion_protection)
        .await?;
    let view = service::view(servers, &access.caller, &mut tx, server.id).await?;
    tx.commit().await?;
    Ok(view)
}

/// Lists a server's addresses and their reverse DNS names.
pub async fn addresses(core: &Core, access: &ServerAccess) -> Result<Vec<NamedAddress>> {
    addresses::store::reverse_dns_of(&core.db, access.thing.id).await
}

/// Sets the reverse DNS name of one of a server's addresses, or clears it.
pub async fn name_address(
    hosts: &Hosts,
    access: &ServerAccess,
    address: IpAddr,
    name: Option<&str>,
) -> Result<Vec<NamedAddress>> {
    let mut tx = db::begin(&hosts.core.db).await?;
    let server = service::lock(&mut tx, access).await?;
    if let Some(name) = name.filter(|_| !access.caller.is_provider()) {
        addresses::reverse::check(&hosts.addresses, &mut tx, server.account_id, name).await?;
    }
    if !addresses::store::set_reverse_dns(&mut tx, server.id, address, name).await? {
        return Err(Error::not_found("address"));
    }
    let names = addresses::store::reverse_dns_of(&mut *tx, server.id).await?;
    tx.commit().await?;
    Ok(names)
}

/// Enqueues a reinstallation: the server is recreated on the same node with the same addresses.
pub async fn reinstall(hosts: &Hosts, once: &Once, access: &ServerAccess, wish: ReinstallServer) -> Result<Accepted> {
    let (core, action) = (&hosts.core, ServerAction::Reinstall);
    if let OnceCheck::Done(stored) = once.check(core, service::check_removal(hosts, access, action)).await? {
        return service::wait_for_task(core, once, stored).await;
    }
    let accepted = once.run(core, async |tx| {
        let server = service::lock(tx, access).await?;
        action.check(&access.caller, &server)?;
        let kind = store::image_kind(tx, wish.os_id).await?;
        if kind.as_deref() != Some(&*server.kind) {
            return Err(Error::field("osId", format!("No such image is available for {} servers.", server.kind)));
        }
        if store::source_on(tx, wish.os_id, server.host_id).await?.is_none() {
            return Err(Error::field("osId", "This server's host does not have this image."));
        }
        let keys = match (&wish.ssh_keys, &wish.ssh_key_ids) {
            (None, None) => server.ssh_keys.clone(),
            (keys, ids) => {
                let (keys, ids) = (keys.as_deref().unwrap_or_default(), ids.as_deref().unwrap_or_default());
                ssh_keys::service::together(tx, server.account_id, keys, ids).await?
            }
        };
        recheck_stored_values(&server.name, &keys)?;
        let password = secrets::readable_password();
        let sealed = core.sealer.seal_text(create::PASSWORD, &password)?;
        let up = store::wanted_up(tx, server.id).await?;
        let data = reinstall::Data::new(sealed, wish.os_id, keys, up);
        let id = service::enqueue(
            core,
            tx,
            &server,
            access.caller.user,
            reinstall::KIND,
            Some(ServerState::Reinstalling),
            data,
        )
        .await?;
        Ok(StoredRequest::new(id, Some(password.expose_secret())))
    });
    service::wait_for_task(core, once, accepted.await?).await
}

/// Older versions accepted names and keys that no guest accepts: this has to fail before the old guest is gone.
fn recheck_stored_values(name: &str, keys: &[String]) -> Result<()> {
    if let Err(problem) = text::hostname(name, &()) {
        return Err(Error::new(Code::Conflict, format!("This server's name {problem}. Rename it first.")));
    }
    for key in keys {
        text::ssh_key(key, &()).map_err(|problem| {
            let kept: String = key.chars().filter(|c| !c.is_control()).take(40).collect();
            Error::field("sshKeys", format!("The key {kept}… {problem}. Specify other keys instead."))
        })?;
    }
    Ok(())
}
