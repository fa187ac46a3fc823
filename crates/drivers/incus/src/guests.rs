//! Guests one by one.

use hypervisor::{GuestPower, GuestRef, Presence, Result};

use crate::api::State;
use crate::client::Client;
use crate::lookup::{get, name, node, require, shown_power};
use crate::operations::busy;

pub(crate) async fn find(client: &Client, guest: &GuestRef) -> Result<Presence> {
    let found = match get(client, guest).await? {
        Some(instance) => Some(instance),
        // An operation just begun may not have written its instance: that guest is coming, not absent.
        None if busy(client, &name(guest)).await?.is_some() => {
            return Ok(Presence::Present { node: node(client).await?, power: GuestPower::Unknown, busy: true });
        }
        // It may have written it and ended between the two looks.
        None => get(client, guest).await?,
    };
    let Some(instance) = found else { return Ok(Presence::Absent) };
    let (busy, node) = tokio::try_join!(busy(client, &instance.name), node(client))?;
    Ok(Presence::Present { node, power: shown_power(&instance), busy: busy.is_some() })
}

pub(crate) async fn disk_used(client: &Client, guest: &GuestRef) -> Result<Option<u64>> {
    let instance = require(client, guest).await?;
    let state: State = client.get(&["instances", &instance.name, "state"], &[]).await?;
    let root = instance.root_disk().map_or("root", |(name, _)| name);
    let used = state.disk.as_ref().and_then(|disks| disks.get(root)).map(|disk| disk.usage);
    Ok(used.and_then(|used| u64::try_from(used).ok()).filter(|used| *used > 0))
}
