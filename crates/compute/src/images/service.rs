//! Business logic for images.

use std::collections::HashMap;
use std::time::Duration;

use hypervisor::{GuestKind, Node};
use kernel::auth::Caller;
use kernel::core::Core;
use kernel::db::{self, is_foreign_key_violation, is_unique_violation};
use kernel::error::{Code, Error, Result};
use kernel::idempotency::{Once, OnceCheck};
use sqlx::{PgConnection, PgExecutor};

use super::model::{Image, ImageSource, ImageView, NewImage, UpdateImage};
use super::store::{self, HostSource};
use crate::hosts;
use crate::hosts::Hosts;
use crate::ids::{HostId, ImageId};
use crate::tariffs::ServerKind;

/// How often hosts are asked which of their nodes have an image.
const LOOK_EVERY: Duration = Duration::from_mins(10);

fn no_image() -> Error {
    Error::not_found("image")
}

fn name_taken() -> Error {
    Error::new(Code::AlreadyExists, "An image of this kind with this name already exists.")
}

/// The images that the caller may see: all with their sources for a provider, those that can be ordered for others.
pub async fn visible(core: &Core, caller: &Caller) -> Result<Vec<ImageView>> {
    if !caller.sees_everything() {
        let images = store::images(&core.db, true).await?;
        return Ok(images.into_iter().map(|image| ImageView { image, sources: None }).collect());
    }
    all(core).await
}

/// All images with their sources.
pub async fn all(core: &Core) -> Result<Vec<ImageView>> {
    let images = store::images(&core.db, false).await?;
    let mut sources: HashMap<ImageId, Vec<ImageSource>> = HashMap::new();
    for (image, source) in store::sources(&core.db, None).await? {
        sources.entry(image).or_default().push(source);
    }
    let view = |image: Image| ImageView { sources: Some(sources.remove(&image.id).unwrap_or_default()), image };
    Ok(images.into_iter().map(view).collect())
}

/// One of the images that the caller may see.
pub async fn find(core: &Core, caller: &Caller, id: ImageId) -> Result<ImageView> {
    let image =
        store::image(&core.db, id).await?.filter(|i| i.enabled || caller.sees_everything()).ok_or_else(no_image)?;
    if caller.sees_everything() { with_sources(&core.db, image).await } else { Ok(ImageView { image, sources: None }) }
}

async fn with_sources(db: impl PgExecutor<'_>, image: Image) -> Result<ImageView> {
    let sources = store::sources(db, Some(image.id)).await?.into_iter().map(|(_, source)| source).collect();
    Ok(ImageView { image, sources: Some(sources) })
}

/// Creates an image, after checking with each host that it has it, unless told not to.
pub async fn create(hosts: &Hosts, once: &Once, new: NewImage) -> Result<ImageView> {
    let core = &hosts.core;
    let verified = async {
        match new.verify {
            true => verify(hosts, new.kind, &new.sources, &[]).await,
            false => Ok(vec![]),
        }
    };
    let found = match once.check(core, verified).await? {
        OnceCheck::New(found) => found,
        OnceCheck::Done(answer) => return Ok(answer),
    };
    once.run(core, async |tx| {
        let image = store::insert(&mut *tx, &new).await?.ok_or_else(name_taken)?;
        store::set_sources(tx, image.id, &new.sources).await.map_err(no_host)?;
        note(tx, image.id, &found).await?;
        with_sources(&mut *tx, image).await
    })
    .await
}

/// Changes only the fields that `update` has. New sources are checked first, as for a new image.
pub async fn update(hosts: &Hosts, id: ImageId, update: UpdateImage) -> Result<ImageView> {
    let core = &hosts.core;
    let mut found = vec![];
    if update.verify && (update.sources.is_some() || update.kind.is_some()) {
        // Outside the transaction: a host may take long to respond.
        let before = store::image(&core.db, id).await?.ok_or_else(no_image)?;
        let known: Vec<_> = store::sources(&core.db, Some(id)).await?.into_iter().map(|(_, source)| source).collect();
        let kind = update.kind.unwrap_or(before.kind);
        let known_good = if kind == before.kind { known.as_slice() } else { &[] };
        found = verify(hosts, kind, update.sources.as_deref().unwrap_or(&known), known_good).await?;
    }
    let mut tx = db::begin(&core.db).await?;
    let old = store::lock(&mut tx, id).await?.ok_or_else(no_image)?;
    let new = Image {
        name: update.name.map_or(old.name, |name| name.trim().to_owned()),
        family: update.family.map_or(old.family, |family| family.trim().to_owned()),
        kind: update.kind.unwrap_or(old.kind),
        root_login: update.root_login.unwrap_or(old.root_login),
        enabled: update.enabled.unwrap_or(old.enabled),
        ..old
    };
    let image = store::update(&mut *tx, &new)
        .await
        .map_err(|e| if is_unique_violation(&e) { name_taken() } else { e.into() })?;
    if let Some(sources) = &update.sources {
        store::set_sources(&mut tx, id, sources).await.map_err(no_host)?;
    }
    note(&mut tx, id, &found).await?;
    let image = with_sources(&mut *tx, image).await?;
    tx.commit().await?;
    Ok(image)
}

fn no_host(error: sqlx::Error) -> Error {
    if is_foreign_key_violation(&error) {
        Error::field("sources", "One of the hosts does not exist.")
    } else {
        error.into()
    }
}

/// A source, and the nodes that can create guests from it; `None`: all nodes.
type VerifiedSource = (ImageSource, Option<Vec<String>>);

/// Asks each host whether, and on which nodes, it has its source, except for those in `known`.
async fn verify(
    hosts: &Hosts,
    kind: ServerKind,
    sources: &[ImageSource],
    known: &[ImageSource],
) -> Result<Vec<VerifiedSource>> {
    let core = &hosts.core;
    let guest = GuestKind::try_from(kind)?;
    let mut found = vec![];
    for (index, source) in sources.iter().enumerate().filter(|(_, source)| !known.contains(source)) {
        let field = |name: &str| format!("sources[{index}].{name}");
        let Some(host) = hosts::store::name(&core.db, source.host_id).await? else {
            return Err(Error::field(&field("hostId"), "No such host exists."));
        };
        let driver = hosts.driver(source.host_id).await?;
        let name = source.source.trim();
        let there = driver.has_image(guest, name).await;
        if !there.map_err(|error| hosts::service::for_provider(&host, error))? {
            let message = format!("The host {host} has no {kind} image {name}.");
            return Err(Error::field(&field("source"), message));
        }
        let nodes = driver.image_nodes(guest, name).await;
        found.push((source.clone(), nodes.map_err(|error| hosts::service::for_provider(&host, error))?));
    }
    Ok(found)
}

async fn note(tx: &mut PgConnection, image: ImageId, found: &[VerifiedSource]) -> Result<()> {
    for (source, nodes) in found {
        store::set_nodes(&mut *tx, image, source.host_id, source.source.trim(), nodes.as_deref()).await?;
    }
    Ok(())
}

/// Checks repeatedly until shutdown which nodes have the images: one may have been copied to another node. Only one of
/// several processes does so.
pub async fn watch(hosts: &Hosts) {
    let core = &hosts.core;
    loop {
        tokio::select! {
            () = core.shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY / 10) => {}
        }
        let due = match store::claim_due_sources(&core.db, LOOK_EVERY.as_secs_f64()).await {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(%error, "could not read which images to check; retrying");
                continue;
            }
        };
        // All hosts concurrently: one that hangs delays no other.
        let looks = due.iter().map(|source| async move {
            if let Err(error) = check_source(hosts, source).await {
                tracing::debug!(%error, host = %source.host, image = source.name, "could not check an image's nodes");
            }
        });
        tokio::select! {
            () = core.shutdown.cancelled() => return,
            _ = futures_util::future::join_all(looks) => {}
        }
    }
}

async fn check_source(hosts: &Hosts, source: &HostSource) -> Result<Option<Vec<String>>> {
    let core = &hosts.core;
    let driver = hosts.driver(source.host).await?;
    let nodes = driver.image_nodes(source.kind.try_into()?, &source.source).await?;
    store::set_nodes(&core.db, source.image, source.host, &source.source, nodes.as_deref()).await?;
    Ok(nodes)
}

/// Checks again which nodes of a host have an image.
pub async fn recheck_sources(hosts: &Hosts, image: ImageId, host: HostId) -> Result<()> {
    let core = &hosts.core;
    for source in store::sources_on(&core.db, host).await?.iter().filter(|source| source.image == image) {
        check_source(hosts, source).await?;
    }
    Ok(())
}

/// Available images that some of a host's nodes lack, one sentence each.
pub(super) async fn missing_on_nodes(hosts: &Hosts, host: HostId, nodes: &[Node]) -> Result<Vec<String>> {
    let core = &hosts.core;
    let mut problems = vec![];
    for source in store::sources_on(&core.db, host).await? {
        let Some(found) = check_source(hosts, &source).await? else { continue };
        let lacking = nodes.iter().filter(|node| node.online && !found.contains(&node.name));
        let lacking: Vec<&str> = lacking.map(|node| node.name.as_str()).collect();
        if !lacking.is_empty() {
            problems.push(format!(
                "The image {} ({}) can't be installed on {}: it is missing there, or only on other nodes' storages. \
                 Servers with it are placed elsewhere.",
                source.name,
                source.source,
                lacking.join(", ")
            ));
        }
    }
    Ok(problems)
}

/// Deletes an image that no server has or ever had: the history of servers needs the others.
pub async fn delete(core: &Core, id: ImageId) -> Result<()> {
    let mut tx = db::begin(&core.db).await?;
    match store::delete(&mut *tx, id).await {
        Ok(true) => tx.commit().await,
        Ok(false) => Err(no_image()),
        Err(error) if is_foreign_key_violation(&error) => {
            let message = match store::live_servers(&core.db, id).await? {
                0 => "The history of deleted servers needs this image: disable it instead.".to_owned(),
                n => format!("Servers were made from this image ({n}): disable it instead."),
            };
            Err(Error::new(Code::Conflict, message))
        }
        Err(error) => Err(error.into()),
    }
}
