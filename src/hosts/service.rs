//! The rules of hosts.

use std::collections::HashMap;
use std::sync::Arc;

use hypervisor::ssh::{self, SshShell};
use hypervisor::{Driver, GuestShell, HostInfo};
use secrecy::ExposeSecret;
use sqlx::PgConnection;

use super::kinds::KindName;
use super::known::Known;
use super::model::{AddedHost, Host, HostCheck, HostNode, NewHost, UpdateHost};
use super::settings::HostSettings;
use super::store::{self, HostRow, Secrets, Settings};
use crate::app::App;
use crate::db::{self, is_in_use, is_taken};
use crate::error::{Code, Error, Result};
use crate::idempotency::{Begun, Checked, Once};
use crate::ids::HostId;
use crate::keyring::Resealed;
use crate::secrets::SealedBy;
use crate::{addresses, images};

/// What settings are sealed for.
const PURPOSE: &str = "host";
/// What management keys are sealed for.
const KEY_PURPOSE: &str = "management-key";

fn no_host() -> Error {
    Error::not_found("host")
}

fn name_taken() -> Error {
    Error::new(Code::AlreadyExists, "There is a host with this name already.")
}

/// The driver of a host, enabled or not. A change of the host's settings takes effect with the next call, in every
/// process.
pub async fn driver(app: &App, host: HostId) -> Result<Arc<dyn Driver>> {
    let changed_at = store::changed_at(&app.db, host).await?.ok_or_else(no_host)?;
    if let Some(driver) = app.drivers.get(host, changed_at) {
        return Ok(driver);
    }
    let row = store::settings(&app.db, host).await?.ok_or_else(no_host)?;
    let settings = open(app, row.kind, &row.config_sealed)?;
    let driver = settings.connect(shell(app, host, &settings, &row)?)?;
    app.drivers.put(host, row.updated_at, Arc::clone(&driver));
    Ok(driver)
}

/// The way into guests that the host's own API has none into.
fn shell(app: &App, host: HostId, settings: &HostSettings, row: &Settings) -> Result<Option<Arc<dyn GuestShell>>> {
    let (Some(ways), Some(sealed)) = (settings.ways(), &row.management_key_sealed) else {
        return Ok(None);
    };
    let key = String::from_utf8(app.sealer.open(KEY_PURPOSE, sealed)?).map_err(Error::internal)?;
    let known = Known { db: app.db.clone(), host };
    // We made the key: that it is none is not the host's fault.
    let shell = SshShell::new(&key.into(), ways, Arc::new(known)).map_err(Error::internal)?;
    Ok(Some(Arc::new(shell)))
}

/// The public key that new guests of the host let in beside their owner's; none where we don't sign in.
pub async fn guest_key(app: &App, host: HostId) -> Result<Option<String>> {
    let row = store::settings(&app.db, host).await?.ok_or_else(no_host)?;
    let wanted = open(app, row.kind, &row.config_sealed)?.ways().is_some_and(|ways| ways.guests.is_some());
    Ok(row.management_key.filter(|_| wanted))
}

fn seal(app: &App, settings: &HostSettings) -> Result<Vec<u8>> {
    app.sealer.seal(PURPOSE, &settings.to_stored()?)
}

fn open(app: &App, kind: KindName, sealed: &[u8]) -> Result<HostSettings> {
    HostSettings::from_stored(kind, &app.sealer.open(PURPOSE, sealed)?)
}

/// The same; none where the key that sealed them is lost, or only a newer version can read them.
fn known(app: &App, kind: KindName, sealed: &[u8]) -> Option<HostSettings> {
    open(app, kind, sealed).ok()
}

/// Seals settings and management keys that an old key sealed with the master key.
pub async fn reseal(app: &App, change: bool) -> Result<Resealed> {
    let mut count = Resealed::default();
    for row in store::secrets(&app.db).await? {
        let config = app.sealer.sealed_by(PURPOSE, &row.config_sealed)?;
        let key =
            row.management_key_sealed.as_ref().map(|sealed| app.sealer.sealed_by(KEY_PURPOSE, sealed)).transpose()?;
        let new =
            |by: &SealedBy, before: &[u8]| if let SealedBy::Old(new) = by { new.clone() } else { before.to_vec() };
        let after = Secrets {
            id: row.id,
            config_sealed: new(&config, &row.config_sealed),
            management_key_sealed: key.as_ref().zip(row.management_key_sealed.as_ref()).map(|(by, old)| new(by, old)),
        };
        let old = std::iter::once(&config).chain(&key).any(|by| matches!(by, SealedBy::Old(_)));
        let done = old && change && store::replace_secrets(&app.db, &row, &after).await?;
        count.add(&config, done);
        if let Some(key) = &key {
            count.add(key, done);
        }
    }
    Ok(count)
}

/// A host's error for the provider, with the host's own words, which say what to do about it.
pub fn for_provider(host: &str, error: hypervisor::Error) -> Error {
    let message = format!("The host {host} can't be used: {error}.");
    Error { message, ..error.into() }
}

/// All hosts.
pub async fn all(app: &App) -> Result<Vec<Host>> {
    let rows = store::hosts(&app.db).await?;
    let ids: Vec<i64> = rows.iter().map(|r| r.id.0).collect();
    let mut nodes: HashMap<HostId, Vec<HostNode>> = HashMap::new();
    for (host, node) in store::nodes(&app.db, &ids).await? {
        nodes.entry(host).or_default().push(node);
    }
    Ok(rows.into_iter().map(|row| shown(app, row, &mut nodes)).collect())
}

/// One host.
pub async fn find(app: &App, id: HostId) -> Result<Host> {
    find_on(app, &mut *app.db.acquire().await?, id).await
}

async fn find_on(app: &App, db: &mut PgConnection, id: HostId) -> Result<Host> {
    let row = store::host(&mut *db, id).await?.ok_or_else(no_host)?;
    let nodes = store::nodes(db, &[id.0]).await?.into_iter().map(|(_, node)| node).collect();
    Ok(shown(app, row, &mut HashMap::from([(id, nodes)])))
}

fn shown(app: &App, row: HostRow, nodes: &mut HashMap<HostId, Vec<HostNode>>) -> Host {
    Host {
        config: known(app, row.kind, &row.config_sealed).map(HostSettings::shown),
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

/// Adds a host after a look at it. One that can't be reached or that could take no guest is refused in words, unless
/// `force` says to save it all the same.
pub async fn add(app: &App, once: &Once, new: NewHost) -> Result<AddedHost> {
    let name = new.name.trim();
    let (kind, config, force) = (new.kind, new.config, new.force);
    let tried = async {
        let mut settings = HostSettings::read(kind, config)?;
        settings.complete(None)?;
        let (looked, failure) = accepted(name, preflight(name, &settings).await, force)?;
        let same = twins(app, &store::hosts(&app.db).await?, None, &settings, looked.as_ref());
        match same.first() {
            Some(other) if !force => Err(twice_refused(&settings, other)),
            _ => Ok((settings, looked, failure, same)),
        }
    };
    let (settings, looked, failure, same) = match once.check(app, tried).await? {
        Checked::New(tried) => tried,
        Checked::Done(answer) => return Ok(answer),
    };
    let sealed = seal(app, &settings)?;
    let mut tx = match once.begin(app).await? {
        Begun::New(tx) => tx,
        Begun::Done(answer) => return Ok(answer),
    };
    let overcommit = [new.cpu_overcommit, new.memory_overcommit, new.disk_overcommit];
    let id = store::insert(&mut *tx, name, new.kind, &sealed, new.enabled, overcommit).await?.ok_or_else(name_taken)?;
    if settings.ways().is_some() {
        make_management_key(app, &mut tx, id).await?;
    }
    record(&mut tx, id, looked.as_ref(), failure.as_deref()).await?;
    let mut problems = looked.map_or_else(|| failure.into_iter().collect(), |info| info.problems);
    problems.extend(same.iter().map(|other| twice(&settings, other)));
    let host = find_on(app, &mut tx, id).await?;
    tx.finish(app, AddedHost { host, problems }).await
}

async fn make_management_key(app: &App, tx: &mut PgConnection, id: HostId) -> Result<()> {
    let (private, public) = ssh::new_key()?;
    let sealed = app.sealer.seal(KEY_PURPOSE, private.expose_secret().as_bytes())?;
    Ok(store::set_management_key(tx, id, &sealed, &public).await?)
}

/// Changes what `update` gives, and nothing else. New settings are tried first, as with a new host.
pub async fn update(app: &App, id: HostId, update: UpdateHost) -> Result<Host> {
    let before = store::host(&app.db, id).await?.ok_or_else(no_host)?;
    let name = update.name.as_deref().map_or_else(|| before.name.clone(), |name| name.trim().to_owned());
    let mut change = None;
    if let Some(config) = update.config {
        let settings = HostSettings::read(before.kind, config)?;
        let mut tried = settings.clone();
        let old = known(app, before.kind, &before.config_sealed);
        tried.complete(old.as_ref())?;
        // Outside the transaction: a host may take long to answer.
        let looked = accepted(&name, preflight(&name, &tried).await, update.force)?;
        let all = store::hosts(&app.db).await?;
        let known = match &old {
            Some(old) => twins(app, &all, Some(&before), old, None),
            None => vec![],
        };
        let same = twins(app, &all, Some(&before), &tried, looked.0.as_ref());
        if !update.force
            && let Some(other) = same.iter().find(|other| !known.contains(other))
        {
            return Err(twice_refused(&tried, other));
        }
        change = Some((settings, looked));
    }
    let mut tx = db::begin(&app.db).await?;
    let mut row = store::lock(&mut tx, id).await?.ok_or_else(no_host)?;
    if let Some((settings, (looked, _))) = &mut change {
        let now = known(app, row.kind, &row.config_sealed);
        // The secrets of this moment: others may have been stored while the host was looked at.
        settings.complete(now.as_ref())?;
        let moved = match &now {
            Some(now) => settings.moved(now),
            // Where it was is lost with the key; what it said of itself is not.
            None => !looked.as_ref().is_some_and(|info| row.identity.iter().any(|own| info.identity.contains(own))),
        };
        let (live, _, _) = store::contents(&mut *tx, id).await?;
        if moved && live > 0 && !update.force {
            return Err(Error::new(
                Code::Conflict,
                format!(
                    "Servers live on this host ({live}). In another place they may not be found any more: check that \
                     it is the same host and project, then repeat with \"force\": true."
                ),
            ));
        }
        row.config_sealed = seal(app, settings)?;
        if let Some(sealed) = store::settings(&mut *tx, id).await?.and_then(|row| row.management_key_sealed)
            && app.sealer.sealed_by(KEY_PURPOSE, &sealed)? == SealedBy::Unknown
        {
            make_management_key(app, &mut tx, id).await?;
        }
    }
    row.name = update.name.map_or(row.name, |name| name.trim().to_owned());
    row.enabled = update.enabled.unwrap_or(row.enabled);
    row.cpu_overcommit = update.cpu_overcommit.unwrap_or(row.cpu_overcommit);
    row.memory_overcommit = update.memory_overcommit.unwrap_or(row.memory_overcommit);
    row.disk_overcommit = update.disk_overcommit.unwrap_or(row.disk_overcommit);
    store::update(&mut *tx, &row).await.map_err(|e| if is_taken(&e) { name_taken() } else { e.into() })?;
    if let Some((_, (info, failure))) = change {
        record(&mut tx, id, info.as_ref(), failure.as_deref()).await?;
    }
    let host = find_on(app, &mut tx, id).await?;
    tx.commit().await?;
    Ok(host)
}

/// Deletes a host that has no servers and no address pools.
pub async fn delete(app: &App, id: HostId) -> Result<()> {
    let mut tx = db::begin(&app.db).await?;
    match store::delete(&mut *tx, id).await {
        Ok(true) => {
            tx.commit().await?;
            app.drivers.forget(id);
            Ok(())
        }
        Ok(false) => Err(no_host()),
        Err(error) if is_in_use(&error) => {
            let message = match store::contents(&app.db, id).await? {
                (0, 0, pools) => format!("The host has address pools ({pools}): delete them first."),
                (0, ..) => "Deleted servers lived on this host and their history needs it: disable it instead.".into(),
                (live, ..) => format!("Servers live on this host ({live}): delete them first, or disable the host."),
            };
            Err(Error::new(Code::Conflict, message))
        }
        Err(error) => Err(error.into()),
    }
}

/// Looks at a host now, and notes what is there.
pub async fn check(app: &App, once: &Once, id: HostId) -> Result<HostCheck> {
    let looked = async {
        let row = store::host(&app.db, id).await?.ok_or_else(no_host)?;
        let mut info = match driver(app, id).await?.info().await {
            Ok(info) => info,
            Err(error) => {
                store::record_failure(&app.db, id, &error.to_string()).await?;
                return Err(for_provider(&row.name, error));
            }
        };
        let settings = open(app, row.kind, &row.config_sealed)?;
        let same = twins(app, &store::hosts(&app.db).await?, Some(&row), &settings, Some(&info));
        info.problems.extend(same.iter().map(|other| twice(&settings, other)));
        info.problems.extend(addresses::service::problems(app, id).await?);
        match images::service::missing(app, id, &info.nodes).await {
            Ok(problems) => info.problems.extend(problems),
            Err(error) => info.problems.push(format!("On which machines its images are can't be told: {error}")),
        }
        Ok(info)
    };
    let info = match once.check(app, looked).await? {
        Checked::New(info) => info,
        Checked::Done(answer) => return Ok(answer),
    };
    let mut tx = match once.begin(app).await? {
        Begun::New(tx) => tx,
        Begun::Done(answer) => return Ok(answer),
    };
    record(&mut tx, id, Some(&info), None).await?;
    tx.finish(app, info.into()).await
}

/// The names of the hosts among `all` that are the same as one with these settings, but for `own`, its own row: by what
/// the host told of itself, now or at an earlier look, or by its address.
fn twins(
    app: &App,
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
        if known || self::known(app, row.kind, &row.config_sealed).is_some_and(|other| other.meets(settings)) {
            names.push(row.name.clone());
        }
    }
    names
}

/// What is wrong with a host that is another one already.
fn twice(settings: &HostSettings, other: &str) -> String {
    let what = settings.noun();
    format!("This is the {what} that the host {other} is too: what it has is counted, and sold, twice.")
}

fn twice_refused(settings: &HostSettings, other: &str) -> Error {
    let message = twice(settings, other);
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

/// What a look found, or, where `force` lets that pass, why it found nothing.
fn accepted(name: &str, looked: Result<HostInfo>, force: bool) -> Result<(Option<HostInfo>, Option<String>)> {
    match looked {
        Ok(info) if force || info.nodes.iter().any(|n| n.disk_gib > 0) => Ok((Some(info), None)),
        Ok(info) => {
            let problems = match info.problems.as_slice() {
                [] => "It has no machine with room for guests.".to_owned(),
                problems => problems.join(" "),
            };
            Err(Error::field("config", format!("The host {name} could take no guest. {problems}")))
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
