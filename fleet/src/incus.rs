//! Responses of Incus 6.0, modelled on its source.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::guest::{Guest, GuestKind};
use crate::host::Host;

const GIB: u64 = 1 << 30;
const CORES: u32 = 64;
const MEMORY: u64 = 512 * GIB;
const DISK: u64 = 16 << 40;

/// API extensions that the driver relies on.
const EXTENSIONS: &[&str] =
    &["instances", "instance_state_started_at", "instances_state_total", "image_types", "projects", "resources_v2"];

fn instance(guest: &Guest, whole: bool) -> Value {
    let config = json!({
        "image.description": "Debian 12", "image.os": "debian", "image.release": "bookworm",
        "limits.cpu": guest.cores.to_string(), "limits.memory": format!("{}MiB", guest.memory >> 20),
        "user.innkeeper.ready": "true", "user.innkeeper.server": guest.marker,
        "volatile.last_state.power": if guest.is_running() { "RUNNING" } else { "STOPPED" },
        "volatile.uuid": guest.marker,
    });
    let devices = json!({
        "eth0": {"name": "eth0", "network": "incusbr0", "type": "nic"},
        "root": {"path": "/", "pool": "default", "size": format!("{}GiB", guest.disk / GIB), "type": "disk"},
    });
    let (status, code) = if guest.is_running() { ("Running", 103) } else { ("Stopped", 102) };
    let mut instance = json!({
        "name": format!("ink-{}", guest.number), "status": status, "status_code": code, "architecture": "x86_64",
        "type": if guest.kind == GuestKind::Lxc { "container" } else { "virtual-machine" }, "project": "default",
        "config": config, "expanded_config": config, "devices": devices, "expanded_devices": devices, "profiles": [],
        "ephemeral": false, "stateful": false, "description": "", "location": "none",
        "created_at": "2026-01-01T00:00:00Z", "last_used_at": guest.shown.started.unwrap_or_default(),
    });
    if whole {
        instance["backups"] = Value::Null;
        instance["snapshots"] = Value::Null;
        instance["state"] = state(guest, status, code);
    }
    instance
}

fn state(guest: &Guest, status: &str, code: u16) -> Value {
    let shown = &guest.shown;
    let counters = |received: u64, sent: u64| {
        json!({
            "bytes_received": received, "packets_received": received / 900,
            "bytes_sent": sent, "packets_sent": sent / 900,
            "errors_received": 0, "errors_sent": 0, "packets_dropped_outbound": 0, "packets_dropped_inbound": 0,
        })
    };
    let network = json!({
        "eth0": {
            "addresses": [], "counters": counters(shown.net_in, shown.net_out), "hwaddr": "10:66:6a:00:00:01",
            "host_name": format!("veth{}", guest.number), "mtu": 1500, "state": "up", "type": "broadcast",
        },
        "lo": {
            "addresses": [{"family": "inet", "address": "127.0.0.1", "netmask": "8", "scope": "local"}],
            "counters": counters(0, 0), "hwaddr": "", "host_name": "", "mtu": 65_536, "state": "up", "type": "loopback",
        },
    });
    let memory = if guest.is_running() { guest.memory_used() } else { 0 };
    json!({
        "status": status, "status_code": code, "disk": {"root": {"usage": guest.disk_used(), "total": guest.disk}},
        "memory": {"usage": memory, "usage_peak": memory, "total": guest.memory, "swap_usage": 0, "swap_usage_peak": 0},
        "network": guest.is_running().then_some(network), "pid": if guest.is_running() { 4711 } else { 0 },
        "processes": if guest.is_running() { 12 } else { 0 },
        "cpu": {"usage": shown.cpu_ns, "allocated_time": u64::from(guest.cores) * 1_000_000_000},
        // Go's zero time.
        "started_at": shown.started.map_or_else(|| json!("0001-01-01T00:00:00Z"), |at: DateTime<Utc>| json!(at)),
        "os_info": null,
    })
}

fn server() -> Value {
    json!({
        "api_version": "1.0", "api_status": "stable", "api_extensions": EXTENSIONS, "auth": "trusted",
        "auth_methods": ["tls"], "auth_user_method": "unix", "auth_user_name": "root", "public": false, "config": {},
        "environment": {
            "server": "incus", "server_name": "incus1", "server_version": "6.0.4", "server_clustered": false,
            "driver": "lxc", "driver_version": "5.0.2", "firewall": "nftables", "storage": "zfs", "project": "default",
        },
    })
}

fn pool(name: &str) -> Value {
    json!({
        "name": name, "driver": "zfs", "status": "Created", "config": {"source": name}, "used_by": [],
        "locations": ["none"],
    })
}

/// Answers a GET of a path below `/1.0`.
pub(crate) fn answer(host: &Host, path: &str, query: &str) -> (u16, Bytes) {
    let Some(path) = path.strip_prefix("/1.0") else { return error(404, "Not Found") };
    let recursion = query.split('&').find_map(|pair| pair.strip_prefix("recursion=")).unwrap_or("0");
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match segments[..] {
        [] => data(&server()),
        ["resources"] => data(&json!({ "cpu": {"total": CORES}, "memory": {"total": MEMORY, "used": MEMORY / 2} })),
        ["storage-pools", name] => data(&pool(name)),
        ["storage-pools", _, "resources"] => data(&json!({ "space": {"used": DISK / 4, "total": DISK} })),
        ["projects", name] => data(&json!({ "name": name, "description": "", "config": {}, "used_by": [] })),
        ["operations"] => data(&json!({})),
        ["instances"] => {
            let list =
                |key, show: fn(&Guest) -> Value| host.list(key, |guests| data(&guests.map(show).collect()).1.to_vec());
            let list = match recursion {
                "2" => list("2", |guest| instance(guest, true)),
                "1" => list("1", |guest| instance(guest, false)),
                _ => list("0", |guest| json!(format!("/1.0/instances/ink-{}", guest.number))),
            };
            (200, list)
        }
        ["instances", name, ref rest @ ..] => {
            let number = name.strip_prefix("ink-").and_then(|number| number.parse().ok());
            match (number.and_then(|number| host.guest(number)), rest) {
                (Some(guest), []) => data(&instance(&guest, false)),
                (Some(guest), ["state"]) => data(&instance(&guest, true)["state"]),
                _ => error(404, "Instance not found"),
            }
        }
        _ => error(404, "Not Found"),
    }
}

fn data(metadata: &Value) -> (u16, Bytes) {
    let envelope = json!({
        "type": "sync", "status": "Success", "status_code": 200, "operation": "", "error_code": 0, "error": "",
        "metadata": metadata,
    });
    (200, Bytes::from(envelope.to_string()))
}

/// An error response.
pub(crate) fn error(status: u16, text: &str) -> (u16, Bytes) {
    let envelope = json!({
        "type": "error", "status": "", "status_code": 0, "operation": "", "error_code": status, "error": text,
        "metadata": null,
    });
    (status, Bytes::from(envelope.to_string()))
}
