//! The preflight: whether we may do our work on a cluster, a sentence for each thing that is missing.

use std::collections::BTreeMap;

use hypervisor::{Error, HostInfo, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::api::{Config, Properties, Resource};
use crate::client::Client;
use crate::resources::{self, Resources};
use crate::{clones, images, preflight, sweep};

/// Privileges on guests, in every version.
const ON_GUESTS: &[&str] = &[
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
    "VM.PowerMgmt",
    "VM.Snapshot",
    "VM.Snapshot.Rollback",
];

#[derive(Debug, Deserialize)]
struct Version {
    version: String,
}

/// What a token may do: privileges by path.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Permissions(BTreeMap<String, BTreeMap<String, Value>>);

impl Permissions {
    /// Whether a privilege is held on a path: the nearest path above that has any decides. Each is told with a flag, whether
    /// it is handed down, which it must be where something below is meant.
    fn has(&self, path: &str, privilege: &str) -> bool {
        let mut at = path;
        loop {
            if let Some(held) = self.0.get(at) {
                return held.get(privilege).is_some_and(|flag| is_on(flag) || (at == path && is_one_thing(path)));
            }
            match at.rfind('/') {
                _ if at == "/" => return false,
                Some(0) | None => at = "/",
                Some(end) => at = &at[..end],
            }
        }
    }

    /// Whether anything is said of this very path.
    pub(crate) fn names(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    pub(crate) fn missing<'a>(&self, path: &str, wanted: &[&'a str]) -> Vec<&'a str> {
        wanted.iter().copied().filter(|privilege| !self.has(path, privilege)).collect()
    }
}

/// Whether a path names one thing, and does not stand for all that is below it.
fn is_one_thing(path: &str) -> bool {
    let number = path.strip_prefix("/vms/").is_some_and(|number| !number.is_empty());
    number || path.strip_prefix("/storage/").is_some_and(|name| !name.is_empty())
}

fn is_on(flag: &Value) -> bool {
    match flag {
        Value::String(text) => !matches!(text.as_str(), "" | "0"),
        Value::Bool(flag) => *flag,
        other => other.as_f64() != Some(0.0),
    }
}

/// What must be held where, in a version. The privileges of the guest agent were renamed in 9.
pub(crate) fn needed(major: u32, storage: &str, pool: Option<&str>) -> Vec<(String, Vec<&'static str>)> {
    let agent: &[&str] =
        if major >= 9 { &["VM.GuestAgent.Audit", "VM.GuestAgent.Unrestricted"] } else { &["VM.Monitor"] };
    let mut needed = vec![
        ("/".to_owned(), vec!["Sys.Audit"]),
        (
            pool.map_or_else(|| "/vms".to_owned(), |pool| format!("/pool/{pool}")),
            ON_GUESTS.iter().chain(agent).copied().collect(),
        ),
        (format!("/storage/{storage}"), vec!["Datastore.AllocateSpace", "Datastore.Audit"]),
        ("/sdn/zones/localnetwork".to_owned(), vec!["SDN.Use"]),
    ];
    if pool.is_some() {
        // A number that no guest has is in no pool, and must be seen to be free all the same.
        needed.push(("/vms".to_owned(), vec!["VM.Audit"]));
    }
    needed
}

pub(crate) async fn info(client: &Client) -> Result<HostInfo> {
    let version: Version = client.get(&["version"], &[]).await?;
    let major = version.version.split('.').next().and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut problems = Vec::new();
    if !(8..=9).contains(&major) {
        problems
            .push(format!("The nodes run Proxmox VE {}: only versions 8 and 9 are known to work.", version.version));
    }
    let config = &client.config;
    let permissions: Permissions = client.get(&["access", "permissions"], &[]).await?;
    for (path, privileges) in needed(major, &config.storage, config.pool.as_deref()) {
        let missing = permissions.missing(&path, &privileges);
        if !missing.is_empty() {
            problems.push(format!(
                "The token {} lacks {} on {path}: give them to its role (a token with privilege separation needs the \
                 role as well as its user).",
                config.token_id,
                missing.join(", ")
            ));
        }
    }
    let list = resources::read(client).await?;
    let nodes = sweep::nodes(&list, &config.storage);
    if nodes.is_empty() {
        problems.push(format!("The token {} is shown no node: give it Sys.Audit on /nodes.", config.token_id));
    }
    for node in list.nodes() {
        match node.status.as_str() {
            "online" if sweep::in_maintenance(node) => {
                problems.push(format!("The node {} is in maintenance: no new guests are made there.", node.node));
            }
            "online" => {}
            _ => problems.push(format!("The node {} is not online.", node.node)),
        }
    }
    let online: Vec<&str> = nodes.iter().filter(|node| node.online).map(|node| node.name.as_str()).collect();
    storages(client, &list, &online, &mut problems).await?;
    problems.extend(clones::problems(client, &list.rows).await?);
    problems.extend(preflight::snapshots(&list.rows, &config.storage));
    bridges(client, &online, &mut problems).await?;
    firewall(client, &online, &mut problems).await?;
    tags(client, &mut problems).await?;
    let identity = preflight::identity(client, &online).await;
    let template_storages = preflight::template_storages(&list.rows);
    let version = format!("Proxmox VE {}", version.version);
    Ok(HostInfo { version, nodes, problems, major, identity, template_storages })
}

async fn storages(client: &Client, list: &Resources, online: &[&str], problems: &mut Vec<String>) -> Result<()> {
    let rows = &list.rows;
    let storage = client.config.storage.as_str();
    let holds = |row: &Resource, content: &str| row.content.split(',').any(|c| c == content);
    let machines = images::machine_nodes(client, list).await?;
    for node in online {
        let of_node = || rows.iter().filter(|row| row.kind == "storage" && row.node == *node);
        match of_node().find(|row| row.storage == storage) {
            None => problems.push(format!(
                "The storage {storage} is not on the node {node}, or the token may not see it: name another one, or give \
                 the token Datastore.Audit on /storage/{storage}."
            )),
            Some(row) if row.status != "available" => {
                problems.push(format!("The storage {storage} on the node {node} is {}.", row.status));
            }
            Some(row) if !holds(row, "rootdir") && !holds(row, "images") => problems.push(format!(
                "The storage {storage} holds neither containers (rootdir) nor machines (images): change its content."
            )),
            Some(_) => {}
        }
        let mut archives = 0;
        for row in of_node().filter(|row| row.status == "available" && holds(row, "vztmpl")) {
            let path = ["nodes", node, "storage", &row.storage, "content"];
            match client.get::<Vec<Value>>(&path, &[("content", "vztmpl")]).await {
                Ok(volumes) => archives += volumes.len(),
                Err(Error::Forbidden(_)) => {}
                Err(error) => return Err(error),
            }
        }
        if archives == 0 && !machines.contains(*node) {
            problems.push(format!(
                "There is nothing to make guests from on the node {node}: download a container template (pveam download), \
                 or make a machine with cloud-init a template. The token must see it (Datastore.Audit on the storage, \
                 VM.Audit on the template)."
            ));
        }
    }
    Ok(())
}

async fn bridges(client: &Client, online: &[&str], problems: &mut Vec<String>) -> Result<()> {
    for node in online {
        let bridges: Vec<Value> = client.get(&["nodes", node, "network"], &[("type", "any_bridge")]).await?;
        if bridges.is_empty() {
            problems.push(format!(
                "The node {node} has no bridge that the token may use: make one (vmbr0), and give the token SDN.Use on \
                 /sdn/zones/localnetwork."
            ));
        }
    }
    Ok(())
}

/// What may be read where our rights reach; what they lack was said before.
async fn readable(client: &Client, path: &[&str]) -> Result<Option<Config>> {
    match client.get(path, &[]).await {
        Ok(options) => Ok(Some(options)),
        Err(Error::Forbidden(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn tags(client: &Client, problems: &mut Vec<String>) -> Result<()> {
    let options = readable(client, &["cluster", "options"]).await?.unwrap_or_default();
    // Parsed in some versions, a property string in others.
    let text = options.get("user-tag-access").unwrap_or_default();
    let parsed: Option<Value> = serde_json::from_str(&text).ok();
    let allow = match &parsed {
        Some(access) => access.get("user-allow").and_then(Value::as_str).map(str::to_owned),
        None => Properties::parse(&text).get("user-allow").map(str::to_owned),
    };
    if allow.is_some_and(|allow| allow != "free") {
        problems.push(
            "The datacenter lets users set only some tags, and Innkeeper marks its guests with one of its own: set User \
             Tag Access to free (Datacenter, Options)."
                .to_owned(),
        );
    }
    Ok(())
}

async fn firewall(client: &Client, online: &[&str], problems: &mut Vec<String>) -> Result<()> {
    if !client.config.address_filters {
        problems.push(
            "Address filters are switched off: guests on one bridge can take each other's addresses. Switch \
             address_filters on and enable the datacenter's firewall."
                .to_owned(),
        );
        return Ok(());
    }
    let on = |options: &Config, default: bool| options.get("enable").map_or(default, |flag| flag != "0");
    if let Some(options) = readable(client, &["cluster", "firewall", "options"]).await? {
        if !on(&options, false) {
            problems.push(
                "The datacenter's firewall is off, so nothing keeps a guest from taking another's address: allow what \
                 the nodes themselves need, then enable it (Datacenter, Firewall, Options)."
                    .to_owned(),
            );
        }
        if options.get("ebtables").is_some_and(|flag| flag == "0") {
            problems.push(
                "The datacenter's firewall does not filter ARP, so a guest can answer for another's address: enable \
                 ebtables (Datacenter, Firewall, Options)."
                    .to_owned(),
            );
        }
    }
    for node in online {
        let path = ["nodes", node, "firewall", "options"];
        if readable(client, &path).await?.is_some_and(|options| !on(&options, true)) {
            problems.push(format!(
                "The firewall of the node {node} is off, so nothing keeps its guests from taking each other's addresses: \
                 enable it (the node, Firewall, Options)."
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permissions(text: &str) -> Permissions {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_nearest_path_decides() {
        let held = permissions(r#"{"/":{"Sys.Audit":1},"/vms":{"VM.Audit":1},"/vms/100":{"VM.Console":1}}"#);
        assert!(held.has("/nodes/a", "Sys.Audit") && held.has("/vms/7", "VM.Audit"));
        assert!(!held.has("/vms/100", "VM.Audit") && !held.has("/vms", "Sys.Audit"));
        assert_eq!(held.missing("/vms", &["VM.Audit", "VM.Clone"]), ["VM.Clone"]);
        assert!(!permissions("{}").has("/", "Sys.Audit"));
    }

    #[test]
    fn a_right_that_is_not_handed_down_is_none_for_what_is_below() {
        let held = permissions(
            r#"{"/":{"Sys.Audit":0},"/vms":{"VM.Audit":0,"VM.Clone":1,"VM.Console":"0"},"/storage/s":{"Datastore.Audit":0}}"#,
        );
        assert_eq!(held.missing("/vms", &["VM.Audit", "VM.Clone", "VM.Console"]), ["VM.Audit", "VM.Console"]);
        assert!(!held.has("/vms/100", "VM.Audit") && held.has("/vms/100", "VM.Clone"));
        assert!(!held.has("/", "Sys.Audit") && !held.has("/nodes/a", "Sys.Audit"));
        assert!(held.has("/storage/s", "Datastore.Audit"), "the storage itself is what is asked for");
    }

    #[test]
    fn the_agent_s_privileges_changed_with_9() {
        let all =
            |major| needed(major, "s", None).into_iter().flat_map(|(_, privileges)| privileges).collect::<Vec<_>>();
        assert!(all(8).contains(&"VM.Monitor") && !all(8).contains(&"VM.GuestAgent.Audit"));
        assert!(!all(9).contains(&"VM.Monitor") && all(9).contains(&"VM.GuestAgent.Unrestricted"));
        assert!(needed(9, "s", Some("p")).iter().any(|(path, _)| path == "/pool/p"));
    }
}
