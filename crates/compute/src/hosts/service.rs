//! Business logic for hosts.

use std::collections::HashMap;
use std::sync::Arc;

use hypervisor::ssh::{self, SshShell};
use hypervisor::{Driver, GuestShell, HostInfo};
use kernel::core::Core;
use kernel::db::{self, is_foreign_key_violation, is_unique_violation};
use kernel::error::{Code, Error, Result};
use kernel::idempotency::{Once, OnceCheck};
use kernel::keyring::SealCounts;
use kernel::operations;
use kernel::secrets::SealedBy;
use secrecy::ExposeSecret;
use sqlx::PgConnection;

use super::kinds::KindName;
use super::known::PinnedKeys;
use super::model::{AddedHost, Host, HostCheck, HostNode, NewHost, UpdateHost};
use super::settings::HostSettings;
use super::store::{self, HostRow, SealedSecrets, StoredSettings};
use super::{Hosts, lane};
use crate::addresses;
use crate::ids::HostId;

/// The purpose that settings are sealed for.
const PURPOSE: &str = "host";
/// The purpose that management keys are sealed for.
const KEY_PURPOSE: &str = "management-key";

fn no_host() -> Error {
    Error::not_found("host")
}

fn name_taken() -> Error {
    Error::new(Code::AlreadyExists, "A host with this name already exists.")
}

/// The driver of a host, enabled or not. A change of the host's settings takes effect with the next call, in every
/// process.
pub(super) async fn driver(hosts: &Hosts, host: HostId) -> Result<Arc<dyn Driver>> {
    let core = &hosts.core;
    let changed_at = store::changed_at(&core.db, host).await?.ok_or_else(no_host)?;
    if let Some(driver) = hosts.drivers.get(host, changed_at) {
        return Ok(driver);
    }
    let row = store::settings(&core.db, host).await?.ok_or_else(no_host)?;
    let settings = open(core, row.kind, &row.config_sealed)?;
    let driver = settings.connect(shell(hosts, host, &settings, &row)?)?;
    hosts.drivers.put(host, row.updated_at, Arc::clone(&driver));
    Ok(driver)
}

/// Access to guests over SSH, for what the host's own API can't do.
fn shell(
    hosts: &Hosts,
    host: HostId,
    settings: &HostSettings,
    row: &StoredSettings,
) -> Result<Option<Arc<dyn GuestShell>>> {
    let (Some(ways), Some(sealed)) = (settings.ways(), &row.management_key_sealed) else {
        return Ok(None);
    };
    let core = &hosts.core;
    let key = String::from_utf8(core.sealer.open(KEY_PURPOSE, sealed)?).map_err(Error::internal)?;
    let known = PinnedKeys { db: core.db.clone(), guests: Arc::clone(&hosts.guest_keys), host };
    // We generated the key: if it is invalid, the host is not to blame.
    let shell = SshShell::new(&key.into(), ways, Arc::new(known)).map_err(Error::internal)?;
    Ok(Some(Arc::new(shell)))
}

/// The public key that new guests of the host accept beside their owner's; `None` if we don't log in to guests.
pub async fn guest_key(core: &Core, host: HostId) -> Result<Option<String>> {
    let row = store::settings(&core.db, host).await?.ok_or_else(no_host)?;
    let wanted = open(core, row.kind, &row.config_sealed)?.ways().is_some_and(|ways| ways.guests.is_some());
    Ok(row.management_key.filter(|_| wanted))
}

fn seal(core: &Core, settings: &HostSettings) -> Result<Vec<u8>> {
    core.sealer.seal(PURPOSE, &settings.to_stored()?)
}

fn open(core: &Core, kind: KindName, sealed: &[u8]) -> Result<HostSettings> {
    HostSettings::from_stored(kind, &core.sealer.open(PURPOSE, sealed)?)
}

/// The same; `None` if the key that sealed them is lost, or if only a newer version can read them.
fn known(core: &Core, kind: KindName, sealed: &[u8]) -> Option<HostSettings> {
    open(core, kind, sealed).ok()
}

/// Reseals settings and management keys that were sealed with an old key, using the master key.
pub async fn reseal(core: &Core, change: bool) -> Result<SealCounts> {
    let mut count = SealCounts::default();
    for row in store::secrets(&core.db).await? {
        let config = core.sealer.sealed_by(PURPOSE, &row.config_sealed)?;
        let key =
            row.management_key_sealed.as_ref().map(|sealed| core.sealer.sealed_by(KEY_PURPOSE, sealed)).transpose()?;
        let new =
            |by: &SealedBy, before: &[u8]| if let SealedBy::Old(new) = by { new.clone() } else { before.to_vec() };
        let after = SealedSecrets {
            id: row.id,
            config_sealed: new(&config, &row.config_sealed),
            management_key_sealed: key.as_ref().zip(row.management_key_sealed.as_ref()).map(|(by, old)| new(by, old)),
        };
        let old = std::iter::once(&config).chain(&key).any(|by| matches!(by, SealedBy::Old(_)));
        let done = old && change && store::replace_secrets(&core.db, &row, &after).await?;
        count.add(&config, done);
        if let Some(key) = &key {
            count.add(key, done);
        }
    }
    Ok(count)
}

/// A host's error for the provider, with the host's own message, which says what to do about it.
pub fn for_provider(host: &str, error: hypervisor::Error) -> Error {
    let message = format!("The host {host} can't be used: {error}.");
    Error { message, ..error.into() }
}

/// All hosts.
pub async fn all(core: &Core) -> Result<Vec<Host>> {
    let rows = store::hosts(&core.db).await?;
    let ids: Vec<i64> = rows.iter().map(|r| r.id.0).collect();
    let mut nodes: HashMap<HostId, Vec<HostNode>> = HashMap::new();
    for (host, node) in store::nodes(&core.db, &ids).await? {
        nodes.entry(host).or_default().push(node);
    }
    Ok(rows.into_iter().map(|row| shown(core, row, &mut nodes)).collect())
}

/// One host.
pub async fn find(core: &Core, id: HostId) -> Result<Host> {
    find_on(core, &mut *core.db.acquire().await?, id).await
}

async fn find_on(core: &Core, db: &mut PgConnection, id: HostId) -> Result<Host> {
    let row = store::host(&mut *db, id).await?.ok_or_else(no_host)?;
    let nodes = store::nodes(db, &[id.0]).await?.into_iter().map(|(_, node)| node).collect();
    Ok(shown(core, row, &mut HashMap::from([(id, nodes)])))
}

fn shown(core: &Core, row: HostRow, nodes: &mut HashMap<HostId, Vec<HostNode>>) -> Host {
    Host {
        config: known(core, row.kind, &row.config_sealed).map(HostSettings::shown),
        management_key: row.management_key,
        nodes: nodes.remove(&row.id).unwrap_or_default(),
        id: row.id,
        name: row.name,
        kind: row.kind,
        enabled: row.enabled,
        cpu_overcommit: row.cpu_overcommit,
        memory_overcommit: row.memory_overcommit,
        disk_overcommit: row.disk_overcommit,
        seen_at: row.seen_at,
        last_error: row.last_error,
        created_at: row.created_at,
        updated_at: row.updated_at,
    }
}

/// Adds a host after checking it. One that can't be reached, or that could take no guest, is refused with the reason
/// unless `force` is set.
pub async fn add(core: &Core, once: &Once, new: NewHost) -> Result<AddedHost> {
    let name = new.name.trim();
    let (kind, config, force) = (new.kind, new.config, new.force);
    let tried = async {
        let mut settings = HostSettings::read(kind, config)?;
        settings.complete(None)?;
        let (looked, failure) = preflight_or_forced(name, preflight(name, &settings).await, force)?;
        let same = duplicates(core, &store::hosts(&core.db).await?, None, &settings, looked.as_ref());
        match same.first() {
            Some(other) if !force => Err(duplicate_error(&settings, other)),
            _ => Ok((settings, looked, failure, same)),
        }
    };
    let (settings, looked, failure, same) = match once.check(core, tried).await? {
        OnceCheck::New(tried) => tried,
        OnceCheck::Done(answer) => return Ok(answer),
    };
    let sealed = seal(core, &settings)?;
    once.run(core, async |tx| {
        let overcommit = [new.cpu_overcommit, new.memory_overcommit, new.disk_overcommit];
        let id =
            store::insert(&mut *tx, name, new.kind, &sealed, new.enabled, overcommit).await?.ok_or_else(name_taken)?;
        operations::service::add_lane(&mut *tx, &lane(id)).await?;
        if settings.ways().is_some() {
            make_management_key(core, tx, id).await?;
        }
        record(tx, id, looked.as_ref(), failure.as_deref()).await?;
        let mut problems = looked.map_or_else(|| failure.into_iter().collect(), |info| info.problems);
        problems.extend(same.iter().map(|other| duplicate_problem(&settings, other)));
        let host = find_on(core, tx, id).await?;
        Ok(AddedHost { host, problems })
    })
    .await
}

async fn make_management_key(core: &Core, tx: &mut PgConnection, id: HostId) -> Result<()> {
    let (private, public) = ssh::new_key()?;
    let sealed = core.sealer.seal(KEY_PURPOSE, private.expose_secret().as_bytes())?;
    Ok(store::set_management_key(tx, id, &sealed, &public).await?)
}

/// Changes only the fields that `update` has. New settings are tried first, as for a new host.
pub async fn update(core: &Core, id: HostId, update: UpdateHost) -> Result<Host> {
    let before = store::host(&core.db, id).await?.ok_or_else(no_host)?;
    let name = update.name.as_deref().map_or_else(|| before.name.clone(), |name| name.trim().to_owned());
    let mut change = None;
    if let Some(config) = update.config {
        let settings = HostSettings::read(before.kind, config)?;
        let mut tried = settings.clone();
        let old = known(core, before.kind, &before.config_sealed);
        tried.complete(old.as_ref())?;
        // Outside the transaction: a host may take long to respond.
        let looked = preflight_or_forced(&name, preflight(&name, &tried).await, update.force)?;
        let all = store::hosts(&core.db).await?;
        let known = match &old {
            Some(old) => duplicates(core, &all, Some(&before), old, None),
            None => vec![],
        };
        let same = duplicates(core, &all, Some(&before), &tried, looked.0.as_ref());
        if !update.force
            && let Some(other) = same.iter().find(|other| !known.contains(other))
        {
            return Err(duplicate_error(&tried, other));
        }
        change = Some((settings, looked));
    }
    let mut tx = db::begin(&core.db).await?;
    let mut row = store::lock(&mut tx, id).await?.ok_or_else(no_host)?;
    if let Some((settings, (looked, _))) = &mut change {
        let now = known(core, row.kind, &row.config_sealed);
        // The secrets as stored now: others may have been stored while the host was checked.
        settings.complete(now.as_ref())?;
        let moved = match &now {
            Some(now) => settings.moved(now),
            // Its address is lost with the key, but its reported identity is not.
            None => !looked.as_ref().is_some_and(|info| row.identity.iter().any(|own| info.identity.contains(own))),
        };
        let (live, _, _) = store::contents(&mut *tx, id).await?;
        if moved && live > 0 && !update.force {
            return Err(Error::new(
                Code::Conflict,
                format!(
                    "This host has servers ({live}). They may no longer be found at another address: check that it is \
                     the same host and project, then repeat with \"force\": true."
                ),
            ));
        }
        row.config_sealed = seal(core, settings)?;
        if let Some(sealed) = store::settings(&mut *tx, id).await?.and_then(|row| row.management_key_sealed)
            && core.sealer.sealed_by(KEY_PURPOSE, &sealed)? == SealedBy::Unknown
        {
            make_management_key(core, &mut tx, id).await?;
        }
    }
    row.name = update.name.map_or(row.name, |name| name.trim().to_owned());
    row.enabled = update.enabled.unwrap_or(row.enabled);
    row.cpu_overcommit = update.cpu_overcommit.unwrap_or(row.cpu_overcommit);
    row.memory_overcommit = update.memory_overcommit.unwrap_or(row.memory_overcommit);
    row.disk_overcommit = update.disk_overcommit.unwrap_or(row.disk_overcommit);
    store::update(&mut *tx, &row).await.map_err(|e| if is_unique_violation(&e) { name_taken() } else { e.into() })?;
    if let Some((_, (info, failure))) = change {
        record(&mut tx, id, info.as_ref(), failure.as_deref()).await?;
    }
    let host = find_on(core, &mut tx, id).await?;
    tx.commit().await?;
    Ok(host)
}

/// Deletes a host that has no servers and no address pools.
pub async fn delete(hosts: &Hosts, id: HostId) -> Result<()> {
    let core = &hosts.core;
    let mut tx = db::begin(&core.db).await?;
    match store::delete(&mut *tx, id).await {
        Ok(true) => {
            operations::service::remove_lane(&mut *tx, &lane(id)).await?;
            tx.commit().await?;
            hosts.drivers.forget(id);
            Ok(())
        }
        Ok(false) => Err(no_host()),
        Err(error) if is_foreign_key_violation(&error) => {
            let message = match store::contents(&core.db, id).await? {
                (0, 0, pools) => format!("The host has address pools ({pools}): delete them first."),
                (0, ..) => "The history of deleted servers needs this host: disable it instead.".into(),
                (live, ..) => format!("This host has servers ({live}): delete them first, or disable the host."),
            };
            Err(Error::new(Code::Conflict, message))
        }
        Err(error) => Err(error.into()),
    }
}

/// Checks a host now, and records the results.
pub async fn check(hosts: &Hosts, once: &Once, id: HostId) -> Result<HostCheck> {
    let core = &hosts.core;
    let looked = async {
        let row = store::host(&core.db, id).await?.ok_or_else(no_host)?;
        let mut info = match driver(hosts, id).await?.info().await {
            Ok(info) => info,
            Err(error) => {
                store::record_failure(&core.db, id, &error.to_string()).await?;
                return Err(for_provider(&row.name, error));
            }
        };
        let settings = open(core, row.kind, &row.config_sealed)?;
        let same = duplicates(core, &store::hosts(&core.db).await?, Some(&row), &settings, Some(&info));
        info.problems.extend(same.iter().map(|other| duplicate_problem(&settings, other)));
        info.problems.extend(addresses::service::problems(&hosts.addresses, id).await?);
        for others in &hosts.problems {
            info.problems.extend(others.problems(hosts, id, &info.nodes).await);
        }
        Ok(info)
    };
    let info = match once.check(core, looked).await? {
        OnceCheck::New(info) => info,
        OnceCheck::Done(answer) => return Ok(answer),
    };
    once.run(core, async |tx| {
        record(tx, id, Some(&info), None).await?;
        Ok(info.into())
    })
    .await
}

/// The names of the hosts among `all` that are the same as one with these settings, except `own`, its own row: by the
/// identity that the host reported, now or at an earlier check, or by its address.
fn duplicates(
    core: &Core,
    all: &[HostRow],
    own: Option<&HostRow>,
    settings: &HostSettings,
    looked: Option<&HostInfo>,
) -> Vec<String> {
    let identity = match looked {
        Some(info) => info.identity.as_slice(),
        None => own.map_or(&[][..], |row| row.identity.as_slice()),
    };
    let others = all.iter().filter(|row| row.kind == settings.kind() && own.is_none_or(|own| own.id != row.id));
    let mut names = Vec::new();
    for row in others {
        let known = row.identity.iter().any(|fingerprint| identity.contains(fingerprint));
        if known || self::known(core, row.kind, &row.config_sealed).is_some_and(|other| other.meets(settings)) {
            names.push(row.name.clone());
        }
    }
    names
}

/// The problem with a host that is already added under another name.
fn duplicate_problem(settings: &HostSettings, other: &str) -> String {
    let what = settings.noun();
    format!("The host {other} is the same {what}: its capacity would be counted, and sold, twice.")
}

fn duplicate_error(settings: &HostSettings, other: &str) -> Error {
    let message = duplicate_problem(settings, other);
    Error::new(Code::Conflict, format!("{message} Use that host, or repeat with \"force\": true (--force)."))
}

async fn preflight(name: &str, settings: &HostSettings) -> Result<HostInfo> {
    let driver = settings.connect(None).map_err(|e| for_provider(name, e))?;
    driver.info().await.map_err(|error| {
        let hint = settings.hint(&error);
        let error = for_provider(name, error);
        match hint {
            Some(hint) => Error { message: format!("{} {hint}", error.message), ..error },
            None => error,
        }
    })
}

/// The result of a check or, if `force` allows it, the reason why there is none.
fn preflight_or_forced(
    name: &str,
    looked: Result<HostInfo>,
    force: bool,
) -> Result<(Option<HostInfo>, Option<String>)> {
    match looked {
        Ok(info) if force || info.nodes.iter().any(|n| n.disk_gib > 0) => Ok((Some(info), None)),
        Ok(info) => {
            let problems = match info.problems.as_slice() {
                [] => "It has no node with capacity for guests.".to_owned(),
                problems => problems.join(" "),
            };
            Err(Error::field("config", format!("The host {name} can't take any guests. {problems}")))
        }
        Err(error) if force => Ok((None, Some(error.message))),
        Err(error) => Err(error),
    }
}

async fn record(tx: &mut PgConnection, id: HostId, looked: Option<&HostInfo>, failure: Option<&str>) -> Result<()> {
    if let Some(info) = looked {
        store::record_sweep(&mut *tx, id, &info.nodes).await?;
        store::record_identity(&mut *tx, id, &info.identity).await?;
    }
    if let Some(failure) = failure {
        store::record_failure(&mut *tx, id, failure).await?;
    }
    Ok(())
}
