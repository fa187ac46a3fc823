//! Looking before something is destroyed: whether a guest can be deleted, and whether another can take its place.

use hypervisor::{Error, GuestRef, GuestSpec, Result, check};
use serde::Deserialize;
use serde_json::Value;

use crate::api::{GIB, Instance};
use crate::client::Client;
use crate::{images, lookup};

/// The config key with which an instance is kept from being deleted.
const PROTECTED: &str = "security.protection.delete";

pub(crate) async fn check_delete(client: &Client, guest: &GuestRef) -> Result<()> {
    lookup::get(client, guest).await?.map_or(Ok(()), |instance| unprotected(client, &instance))
}

/// Refuses where an instance is protected, by itself or by a profile.
pub(crate) fn unprotected(client: &Client, instance: &Instance) -> Result<()> {
    let flag = instance.expanded_config.get(PROTECTED).map(|text| text.to_lowercase()).unwrap_or_default();
    if !["true", "1", "yes", "on"].contains(&flag.as_str()) {
        return Ok(());
    }
    let (name, project) = (&instance.name, &client.config.project);
    Err(Error::Protected(format!("incus config set {name} {PROTECTED}=false --project {project}")))
}

pub(crate) async fn check_create(client: &Client, spec: &GuestSpec) -> Result<()> {
    check::size(&spec.limits)?;
    check::texts(spec)?;
    let present = match lookup::get(client, &spec.guest).await {
        Err(Error::NotOurs(name)) => return Err(Error::AlreadyExists(name)),
        found => found?,
    };
    images::of_spec(client, spec).await?;
    room(client, present.as_ref()).await
}

/// Refuses where the storage pool is missing or full. The room of `before`, which the guest is to replace, is its own.
async fn room(client: &Client, before: Option<&Instance>) -> Result<()> {
    #[derive(Deserialize)]
    struct Resources {
        space: Space,
    }
    #[derive(Deserialize)]
    struct Space {
        #[serde(default)]
        used: u64,
        total: u64,
    }
    let pool = client.config.storage_pool.as_str();
    // Asked for its resources, Incus says nothing that tells a missing pool from a broken one.
    client.get::<Value>(&["storage-pools", pool], &[]).await.map_err(|error| match error {
        Error::NotFound(_) => Error::NotFound(format!("the storage pool {pool}")),
        other => other,
    })?;
    let Resources { space } = client.get(&["storage-pools", pool, "resources"], &[]).await?;
    let there = before.and_then(Instance::root_disk).and_then(|(_, disk)| disk.get("pool"));
    let free = space.total.saturating_sub(space.used);
    if there.is_none_or(|there| there != pool) && free < GIB {
        return Err(Error::Exhausted(format!("the storage pool {pool} has {} MiB left", free >> 20)));
    }
    Ok(())
}
