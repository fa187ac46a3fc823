//! Preflight checks of a cluster: a sentence for each problem. And what tells one cluster from another.

use hypervisor::{Error, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::api::{GuestConfig, Properties, Resource};
use crate::client::Client;
use crate::images;
use crate::resources::ClusterResources;

/// Kinds of storages without snapshots for containers, and for machines only with qcow2.
const FILES: &[&str] = &["dir", "nfs", "cifs", "glusterfs"];
/// Kinds of storages without snapshots.
const PLAIN: &[&str] = &["lvm", "iscsi", "iscsidirect"];

/// Whether the storage of root disks lacks snapshots.
pub(crate) fn snapshots(rows: &[Resource], storage: &str) -> Option<String> {
    let row = rows.iter().find(|row| row.kind == "storage" && row.storage == storage)?;
    let kind = row.plugintype.as_str();
    let what = match kind {
        _ if FILES.contains(&kind) => "containers, and of VMs only if their disks are qcow2",
        // Version 9 can chain volumes for it, if that is switched on, and for machines only.
        _ if PLAIN.contains(&kind) => "containers, and of VMs only if volume chains are enabled",
        _ => return None,
    };
    Some(format!(
        "The storage {storage} is of the type {kind}, which does not support snapshots of {what}: they are refused to \
         customers. Use lvmthin, zfspool, btrfs or rbd to offer snapshots."
    ))
}

/// The storages for container templates that we may see.
pub(crate) fn template_storages(rows: &[Resource]) -> Vec<String> {
    let holding = rows.iter().filter(|row| row.kind == "storage" && row.content.split(',').any(|c| c == "vztmpl"));
    let mut names: Vec<String> = holding.map(|row| row.storage.clone()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The fingerprint of the cluster's own CA: each cluster, and each standalone node, has made its own. Empty where it
/// can't be read, which is no problem for using the cluster.
pub(crate) async fn identity(client: &Client, online: &[&str]) -> Vec<String> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Certificate {
        filename: Option<String>,
        fingerprint: Option<String>,
    }
    let Some(node) = online.first() else { return Vec::new() };
    let all: Vec<Certificate> = client.get(&["nodes", node, "certificates", "info"], &[]).await.unwrap_or_default();
    let own = all.into_iter().filter(|c| c.filename.as_deref().is_some_and(|name| name.ends_with("pve-root-ca.pem")));
    own.filter_map(|c| c.fingerprint).map(|text| text.replace(':', "").to_lowercase()).collect()
}

pub(crate) async fn storages(
    client: &Client,
    list: &ClusterResources,
    online: &[&str],
    problems: &mut Vec<String>,
) -> Result<()> {
    let rows = &list.rows;
    let storage = client.config.storage.as_str();
    let holds = |row: &Resource, content: &str| row.content.split(',').any(|c| c == content);
    let machines = images::machine_nodes(client, list).await?;
    for node in online {
        let of_node = || rows.iter().filter(|row| row.kind == "storage" && row.node == *node);
        match of_node().find(|row| row.storage == storage) {
            None => problems.push(format!(
                "The storage {storage} is not on the node {node}, or the token can't see it: choose another one, or \
                 give the token Datastore.Audit on /storage/{storage}."
            )),
            Some(row) if row.status != "available" => {
                problems.push(format!("The storage {storage} on the node {node} is {}.", row.status));
            }
            Some(row) if !holds(row, "rootdir") && !holds(row, "images") => problems.push(format!(
                "The storage {storage} allows neither containers (rootdir) nor VMs (images): change its content types."
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
                "The node {node} has nothing to create guests from: download a container template (pveam download), or \
                 turn a VM with cloud-init into a template. The token must be able to see it (Datastore.Audit on the \
                 storage, VM.Audit on the template)."
            ));
        }
    }
    Ok(())
}

pub(crate) async fn bridges(client: &Client, online: &[&str], problems: &mut Vec<String>) -> Result<()> {
    for node in online {
        let bridges: Vec<Value> = client.get(&["nodes", node, "network"], &[("type", "any_bridge")]).await?;
        if bridges.is_empty() {
            problems.push(format!(
                "The node {node} has no bridge that the token may use: create one (vmbr0), and give the token SDN.Use \
                 on /sdn/zones/localnetwork."
            ));
        }
    }
    Ok(())
}

/// `None` without the rights to read it, which have been reported by then.
async fn readable(client: &Client, path: &[&str]) -> Result<Option<GuestConfig>> {
    match client.get(path, &[]).await {
        Ok(options) => Ok(Some(options)),
        Err(Error::Forbidden(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) async fn tags(client: &Client, problems: &mut Vec<String>) -> Result<()> {
    let options = readable(client, &["cluster", "options"]).await?.unwrap_or_default();
    // A JSON object in some versions, a property string in others.
    let text = options.get("user-tag-access").unwrap_or_default();
    let parsed: Option<Value> = serde_json::from_str(&text).ok();
    let allow = match &parsed {
        Some(access) => access.get("user-allow").and_then(Value::as_str).map(str::to_owned),
        None => Properties::parse(&text).get("user-allow").map(str::to_owned),
    };
    if allow.is_some_and(|allow| allow != "free") {
        problems.push(
            "The datacenter restricts the tags that users may set, but Innkeeper marks its guests with a tag of its \
             own: set User Tag Access to free (Datacenter, Options)."
                .to_owned(),
        );
    }
    Ok(())
}

pub(crate) async fn firewall(client: &Client, online: &[&str], problems: &mut Vec<String>) -> Result<()> {
    if !client.config.address_filters {
        problems.push(
            "Address filters are switched off: guests on the same bridge can use each other's addresses. Switch \
             address_filters on and enable the datacenter's firewall."
                .to_owned(),
        );
        return Ok(());
    }
    let on = |options: &GuestConfig, default: bool| options.get("enable").map_or(default, |flag| flag != "0");
    if let Some(options) = readable(client, &["cluster", "firewall", "options"]).await? {
        if !on(&options, false) {
            problems.push(
                "The datacenter's firewall is off, so nothing prevents a guest from using another's address: allow \
                 what the nodes themselves need, then enable it (Datacenter, Firewall, Options)."
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
                "The firewall of the node {node} is off, so nothing prevents its guests from using each other's \
                 addresses: enable it (the node, Firewall, Options)."
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storages_without_snapshots_are_named_by_their_kind() {
        for (kind, named) in [
            ("dir", true),
            ("nfs", true),
            ("cifs", true),
            ("lvm", true),
            ("lvmthin", false),
            ("zfspool", false),
            ("", false),
        ] {
            let text = format!(r#"[{{"type":"storage","storage":"s","node":"a","plugintype":"{kind}"}}]"#);
            let rows: Vec<Resource> = serde_json::from_str(&text).unwrap();
            assert_eq!(snapshots(&rows, "s").is_some(), named, "{kind}");
            assert_eq!(snapshots(&rows, "other"), None);
        }
    }
}
