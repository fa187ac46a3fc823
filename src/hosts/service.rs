//! The rules of hosts.

use std::collections::HashMap;
use std::sync::Arc;

use hypervisor::{Driver, HostInfo};
use sqlx::PgConnection;

use super::drivers::connect;
use super::model::{AddedHost, Host, HostCheck, HostKind, HostNode, IncusSettings, NewHost, UpdateHost};
use super::store::{self, HostRow};
use crate::app::App;
use crate::db::{is_in_use, is_taken};
use crate::error::{Code, Error, Result};
use crate::idempotency::{Begun, Once};
use crate::ids::HostId;

/// What settings are sealed for.
const PURPOSE: &str = "host";

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
    let (kind, sealed, changed_at) = store::settings(&app.db, host).await?.ok_or_else(no_host)?;
    let driver = match kind {
        HostKind::Incus => connect(&open(app, &sealed)?)?,
    };
    app.drivers.put(host, changed_at, Arc::clone(&driver));
    Ok(driver)
}

fn seal(app: &App, settings: &IncusSettings) -> Result<Vec<u8>> {
    app.sealer.seal(PURPOSE, &serde_json::to_vec(settings).map_err(Error::internal)?)
}

fn open(app: &App, sealed: &[u8]) -> Result<IncusSettings> {
    serde_json::from_slice(&app.sealer.open(PURPOSE, sealed)?).map_err(Error::internal)
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
    rows.into_iter().map(|row| shown(app, row, &mut nodes)).collect()
}

/// One host.
pub async fn find(app: &App, id: HostId) -> Result<Host> {
    find_on(app, &mut *app.db.acquire().await?, id).await
}

async fn find_on(app: &App, db: &mut PgConnection, id: HostId) -> Result<Host> {
    let row = store::host(&mut *db, id).await?.ok_or_else(no_host)?;
    let nodes = store::nodes(db, &[id.0]).await?.into_iter().map(|(_, node)| node).collect();
    shown(app, row, &mut HashMap::from([(id, nodes)]))
}

fn shown(app: &App, row: HostRow, nodes: &mut HashMap<HostId, Vec<HostNode>>) -> Result<Host> {
    Ok(Host {
        config: open(app, &row.config_sealed)?,
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
    })
}

/// Adds a host after a look at it. One that can't be reached or that could take no guest is refused in words, unless
/// `force` says to save it all the same.
pub async fn add(app: &App, once: &Once, new: NewHost) -> Result<AddedHost> {
    if let Some(answer) = once.look(app).await? {
        return Ok(answer);
    }
    let name = new.name.trim();
    let looked = preflight(name, &new.config).await;
    let sealed = seal(app, &new.config)?;
    let (looked, failure) = accepted(name, looked, new.force)?;
    let mut tx = match once.begin(app).await? {
        Begun::New(tx) => tx,
        Begun::Done(answer) => return Ok(answer),
    };
    let overcommit = [new.cpu_overcommit, new.memory_overcommit, new.disk_overcommit];
    let id = store::insert(&mut *tx, name, new.kind, &sealed, new.enabled, overcommit).await?.ok_or_else(name_taken)?;
    record(&mut tx, id, looked.as_ref(), failure.as_deref()).await?;
    let problems = looked.map_or_else(|| failure.into_iter().collect(), |info| info.problems);
    let host = find_on(app, &mut tx, id).await?;
    tx.finish(app, AddedHost { host, problems }).await
}

/// Changes what `update` gives, and nothing else. New settings are tried first, as with a new host.
pub async fn update(app: &App, id: HostId, update: UpdateHost) -> Result<Host> {
    let before = store::host(&app.db, id).await?.ok_or_else(no_host)?;
    let name = update.name.as_deref().map_or(before.name, |name| name.trim().to_owned());
    let mut looked = None;
    if let Some(config) = &update.config {
        // Outside the transaction: a host may take long to answer.
        looked = Some(accepted(&name, preflight(&name, config).await, update.force)?);
    }
    let mut tx = app.db.begin().await?;
    let mut row = store::lock(&mut tx, id).await?.ok_or_else(no_host)?;
    if let Some(config) = &update.config {
        let old = open(app, &row.config_sealed)?;
        let moved = (&old.socket, &old.project) != (&config.socket, &config.project);
        let (live, _, _) = store::contents(&mut *tx, id).await?;
        if moved && live > 0 && !update.force {
            return Err(Error::new(
                Code::Conflict,
                format!(
                    "Servers live on this host ({live}). With another socket or project they may not be found any \
                     more: check that it is the same Incus server and project, then repeat with \"force\": true."
                ),
            ));
        }
        row.config_sealed = seal(app, config)?;
    }
    row.name = update.name.map_or(row.name, |name| name.trim().to_owned());
    row.enabled = update.enabled.unwrap_or(row.enabled);
    row.cpu_overcommit = update.cpu_overcommit.unwrap_or(row.cpu_overcommit);
    row.memory_overcommit = update.memory_overcommit.unwrap_or(row.memory_overcommit);
    row.disk_overcommit = update.disk_overcommit.unwrap_or(row.disk_overcommit);
    store::update(&mut *tx, &row).await.map_err(|e| if is_taken(&e) { name_taken() } else { e.into() })?;
    if let Some((info, failure)) = looked {
        record(&mut tx, id, info.as_ref(), failure.as_deref()).await?;
    }
    tx.commit().await?;
    find(app, id).await
}

/// Deletes a host that has no servers and no address pools.
pub async fn delete(app: &App, id: HostId) -> Result<()> {
    match store::delete(&app.db, id).await {
        Ok(true) => {
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
    if let Some(answer) = once.look(app).await? {
        return Ok(answer);
    }
    let row = store::host(&app.db, id).await?.ok_or_else(no_host)?;
    match driver(app, id).await?.info().await {
        Ok(info) => {
            let mut tx = match once.begin(app).await? {
                Begun::New(tx) => tx,
                Begun::Done(answer) => return Ok(answer),
            };
            store::record_sweep(&mut *tx, id, &info.nodes).await?;
            tx.finish(app, info.into()).await
        }
        Err(error) => {
            store::record_failure(&app.db, id, &error.to_string()).await?;
            Err(for_provider(&row.name, error))
        }
    }
}

async fn preflight(name: &str, settings: &IncusSettings) -> Result<HostInfo> {
    let driver = connect(settings).map_err(|e| for_provider(name, e))?;
    driver.info().await.map_err(|error| match error {
        hypervisor::Error::Unreachable(_) => {
            let message = format!(
                "Nothing answers at {}, where the host {name} should be. Does Incus run there, and may we open its \
                 socket? ({error})",
                settings.socket
            );
            Error { message, ..error.into() }
        }
        error => for_provider(name, error),
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
    }
    if let Some(failure) = failure {
        store::record_failure(&mut *tx, id, failure).await?;
    }
    Ok(())
}
