//! What guests are made from, and on which nodes: an archive on the nodes whose storage has it; a machine template on
//! other nodes only if all of its disks, and those of the clone, are on shared storages.

use std::collections::BTreeSet;

use hypervisor::{Error, GuestKind, Result};
use serde::Deserialize;

use crate::api::{GuestConfig, Properties, Resource};
use crate::client::Client;
use crate::place::{self, Place};
use crate::resources::{self, ClusterResources};
use crate::rows::rows;

/// Buses for a VM's disks.
const BUSES: &[&str] = &["ide", "sata", "scsi", "virtio", "efidisk", "tpmstate"];

/// The nodes that have an archive; of the nodes that share its storage, one is asked.
pub(crate) async fn of_archive(
    client: &Client,
    list: &ClusterResources,
    up: &[&str],
    volume: &str,
) -> Result<BTreeSet<String>> {
    let Some((storage, _)) = archive(volume) else { return Ok(BTreeSet::new()) };
    let mut found = BTreeSet::new();
    let (shared, own): (Vec<_>, Vec<_>) =
        rows_of(list, storage).filter(|row| up.contains(&row.node.as_str())).partition(|row| row.shared);
    if let Some(row) = shared.first()
        && has_archive(client, &row.node, volume).await?
    {
        found.extend(shared.iter().map(|row| row.node.clone()));
    }
    for row in own {
        if has_archive(client, &row.node, volume).await? {
            found.insert(row.node.clone());
        }
    }
    Ok(found)
}

/// The nodes that a machine template can be cloned to.
pub(crate) async fn of_template(client: &Client, list: &ClusterResources, source: &str) -> Result<BTreeSet<String>> {
    reach(client, list, &templates(list, source)).await
}

/// The nodes that any machine template can be cloned to.
pub(crate) async fn machine_nodes(client: &Client, list: &ClusterResources) -> Result<BTreeSet<String>> {
    let all: Vec<&Resource> = list.rows.iter().filter(|row| row.kind == "qemu" && row.template).collect();
    reach(client, list, &all).await
}

async fn reach(client: &Client, list: &ClusterResources, templates: &[&Resource]) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for template in templates {
        found.insert(template.node.clone());
        if is_movable(client, list, template).await? {
            found.extend(rows_of(list, &client.config.storage).map(|row| row.node.clone()));
        }
    }
    Ok(found)
}

/// The template to clone for a guest on `node`, by number or name; of several, the one on that node.
pub(crate) async fn template(client: &Client, node: &str, source: &str) -> Result<Resource> {
    let list = resources::read(client).await?;
    let mut all = templates(&list, source);
    all.sort_by_key(|row| (row.node != node, row.vmid));
    for template in &all {
        if template.node == node || is_movable(client, &list, template).await? {
            return Ok((*template).clone());
        }
    }
    Err(Error::NotFound(match all.first() {
        None => format!("VM template {source}"),
        Some(other) => {
            format!("VM template {source} on {node}: the one on {} has disks on storages of that node only", other.node)
        }
    }))
}

pub(crate) fn templates<'a>(list: &'a ClusterResources, source: &str) -> Vec<&'a Resource> {
    let named = |row: &&Resource| row.vmid.to_string() == source || row.name == source;
    list.rows.iter().filter(|row| row.kind == "qemu" && row.template).filter(named).collect()
}

/// Whether a template can be cloned to other nodes.
async fn is_movable(client: &Client, list: &ClusterResources, template: &Resource) -> Result<bool> {
    let shared = |storage: &str| rows_of(list, storage).any(|row| row.shared);
    if !shared(&client.config.storage) || !list.nodes().any(|row| row.node != template.node) {
        return Ok(false);
    }
    let at = Place { node: template.node.clone(), kind: GuestKind::Vm, vmid: template.vmid.to_string() };
    let config = place::config(client, &at).await?;
    Ok(storages(&config).iter().all(|storage| shared(storage)))
}

/// The storages of a VM's disks.
fn storages(config: &GuestConfig) -> BTreeSet<String> {
    let is_disk = |key: &&str| {
        BUSES
            .iter()
            .any(|bus| key.strip_prefix(bus).is_some_and(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit())))
    };
    let volumes = config.keys().filter(is_disk).filter_map(|key| Properties::parse(&config.get(key)?).head);
    volumes.filter_map(|volume| Some(volume.split_once(':')?.0.to_owned())).collect()
}

fn rows_of<'a>(list: &'a ClusterResources, storage: &str) -> impl Iterator<Item = &'a Resource> {
    list.rows.iter().filter(move |row| row.kind == "storage" && row.storage == storage)
}

/// Splits a volume id into the archive's storage and name.
fn archive(volume: &str) -> Option<(&str, &str)> {
    volume.split_once(":vztmpl/").filter(|(storage, name)| !storage.is_empty() && !name.is_empty())
}

/// Whether a node's storage has a container template, which is a volume id.
pub(crate) async fn has_archive(client: &Client, node: &str, volume: &str) -> Result<bool> {
    #[derive(Deserialize)]
    struct Volume {
        volid: String,
    }
    let Some((storage, _)) = archive(volume) else { return Ok(false) };
    let path = ["nodes", node, "storage", storage, "content"];
    match rows::<Volume>(client, &path, &[("content", "vztmpl")]).await {
        Ok(volumes) => Ok(volumes.read.iter().any(|v| v.volid == volume)),
        Err(Error::NotFound(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A clone may be refused for its target node: the template is not available there.
pub(crate) fn elsewhere(error: Error) -> Error {
    match error {
        Error::Failed(text) if text.contains("can't clone") => Error::NotFound(text),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_storages_of_all_disks_count() {
        let config: GuestConfig = serde_json::from_str(
            r#"{"scsi0":"ceph:base-9000-disk-0,size=8G","ide2":"local-lvm:vm-9000-cloudinit,media=cdrom",
                "ide0":"none,media=cdrom","scsihw":"virtio-scsi-single","virtio":"no:key",
                "net0":"virtio=BC:24:11:00:00:01","efidisk0":"ceph:base-9000-disk-1,size=4M","description":"x:y"}"#,
        )
        .unwrap();
        assert_eq!(storages(&config).into_iter().collect::<Vec<_>>(), ["ceph", "local-lvm"]);
    }
}
