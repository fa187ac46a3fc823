//! Parts of the preflight: what storages can't do, and what tells one cluster from another.

use serde::Deserialize;

use crate::api::Resource;
use crate::client::Client;

/// Kinds of storages whose volumes of containers can't be snapshotted, and of machines only as the kind's format allows.
const FILES: &[&str] = &["dir", "nfs", "cifs", "glusterfs"];
/// Kinds of storages whose volumes can't be snapshotted.
const PLAIN: &[&str] = &["lvm", "iscsi", "iscsidirect"];

/// What customers could not do on the storage of their root disks, where its kind tells.
pub(crate) fn snapshots(rows: &[Resource], storage: &str) -> Option<String> {
    let row = rows.iter().find(|row| row.kind == "storage" && row.storage == storage)?;
    let kind = row.plugintype.as_str();
    let what = match kind {
        _ if FILES.contains(&kind) => "containers, and of machines only where their disks are qcow2",
        // Version 9 has chains of volumes for it, which are to be switched on, and are for machines.
        _ if PLAIN.contains(&kind) => "containers, and of machines only where it is told to chain volumes",
        _ => return None,
    };
    Some(format!(
        "The storage {storage} is of the kind {kind}, which takes no snapshots of {what}: customers are refused them. Use \
         lvmthin, zfspool, btrfs or rbd where they are to have snapshots."
    ))
}

/// The storages that hold templates of containers, as far as we may see them.
pub(crate) fn template_storages(rows: &[Resource]) -> Vec<String> {
    let holding = rows.iter().filter(|row| row.kind == "storage" && row.content.split(',').any(|c| c == "vztmpl"));
    let mut names: Vec<String> = holding.map(|row| row.storage.clone()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The fingerprint of the cluster's own authority: every cluster, and every node that is in none, has made one for itself.
/// Empty where it is not told, which is no reason not to use the cluster.
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
