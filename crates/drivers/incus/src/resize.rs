//! Changing a guest's size.

use hypervisor::{Error, GuestRef, Limits, Result, Task};
use reqwest::Method;
use serde_json::{Map as JsonMap, Value, json};

use crate::api::GIB;
use crate::client::Client;
use crate::operations::{busy, plain};
use crate::{lookup, prepare, processes, snapshots};

pub(crate) async fn resize(client: &Client, guest: &GuestRef, limits: &Limits) -> Result<Task> {
    if limits.cores == Some(0) || limits.memory_mib == Some(0) {
        return Err(Error::Invalid("cores and memory must be more than nothing".to_owned()));
    }
    let instance = lookup::require(client, guest).await?;
    let mut config = JsonMap::new();
    let wanted = [
        ("limits.cpu", limits.cores.map(|n| n.to_string())),
        ("limits.memory", limits.memory_mib.map(|n| format!("{n}MiB"))),
        (processes::KEY, limits.memory_mib.and_then(|n| processes::limit(&client.config, guest.kind, n))),
    ];
    for (key, value) in wanted {
        if let Some(value) = value.filter(|value| instance.expanded_config.get(key) != Some(value)) {
            config.insert(key.to_owned(), Value::String(value));
        }
    }
    let mut devices = JsonMap::new();
    if let Some(gib) = limits.disk_gib {
        let (name, root) = instance.root_disk().ok_or_else(|| Error::Failed("it has no root disk".to_owned()))?;
        let (now, then) = (instance.disk_size().unwrap_or(0), gib.saturating_mul(GIB));
        if then < now {
            return Err(Error::Invalid(format!("the disk has {} GiB and can't shrink to {gib} GiB", now / GIB)));
        }
        if then > now {
            let mut root = root.clone();
            root.insert("size".to_owned(), format!("{gib}GiB"));
            devices.insert(name.to_owned(), json!(root));
        }
    }
    if let Some(mbps) = limits.bandwidth_mbps
        && let Some((name, nic)) = instance.nic()
    {
        let mut limited = nic.clone();
        prepare::limit(mbps, &mut limited);
        if limited != *nic {
            devices.insert(name.to_owned(), json!(limited));
        }
    }
    if let Some(operation) = busy(client, &instance.name).await? {
        return Err(Error::Locked(format!("{}: {}", instance.name, operation.description)));
    }
    if snapshots::unfinished(client, guest).await? {
        // Its end would undo this change.
        return Err(Error::Conflict(format!("a roll-back of {} is unfinished: repeat it first", instance.name)));
    }
    if config.is_empty() && devices.is_empty() {
        return Ok(Task::Done);
    }
    let body = json!({"config": config, "devices": devices});
    client.send(Method::PATCH, &["instances", &instance.name], Some(&body)).await.map(plain)
}
