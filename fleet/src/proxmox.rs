//! Responses of Proxmox VE 9.2, as recorded and as in its schema.

use bytes::Bytes;
use chrono::Utc;
use serde::Serialize;
use serde_json::{Value, json};

use crate::guest::{Guest, GuestKind};
use crate::host::Host;

/// The token that drivers are given; any other is accepted too.
pub(crate) const TOKEN_ID: &str = "innkeeper@pve!fleet";
pub(crate) const TOKEN_SECRET: &str = "00000000-0000-4000-8000-000000000000";
/// The storage of root disks.
pub(crate) const STORAGE: &str = "local-lvm";

const GIB: u64 = 1 << 30;
const NODE_CORES: u32 = 64;
const NODE_MEMORY: u64 = 512 * GIB;
const NODE_DISK: u64 = 94 * GIB;
const STORAGE_DISK: u64 = 16 << 40;
const NODE_UPTIME: u64 = 90 * 86_400;

/// The privileges that the preflight checks, and a few more.
const PRIVILEGES: &[&str] = &[
    "Datastore.AllocateSpace",
    "Datastore.Audit",
    "SDN.Use",
    "Sys.Audit",
    "VM.Allocate",
    "VM.Audit",
    "VM.Clone",
    "VM.Config.CPU",
    "VM.Config.Cloudinit",
    "VM.Config.Disk",
    "VM.Config.Memory",
    "VM.Config.Network",
    "VM.Config.Options",
    "VM.Console",
    "VM.GuestAgent.Audit",
    "VM.GuestAgent.Unrestricted",
    "VM.PowerMgmt",
    "VM.Snapshot",
    "VM.Snapshot.Rollback",
];

/// A guest's row in `/cluster/resources`.
#[derive(Serialize)]
struct GuestRow<'a> {
    id: String,
    #[serde(rename = "type")]
    kind: &'a str,
    node: &'a str,
    vmid: i64,
    name: String,
    status: &'a str,
    template: u8,
    tags: String,
    cpu: f64,
    maxcpu: u32,
    mem: u64,
    memhost: u64,
    maxmem: u64,
    disk: u64,
    maxdisk: u64,
    diskread: u64,
    diskwrite: u64,
    netin: u64,
    netout: u64,
    uptime: u64,
}

fn node_name(node: usize) -> String {
    format!("pve{}", node + 1)
}

fn node_names(host: &Host) -> Vec<String> {
    (0..host.0.nodes).map(node_name).collect()
}

fn word(kind: GuestKind) -> &'static str {
    match kind {
        GuestKind::Lxc => "lxc",
        GuestKind::Vm => "qemu",
    }
}

fn tags(guest: &Guest) -> String {
    format!("innkeeper-{}-{}", guest.number, guest.marker)
}

fn status(guest: &Guest) -> &'static str {
    if guest.is_running() { "running" } else { "stopped" }
}

fn guest_row<'a>(guest: &Guest, nodes: &'a [String]) -> GuestRow<'a> {
    let (kind, shown) = (word(guest.kind), &guest.shown);
    GuestRow {
        id: format!("{kind}/{}", guest.number),
        kind,
        node: &nodes[guest.node],
        vmid: guest.number,
        name: format!("server-{}", guest.number),
        status: status(guest),
        template: 0,
        tags: tags(guest),
        cpu: shown.share.cpu,
        maxcpu: guest.cores,
        mem: guest.memory_used(),
        // A VM's process needs some memory on top.
        memhost: guest.memory_used() + (16 << 20),
        maxmem: guest.memory,
        // Nodes only know the size of a VM's disk, not its usage.
        disk: if guest.kind == GuestKind::Lxc { guest.disk_used() } else { 0 },
        maxdisk: guest.disk,
        diskread: shown.disk_read,
        diskwrite: shown.disk_write,
        netin: shown.net_in,
        netout: shown.net_out,
        uptime: guest.uptime(Utc::now()),
    }
}

fn node_row(node: &str) -> Value {
    json!({
        "id": format!("node/{node}"), "type": "node", "node": node, "status": "online", "level": "", "cgroup-mode": 2,
        "cpu": 0.25, "maxcpu": NODE_CORES, "mem": NODE_MEMORY / 2, "maxmem": NODE_MEMORY, "disk": NODE_DISK / 4,
        "maxdisk": NODE_DISK, "uptime": NODE_UPTIME,
    })
}

fn storage_rows(node: &str) -> [Value; 2] {
    let row = |storage: &str, plugin: &str, content: &str, size: u64| {
        json!({
            "id": format!("storage/{node}/{storage}"), "type": "storage", "node": node, "storage": storage,
            "plugintype": plugin, "content": content, "status": "available", "shared": 0,
            "disk": size / 4, "maxdisk": size,
        })
    };
    [row("local", "dir", "iso,vztmpl,backup", NODE_DISK), row(STORAGE, "lvmthin", "rootdir,images", STORAGE_DISK)]
}

fn network_row(node: &str) -> Value {
    json!({
        "id": format!("network/{node}/zone/localnetwork"), "type": "network", "node": node, "network": "localnetwork",
        "network-type": "zone", "status": "ok",
    })
}

/// `/cluster/resources`, complete or limited to one type.
fn resources(host: &Host, of: Option<&str>) -> Option<Bytes> {
    let (key, guests, nodes, storages, networks) = match of {
        None => ("all", true, true, true, true),
        Some("vm") => ("vm", true, false, false, false),
        Some("node") => ("node", false, true, false, false),
        Some("storage") => ("storage", false, false, true, false),
        Some("sdn") => ("sdn", false, false, false, true),
        Some(_) => return None,
    };
    let names = node_names(host);
    Some(host.list(key, |shown| {
        let mut list = Rows::new();
        if guests {
            shown.for_each(|guest| list.push(&guest_row(guest, &names)));
        }
        for name in &names {
            nodes.then(|| list.push(&node_row(name)));
            storages.then(|| storage_rows(name).iter().for_each(|row| list.push(row)));
            networks.then(|| list.push(&network_row(name)));
        }
        list.end()
    }))
}

/// Builds `{"data":[…]}` row by row.
struct Rows(Vec<u8>);

impl Rows {
    fn new() -> Self {
        Self(br#"{"data":["#.to_vec())
    }

    fn push(&mut self, row: &impl Serialize) {
        if !self.0.ends_with(b"[") {
            self.0.push(b',');
        }
        // Serializing plain rows into memory can't fail.
        let _ = serde_json::to_writer(&mut self.0, row);
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(b"]}");
        self.0
    }
}

fn cluster_status(host: &Host) -> Value {
    let cluster = json!({
        "id": "cluster", "type": "cluster", "name": "fleet", "nodes": host.0.nodes, "quorate": 1,
        "version": host.0.nodes,
    });
    let node = |(n, name): (usize, String)| {
        json!({
            "id": format!("node/{name}"), "type": "node", "name": name, "nodeid": n + 1, "online": 1,
            "local": u8::from(n == 0), "ip": format!("10.0.{}.{}", n / 250, n % 250 + 1), "level": "",
        })
    };
    // A single node is not part of a cluster.
    let cluster = (host.0.nodes > 1).then_some(cluster);
    cluster.into_iter().chain(node_names(host).into_iter().enumerate().map(node)).collect()
}

fn of_guest(host: &Host, node: &str, kind: &str, number: &str, rest: &str) -> (u16, Bytes) {
    let guest = number.parse().ok().and_then(|number| host.guest(number));
    let here = guest.filter(|guest| word(guest.kind) == kind && node_name(guest.node) == node);
    let Some(guest) = here else {
        let folder = if kind == "lxc" { "lxc" } else { "qemu-server" };
        return error(500, &format!("Configuration file 'nodes/{node}/{folder}/{number}.conf' does not exist"));
    };
    let text = format!("This guest belongs to a server of Innkeeper ({}). Change it there.\n", tags(&guest));
    match rest {
        "status/current" => {
            let row = serde_json::to_value(guest_row(&guest, &node_names(host))).unwrap_or_default();
            let mut row = row.as_object().cloned().unwrap_or_default();
            row.retain(|key, _| !matches!(key.as_str(), "id" | "node" | "maxcpu" | "template"));
            row.extend([("cpus".to_owned(), json!(guest.cores)), ("ha".to_owned(), json!({ "managed": 0 }))]);
            if guest.kind == GuestKind::Vm {
                row.insert("qmpstatus".to_owned(), json!(status(&guest)));
            }
            data(&Value::Object(row))
        }
        "config" => data(&json!({
            "description": text, "tags": tags(&guest), "cores": guest.cores, "memory": guest.memory >> 20,
            "digest": format!("{:040x}", guest.number),
        })),
        _ => missing(&format!("/nodes/{node}/{kind}/{number}/{rest}")),
    }
}

/// Answers a GET of a path below `/api2/json`.
pub(crate) fn answer(host: &Host, path: &str, query: &str) -> (u16, Bytes) {
    let Some(path) = path.strip_prefix("/api2/json") else { return missing(path) };
    let parameter = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match segments[..] {
        ["version"] => data(&json!({ "version": "9.2.0", "release": "9.2", "repoid": "14a22df3" })),
        ["access", "permissions"] => {
            let all: Value = PRIVILEGES.iter().map(|privilege| ((*privilege).to_owned(), json!(1))).collect();
            data(&json!({ "/": all }))
        }
        ["cluster", "resources"] => match resources(host, parameter("type")) {
            Some(list) => (200, list),
            None => error(400, "Parameter verification failed."),
        },
        ["cluster", "status"] => data(&cluster_status(host)),
        ["cluster", "nextid"] => {
            match parameter("vmid").and_then(|id| id.parse().ok()).map(|id: i64| (id, host.guest(id))) {
                Some((id, Some(_))) => body(
                    400,
                    &json!({
                        "data": null, "message": "Parameter verification failed.\n",
                        "errors": {"vmid": format!("VM {id} already exists")},
                    }),
                ),
                Some((id, None)) => data(&json!(id.to_string())),
                None => data(&json!("100")),
            }
        }
        ["cluster", "options"] => data(&json!({ "keyboard": "en-us" })),
        ["cluster", "firewall", "options"] => data(&json!({ "enable": 1 })),
        ["nodes"] => data(&node_names(host).iter().map(|name| node_row(name)).collect()),
        ["nodes", node, ..] if !node_names(host).iter().any(|name| name == node) => {
            error(500, &format!("hostname lookup '{node}' failed - failed to get address info for: {node}"))
        }
        ["nodes", _, "firewall", "options"] => data(&json!({})),
        ["nodes", _, "network"] => {
            data(&json!([{ "iface": "vmbr0", "type": "bridge", "active": 1, "autostart": 1, "bridge_ports": "eno1" }]))
        }
        ["nodes", _, "storage", "local", "content"] => data(&json!([{
            "volid": "local:vztmpl/debian-12-standard_12.12-1_amd64.tar.zst", "content": "vztmpl", "format": "tzst",
            "size": 126_515_062,
        }])),
        ["cluster", "backup-info", "not-backed-up"] | ["nodes", _, "tasks"] | ["nodes", _, "storage", _, "content"] => {
            data(&json!([]))
        }
        ["nodes", node, kind @ ("lxc" | "qemu"), number, ref rest @ ..] => {
            of_guest(host, node, kind, number, &rest.join("/"))
        }
        _ => missing(path),
    }
}

fn data(data: &Value) -> (u16, Bytes) {
    body(200, &json!({ "data": data }))
}

fn body(status: u16, body: &Value) -> (u16, Bytes) {
    (status, Bytes::from(body.to_string()))
}

fn missing(path: &str) -> (u16, Bytes) {
    error(501, &format!("Method 'GET {path}' not implemented"))
}

/// An error response.
pub(crate) fn error(status: u16, text: &str) -> (u16, Bytes) {
    body(status, &json!({ "data": null, "message": format!("{text}\n") }))
}
