//! Looking at everything at once, and at the server itself.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use chrono::{DateTime, Utc};
use hypervisor::{Coverage, GuestKind, GuestPower, GuestSample, HostInfo, Node, Result, Sweep, check};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::api::{GIB, Instance, MIB, Map, parse_cpus, parse_size};
use crate::client::Client;
use crate::lookup::{Environment, MARKER, Server, instance_type, number, shown_power};
use crate::{processes, traffic};

/// API extensions that we build on; all are in Incus 6.0.
const NEEDED: &[&str] =
    &["instances", "instance_state_started_at", "instances_state_total", "image_types", "projects", "resources_v2"];

/// How long Incus may take over the list of instances with what they do.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Deserialize)]
struct Resources {
    cpu: Cpu,
    memory: Total,
}

#[derive(Debug, Deserialize)]
struct Cpu {
    total: u32,
}

#[derive(Debug, Deserialize)]
struct Total {
    total: u64,
}

#[derive(Debug, Deserialize)]
struct PoolResources {
    space: Space,
}

#[derive(Debug, Deserialize)]
struct Space {
    total: u64,
    #[serde(default)]
    used: Option<u64>,
}

fn as_node(server: &Server, resources: &Resources, pool: Option<&PoolResources>) -> Node {
    Node {
        name: server.environment.server_name.clone(),
        online: true,
        cores: resources.cpu.total,
        memory_mib: resources.memory.total / MIB,
        disk_gib: pool.map_or(0, |pool| pool.space.total / GIB),
        disk_used: pool.and_then(|pool| pool.space.used),
        disk_shared: false,
    }
}

pub(crate) async fn sweep(client: &Client) -> Result<Sweep> {
    let taken_at = Utc::now();
    let pool = client.config.storage_pool.as_str();
    // The project is read as well: a missing one must be an error and not an empty house.
    let resources_of_pool = ["storage-pools", pool, "resources"];
    let project = ["projects", client.config.project.as_str()];
    let (server, resources, pool, _, list): (Server, Resources, PoolResources, Value, Vec<Value>) = tokio::try_join!(
        client.get(&[], &[]),
        client.get(&["resources"], &[]),
        client.get(&resources_of_pool, &[]),
        client.get(&project, &[]),
        list(client),
    )?;
    // After the list, so that guests that started meanwhile are in it.
    let interfaces = traffic::interfaces(Path::new(traffic::INTERFACES)).await;
    let node = as_node(&server, &resources, Some(&pool));
    let (instances, coverage, odd) = read(list, &node.name);
    log(client, odd);
    let guests = instances.iter().filter_map(|i| sample(i, &node, taken_at, traffic::of(i, &interfaces))).collect();
    Ok(Sweep { taken_at, lag: Duration::ZERO, nodes: vec![node], guests, coverage })
}

/// The instances with what they do at the moment. Incus reads that in the guests, and one that has made itself thousands of
/// interfaces takes long: its neighbours are then seen without those figures rather than not at all.
async fn list(client: &Client) -> Result<Vec<Value>> {
    let whole = client.get(&["instances"], &[("recursion", "2")]);
    if let Ok(list) = tokio::time::timeout(LIST_TIMEOUT, whole).await {
        return list;
    }
    tracing::warn!("Incus takes too long over what its guests do; they are looked at without that");
    client.get(&["instances"], &[("recursion", "1")]).await
}

/// The instances one by one: what can't be read is left out, and what it may have said is not taken for said. Incus lists
/// one that it could not load (being made or deleted just now) with nothing but its name.
fn read(list: Vec<Value>, node: &str) -> (Vec<Instance>, Coverage, HashSet<String>) {
    let mut coverage = Coverage { nodes: vec![node.to_owned()], unread: vec![] };
    let (mut instances, mut odd) = (vec![], HashSet::new());
    for mut value in list {
        // What a guest says of its interfaces is not asked for, and may be long.
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
                odd.insert(format!("{}: {error}", name.as_deref().unwrap_or("one without a name")));
            }
        }
    }
    (instances, coverage, odd)
}

/// Tells of what can't be read once, not with each sweep.
fn log(client: &Client, odd: HashSet<String>) {
    let mut known = client.odd.lock().unwrap_or_else(PoisonError::into_inner);
    for instance in odd.difference(&known) {
        tracing::warn!(instance, "an instance in the list can't be read and is left out, until it changes");
    }
    *known = odd;
}

fn sample(instance: &Instance, node: &Node, now: DateTime<Utc>, traffic: Option<(u64, u64)>) -> Option<GuestSample> {
    let marker = instance.config.get(MARKER).and_then(|text| Uuid::parse_str(text).ok())?;
    let power = shown_power(instance);
    let state = instance.state.clone().unwrap_or_default();
    let count = |n: i64| u64::try_from(n).unwrap_or(0);
    // Incus says -1, or 0, of what it does not know.
    let known = |n: i64| u64::try_from(n).ok().filter(|n| *n > 0);
    let limit = |key: &str| instance.expanded_config.get(key);
    // Go's zero time stands for "not running".
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
        reason: None,
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

pub(crate) async fn info(client: &Client) -> Result<HostInfo> {
    let server: Server = client.get(&[], &[]).await?;
    let mut problems = Vec::new();
    if server.auth != "trusted" {
        problems
            .push("The Incus server does not trust us: run Innkeeper as a member of the group incus-admin.".to_owned());
        return Ok(as_info(&server, Vec::new(), problems));
    }
    let config = &client.config;
    let resources: Resources = client.get(&["resources"], &[]).await?;
    let pool: Option<PoolResources> =
        client.get_opt(&["storage-pools", &config.storage_pool, "resources"], &[]).await?;
    let project: Option<Value> = client.get_opt(&["projects", &config.project], &[]).await?;
    match storage_pool(client).await? {
        None => problems.push(format!(
            "The storage pool {0} is missing: create it (incus storage create {0} btrfs) or name another one.",
            config.storage_pool
        )),
        Some(pool) if pool.driver == "dir" => problems.push(format!(
            "The storage pool {} is of the kind dir, which does not keep guests to their disk size: use btrfs, zfs or \
             lvm.",
            config.storage_pool
        )),
        Some(pool) if pool.driver == "btrfs" => {
            problems.extend(quota_problem(Path::new("/sys"), pool.config.get("source")));
        }
        Some(_) => {}
    }
    problems.extend(inotify_problem(Path::new("/proc/sys")));
    problems.extend(traffic::problem(client).await);
    problems.extend(processes::problem(Path::new("/proc"), config));
    if project.is_none() {
        problems.push(format!("The project {0} is missing: create it (incus project create {0}).", config.project));
    }
    let missing: Vec<_> =
        NEEDED.iter().filter(|needed| !server.api_extensions.iter().any(|has| has == *needed)).collect();
    if !missing.is_empty() {
        problems.push(format!("The server is too old, it lacks {missing:?}: upgrade to Incus 6.0 or later."));
    }
    if server.environment.server_clustered {
        problems.push("The server is part of a cluster; only single servers are looked after so far.".to_owned());
    }
    if !config.address_filters {
        problems.push(
            "Address filters are switched off: guests on one bridge can take each other's addresses. Switch \
             address_filters on where the kernel has nftables' bridge family."
                .to_owned(),
        );
    } else if server.environment.firewall != "nftables" {
        problems.push(format!(
            "The server filters addresses with {:?} rather than nftables; check that guests start.",
            server.environment.firewall
        ));
    }
    Ok(as_info(&server, vec![as_node(&server, &resources, pool.as_ref())], problems))
}

fn as_info(server: &Server, nodes: Vec<Node>, problems: Vec<String>) -> HostInfo {
    let Environment { server_version, certificate_fingerprint, .. } = &server.environment;
    let certificate = Some(certificate_fingerprint.clone()).filter(|text| !text.is_empty());
    HostInfo {
        version: version(server),
        major: server_version.split('.').next().and_then(|text| text.parse().ok()).unwrap_or(0),
        nodes,
        problems,
        identity: certificate.into_iter().collect(),
        template_storages: Vec::new(),
    }
}

/// Whether this kernel has stopped to count a btrfs pool's quotas. Since Linux 6.1 the deletion of a large subvolume (so
/// of any guest) marks them inconsistent, and from then on no disk size is enforced and no use is counted. The socket is
/// this machine's, so its sysfs tells; where it can't be read, or the pool's device is not found in it, nothing is said.
fn quota_problem(sysfs: &Path, source: Option<&String>) -> Option<String> {
    let filesystem = filesystem(sysfs, Path::new(source?))?;
    let read = |name: &str| -> Option<u32> {
        std::fs::read_to_string(filesystem.join("qgroups").join(name)).ok()?.trim().parse().ok()
    };
    let doubtful = read("enabled") == Some(1)
        && (read("drop_subtree_threshold").is_some_and(|n| n < 8) || read("inconsistent") == Some(1));
    doubtful.then(|| {
        "btrfs stops counting quotas when a guest is deleted, and then keeps no guest to its disk size: write 8 to \
         /sys/fs/btrfs/*/qgroups/drop_subtree_threshold at each start, then run btrfs quota rescan on the pool."
            .to_owned()
    })
}

/// Whether this kernel lets root have too few inotify instances. Every container's systemd takes up to ten, and however
/// containers are mapped, they count against the host's root: the first one that finds none left dies at boot, and Incus
/// says no more than that it is stopped. The socket is this machine's, so its sysctls tell.
fn inotify_problem(sysctls: &Path) -> Option<String> {
    const NAME: &str = "fs.inotify.max_user_instances";
    /// Enough for some 800 guests.
    const ENOUGH: u64 = 8192;
    const ADVICE: u64 = 1_048_576;
    let now: u64 = std::fs::read_to_string(sysctls.join(NAME.replace('.', "/"))).ok()?.trim().parse().ok()?;
    (now < ENOUGH).then(|| {
        format!(
            "{NAME} is {now}, and every container takes up to 10 of them: from about the {}th on, guests die at boot. Run \
             sysctl -w {NAME}={ADVICE}, and put the line {NAME}={ADVICE} into /etc/sysctl.d/90-innkeeper.conf, which \
             keeps it.",
            now / 8 + 1
        )
    })
}

/// The btrfs file system in sysfs on a pool's source: a block device, or a file behind a loop device.
fn filesystem(sysfs: &Path, source: &Path) -> Option<PathBuf> {
    let entries = |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten();
    let behind = |entry: &std::fs::DirEntry| {
        let file = std::fs::read_to_string(entry.path().join("loop/backing_file"));
        file.is_ok_and(|file| Path::new(file.trim_end()) == source)
    };
    let device = match entries(sysfs.join("block")).find(behind) {
        Some(entry) => entry.file_name(),
        None => source.file_name()?.to_owned(),
    };
    entries(sysfs.join("fs/btrfs")).map(|entry| entry.path()).find(|path| path.join("devices").join(&device).exists())
}

/// A storage pool as Incus knows it.
#[derive(Deserialize)]
struct StoragePool {
    driver: String,
    #[serde(default)]
    config: Map,
}

async fn storage_pool(client: &Client) -> Result<Option<StoragePool>> {
    client.get_opt(&["storage-pools", &client.config.storage_pool], &[]).await
}

fn version(server: &Server) -> String {
    format!("Incus {} ({})", server.environment.server_version, server.environment.driver)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn too_few_inotify_instances_are_named_with_the_line_to_set() {
        let sysctls = std::env::temp_dir().join(format!("innkeeper-sysctl-{}", Uuid::new_v4().simple()));
        std::fs::create_dir_all(sysctls.join("fs/inotify")).unwrap();
        let set = |number: &str| {
            std::fs::write(sysctls.join("fs/inotify/max_user_instances"), number).unwrap();
            inotify_problem(&sysctls)
        };
        let text = set("128\n").unwrap();
        assert!(
            text.contains("from about the 17th on") && text.contains("sysctl -w fs.inotify.max_user_instances=1048576"),
            "{text}"
        );
        assert_eq!([set("8192\n"), set("what\n")], [None, None]);
        std::fs::remove_dir_all(&sysctls).unwrap();
        assert_eq!(inotify_problem(&sysctls), None, "where it can't be read, nothing is said");
    }

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
    }

    #[test]
    fn lost_quotas_of_the_pools_own_file_system_are_noticed() {
        let sysfs = std::env::temp_dir().join(format!("innkeeper-sysfs-{}", Uuid::new_v4().simple()));
        let write = |path: &str, text: &str| {
            let path = sysfs.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("block/loop3/loop/backing_file", "/disks/pool.img\n");
        write("fs/btrfs/ours/devices/loop3/size", "1");
        write("fs/btrfs/other/devices/sda1/size", "1");
        let pool = "/disks/pool.img".to_owned();
        let set = |of: &str, threshold: &str, inconsistent: &str| {
            write(&format!("fs/btrfs/{of}/qgroups/enabled"), "1\n");
            write(&format!("fs/btrfs/{of}/qgroups/drop_subtree_threshold"), threshold);
            write(&format!("fs/btrfs/{of}/qgroups/inconsistent"), inconsistent);
            quota_problem(&sysfs, Some(&pool)).is_some()
        };
        assert!(!set("other", "3\n", "1\n"), "what is not the pool's is not ours to judge");
        assert_eq!(
            [set("ours", "3\n", "0\n"), set("ours", "8\n", "1\n"), set("ours", "8\n", "0\n")],
            [true, true, false]
        );
        assert!(quota_problem(&sysfs, Some(&"/dev/sda1".to_owned())).is_some());
        std::fs::remove_dir_all(&sysfs).unwrap();
        assert_eq!(quota_problem(&sysfs, Some(&pool)), None);
    }
}
