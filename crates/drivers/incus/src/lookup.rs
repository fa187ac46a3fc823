//! Looking guests up: reading an instance and checking its marker.

use hypervisor::{Error, GuestKind, GuestPower, GuestRef, Result};
use serde_json::Value;
use uuid::Uuid;

use crate::api::Instance;
use crate::client::Client;

/// The config key that holds our marker.
pub(crate) const MARKER: &str = "user.innkeeper.server";
/// The config key that says that the guest's creation was seen to succeed.
pub(crate) const READY: &str = "user.innkeeper.ready";

const PREFIX: &str = "ink-";

pub(crate) fn name(guest: &GuestRef) -> String {
    format!("{PREFIX}{}", guest.vmid)
}

/// The guest's number in an instance's name; `None` for others' instances.
pub(crate) fn number(name: &str) -> Option<i64> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

pub(crate) fn instance_type(kind: GuestKind) -> &'static str {
    match kind {
        GuestKind::Lxc => "container",
        GuestKind::Vm => "virtual-machine",
    }
}

/// `None` is evidence: Incus says that the project is there and the guest is not.
pub(crate) async fn get(client: &Client, guest: &GuestRef) -> Result<Option<Instance>> {
    let name = name(guest);
    let Some(instance) = client.get_opt::<Instance>(&["instances", &name], &[]).await? else {
        // A missing project gives 404 as well.
        let project = &client.config.project;
        return match client.get::<Value>(&["projects", project], &[]).await {
            Ok(_) => Ok(None),
            Err(Error::NotFound(_)) => Err(Error::Failed(format!("the project {project} is missing"))),
            Err(error) => Err(error),
        };
    };
    let marker = instance.config.get(MARKER).and_then(|text| Uuid::parse_str(text).ok());
    if marker == Some(guest.marker) { Ok(Some(instance)) } else { Err(Error::NotOurs(name)) }
}

pub(crate) async fn require(client: &Client, guest: &GuestRef) -> Result<Instance> {
    get(client, guest).await?.ok_or_else(|| Error::NotFound(name(guest)))
}

pub(crate) async fn require_running(client: &Client, guest: &GuestRef) -> Result<Instance> {
    let instance = require(client, guest).await?;
    if instance.power() == GuestPower::Running {
        Ok(instance)
    } else {
        Err(Error::Conflict(format!("{} is not running", instance.name)))
    }
}

/// The power state as callers see it: a half-made guest is neither running nor stopped.
pub(crate) fn shown_power(instance: &Instance) -> GuestPower {
    match instance.power() {
        GuestPower::Stopped if !instance.config.contains_key(READY) => GuestPower::Unknown,
        power => power,
    }
}
