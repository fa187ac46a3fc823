//! Which guests are there and how they are: all at once, and one by one.

use std::collections::HashSet;
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use hypervisor::{
    Coverage, GuestFacts, GuestKind, GuestPower, GuestRef, GuestSample, Inventory, Node, Presence, Result, Sweep, check,
};
use serde_json::Value;
use uuid::Uuid;

use crate::api::{Instance, InstanceState, MIB, PoolResources, parse_cpus, parse_size};
use crate::client::Client;
use crate::lookup::{self, MARKER, instance_type, number, shown_power};
use crate::operations::busy;
use crate::server::{self, MachineResources, ServerInfo, as_node};
use crate::{Incus, facts, traffic};

/// How long Incus may take to list the instances with their live state.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

#[async_trait]
impl Inventory for Incus {
    async fn sweep(&self) -> Result<Sweep> {
        let client = &self.client;
        let taken_at = Utc::now();
        let pool = client.config.storage_pool.as_str();
        // The project is read as well: a missing one must be an error, not an empty list.
        let resources_of_pool = ["storage-pools", pool, "resources"];
        let project = ["projects", client.config.project.as_str()];
        let (server, resources, pool, _, list) = tokio::try_join!(
            client.get::<ServerInfo>(&[], &[]),
            client.get::<MachineResources>(&["resources"], &[]),
            client.get::<PoolResources>(&resources_of_pool, &[]),
            client.get::<Value>(&project, &[]),
            list(client),
        )?;
        // After the list, so that the interfaces of guests that started meanwhile are included.
        let interfaces = traffic::interfaces(Path::new(traffic::INTERFACES)).await;
        let node = as_node(&server, &resources, Some(&pool));
        let (instances, coverage, unreadable) = read(list, &node.name);
        log_unreadable(client, unreadable);
        let guests =
            instances.iter().filter_map(|i| sample(i, &node, taken_at, traffic::counted(i, &interfaces))).collect();
        Ok(Sweep { taken_at, lag: Duration::ZERO, nodes: vec![node], guests, coverage })
    }

    async fn find(&self, guest: &GuestRef) -> Result<Presence> {
        let client = &self.client;
        let found = match lookup::get(client, guest).await? {
            Some(instance) => Some(instance),
            // A creation that has just begun may not have written its instance yet: the guest is coming, not absent.
            None if busy(client, &lookup::name(guest)).await?.is_some() => {
                return Ok(Presence::Present {
                    node: server::name(client).await?,
                    power: GuestPower::Unknown,
                    busy: true,
                });
            }
            // It may have written it and ended between the two reads.
            None => lookup::get(client, guest).await?,
        };
        let Some(instance) = found else { return Ok(Presence::Absent) };
        let (busy, node) = tokio::try_join!(busy(client, &instance.name), server::name(client))?;
        Ok(Presence::Present { node, power: shown_power(&instance), busy: busy.is_some() })
    }

    async fn facts(&self, guest: &GuestRef) -> Result<GuestFacts> {
        Ok(facts::read(&lookup::require(&self.client, guest).await?))
    }

    async fn disk_used(&self, guest: &GuestRef) -> Result<Option<u64>> {
        let client = &self.client;
        let instance = lookup::require(client, guest).await?;
        let state: InstanceState = client.get(&["instances", &instance.name, "state"], &[]).await?;
        let root = instance.root_disk().map_or("root", |(name, _)| name);
        let used = state.disk.as_ref().and_then(|disks| disks.get(root)).map(|disk| disk.usage);
        Ok(used.and_then(|used| u64::try_from(used).ok()).filter(|used| *used > 0))
    }
}

/// The instances with their live state. Incus reads that inside the guests, and one that has made itself thousands of
/// interfaces takes long: then its neighbours are listed without live figures rather than not at all.
async fn list(client: &Client) -> Result<Vec<Value>> {
    let whole = client.get(&["instances"], &[("recursion", "2")]);
    if let Ok(list) = tokio::time::timeout(LIST_TIMEOUT, whole).await {
        return list;
    }
    tracing::warn!("Incus is too slow to report its guests' state; sweeping without it");
    client.get(&["instances"], &[("recursion", "1")]).await
}

/// Reads the instances one by one: one that can't be read is left out, and counts as not seen. Incus lists one that
/// it could not load (since it is being created or deleted) with nothing but its name.
fn read(list: Vec<Value>, node: &str) -> (Vec<Instance>, Coverage, HashSet<String>) {
    let mut coverage = Coverage { nodes: vec![node.to_owned()], unread: vec![] };
    let (mut instances, mut unreadable) = (vec![], HashSet::new());
    for mut value in list {
        // A guest's own view of its interfaces is not needed, and may be huge.
        if let Some(state) = value.get_mut("state").and_then(Value::as_object_mut) {
            state.remove("network");
        }
        let name = value.get("name").and_then(Value::as_str).map(str::to_owned);
        match serde_json::from_value::<Instance>(value) {
            Ok(instance) if !instance.config.is_empty() => instances.push(instance),
            Ok(instance) => coverage.unread.extend(number(&instance.name)),
            Err(error) => {
                coverage.unread.extend(name.as_deref().and_then(number));
                if name.is_none() {
                    coverage.nodes.clear();
                }
                unreadable.insert(format!("{}: {error}", name.as_deref().unwrap_or("one without a name")));
            }
        }
    }
    (instances, coverage, unreadable)
}

/// Logs an unreadable instance once, not with each sweep.
fn log_unreadable(client: &Client, unreadable: HashSet<String>) {
    let mut known = client.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
    for instance in unreadable.difference(&known) {
        tracing::warn!(instance, "an instance in the list can't be read; ignored until it changes");
    }
    *known = unreadable;
}

fn sample(instance: &Instance, node: &Node, now: DateTime<Utc>, traffic: Option<(u64, u64)>) -> Option<GuestSample> {
    let marker = instance.config.get(MARKER).and_then(|text| Uuid::parse_str(text).ok())?;
    let power = shown_power(instance);
    let state = instance.state.clone().unwrap_or_default();
    let count = |n: i64| u64::try_from(n).unwrap_or(0);
    // Incus reports -1 or 0 for what it does not know.
    let known = |n: i64| u64::try_from(n).ok().filter(|n| *n > 0);
    let limit = |key: &str| instance.expanded_config.get(key);
    // Go's zero time means "not running".
    let started = state.started_at.or(instance.last_used_at).filter(|at| at.timestamp() > 0);
    let up = matches!(power, GuestPower::Running | GuestPower::Paused);
    let uptime = if up { started.map(|at| count((now - at).num_seconds())) } else { Some(0) };
    let memory_limit = limit("limits.memory").and_then(|text| parse_size(text));
    let memory_max = memory_limit.or_else(|| known(state.memory.total)).unwrap_or(node.memory_mib * MIB);
    let kind = if instance.kind == instance_type(GuestKind::Vm) { GuestKind::Vm } else { GuestKind::Lxc };
    let traffic = traffic.filter(|_| up);
    let root = instance.root_disk().map_or("root", |(name, _)| name);
    Some(GuestSample {
        marker,
        vmid: number(&instance.name)?,
        kind,
        created_at: instance.created_at.filter(|at| at.timestamp() > 0),
        node: node.name.clone(),
        power,
        reason: instance.has_failed().then(|| "error".to_owned()),
        uptime_s: uptime,
        cpu: None,
        cpu_time_ns: if power == GuestPower::Running { known(state.cpu.usage) } else { None },
        cores: limit("limits.cpu").and_then(|text| parse_cpus(text)).unwrap_or(node.cores),
        memory_used: known(state.memory.usage).and_then(|used| check::memory_used(kind, used, Some(memory_max))),
        memory_max: Some(memory_max),
        disk_used: state.disk.as_ref().and_then(|disks| disks.get(root)).and_then(|disk| known(disk.usage)),
        disk_max: instance.disk_size(),
        net_in: traffic.map(|(received, _)| received),
        net_out: traffic.map(|(_, sent)| sent),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_odd_instance_hides_itself_and_no_other() {
        let good = json!({"name": "ink-7", "status": "Running", "config": {MARKER: Uuid::nil().to_string()}});
        for (odd, hidden) in [
            (json!({"name": "ink-8"}), true),
            (json!({"name": "ink-8", "config": {"a": 5}}), true),
            (json!({"name": "ink-8", "status": null, "config": {"a": "b"}}), true),
            (json!({"name": "other", "config": {"a": 5}}), false),
            (json!({"name": "other"}), false),
        ] {
            let (instances, coverage, _) = read(vec![odd.clone(), good.clone()], "n");
            assert_eq!(instances.len(), 1, "{odd}");
            assert!(coverage.includes("n", 8) != hidden && coverage.includes("n", 9), "{odd}: {coverage:?}");
        }
        let (_, coverage, odd) = read(vec![json!({"name": null}), good.clone()], "n");
        assert!(!coverage.includes("n", 9) && odd.len() == 1, "{coverage:?}");
    }

    #[test]
    fn what_incus_does_not_know_is_not_nothing() {
        let node = Node {
            name: "n".into(),
            online: true,
            cores: 4,
            memory_mib: 8,
            disk_gib: 1,
            disk_used: None,
            disk_shared: false,
        };
        let shown = |status: &str, state: Value| {
            let instance = json!({"name": "ink-7", "type": "virtual-machine", "status": status, "state": state,
                "config": {MARKER: Uuid::nil().to_string(), crate::lookup::READY: "true"},
                "expanded_config": {"limits.memory": "512MiB"}, "last_used_at": "2026-01-01T00:00:00Z"});
            sample(&serde_json::from_value(instance).unwrap(), &node, Utc::now(), None).unwrap()
        };
        let unknown = json!({"memory": {"usage": -1}, "cpu": {"usage": -1}, "disk": {"root": {"usage": 0}}});
        let seen = shown("Running", unknown);
        assert_eq!((seen.memory_used, seen.disk_used, seen.disk_max, seen.cpu_time_ns), (None, None, None, None));
        let full = shown("Frozen", json!({"memory": {"usage": 600 << 20}}));
        assert_eq!((full.memory_used, full.memory_max, full.power), (None, Some(512 << 20), GuestPower::Paused));
        assert!(full.uptime_s.is_some_and(|s| s > 0));
        assert_eq!(shown("Stopped", json!({})).uptime_s, Some(0));
        let failed = shown("Error", json!({}));
        assert_eq!((failed.power, failed.reason.as_deref()), (GuestPower::Paused, Some("error")));
        let container =
            serde_json::from_value::<Instance>(json!({"name": "a", "type": "container", "status": "Error"}));
        assert_eq!(container.unwrap().power(), GuestPower::Unknown);
    }
}
