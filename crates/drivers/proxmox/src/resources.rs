//! The cluster's list of all resources, read row by row: one that can't be read is left out, and counts as not seen.

use std::collections::HashSet;
use std::sync::PoisonError;

use hypervisor::rows::SHOWN;
use hypervisor::{Coverage, Node, Result};
use serde_json::Value;

use crate::api::{GIB, MIB, Resource, as_text, whole_number};
use crate::client::Client;

#[derive(Debug, Default)]
pub(crate) struct ClusterResources {
    pub(crate) rows: Vec<Resource>,
    pub(crate) odd: Vec<UnreadableRow>,
}

/// What is known of a row that can't be read.
#[derive(Debug)]
pub(crate) struct UnreadableRow {
    kind: String,
    node: String,
    vmid: Option<i64>,
}

impl UnreadableRow {
    fn of(row: &Value) -> Self {
        let text = |key: &str| row.get(key).map(as_text).unwrap_or_default();
        // The id says kind and number as well: `lxc/100`, `node/pve1`.
        let id = text("id");
        let (of_id, name) = id.split_once('/').unwrap_or(("", ""));
        let kind = Some(text("type")).filter(|kind| !kind.is_empty()).unwrap_or_else(|| of_id.to_owned());
        let number = row.get("vmid").and_then(whole_number).and_then(|n| i64::try_from(n).ok()).filter(|n| *n > 0);
        Self { kind, node: text("node"), vmid: number.or_else(|| name.parse().ok()) }
    }

    fn may_be_guest(&self) -> bool {
        matches!(self.kind.as_str(), "" | "lxc" | "qemu")
    }

    fn may_be_node(&self) -> bool {
        matches!(self.kind.as_str(), "" | "node")
    }
}

impl ClusterResources {
    fn parse(list: &[Value]) -> (Self, Vec<String>) {
        let (mut resources, mut texts) = (Self::default(), vec![]);
        for value in list {
            match serde_json::from_value::<Resource>(value.clone()) {
                // Serde would read a JSON array as a row too, field by field.
                Ok(row) if value.is_object() && row.makes_sense() => resources.rows.push(row),
                _ => {
                    resources.odd.push(UnreadableRow::of(value));
                    texts.push(value.to_string().chars().take(SHOWN).collect());
                }
            }
        }
        (resources, texts)
    }

    pub(crate) fn guests(&self) -> impl Iterator<Item = &Resource> {
        self.rows.iter().filter(|row| row.is_guest())
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Resource> {
        self.rows.iter().filter(|row| row.kind == "node")
    }

    /// The cluster's nodes, each with its capacity of `storage`.
    pub(crate) fn as_nodes(&self, storage: &str) -> Vec<Node> {
        let storage_of = |node: &str| {
            let of_node = |row: &&Resource| row.kind == "storage" && row.storage == storage && row.node == node;
            self.rows.iter().find(of_node)
        };
        let nodes = self.nodes().map(|row| {
            let storage = storage_of(&row.node);
            Node {
                name: row.node.clone(),
                online: row.status == "online" && !row.in_maintenance(),
                cores: u32::try_from(row.maxcpu).unwrap_or(u32::MAX),
                memory_mib: row.maxmem.unwrap_or(0) / MIB,
                disk_gib: storage.and_then(|row| row.maxdisk).unwrap_or(0) / GIB,
                disk_used: storage.and_then(|row| row.disk),
                disk_shared: storage.is_some_and(|row| row.shared),
            }
        });
        nodes.collect()
    }

    /// Whether a malformed row may be a node's or this guest's.
    pub(crate) fn may_hide(&self, vmid: i64) -> bool {
        self.odd.iter().any(|odd| odd.may_be_node() || (odd.may_be_guest() && odd.vmid.is_none_or(|n| n == vmid)))
    }

    /// A guest's absence from the list counts on nodes that are online. For the others the cluster may be out of date.
    pub(crate) fn coverage(&self) -> Coverage {
        // A token that has lost its rights sees no guests at all: that is no evidence.
        if self.guests().next().is_none() {
            return Coverage::default();
        }
        let mut coverage = Coverage {
            nodes: self.nodes().filter(|row| row.status == "online").map(|row| row.node.clone()).collect(),
            unread: vec![],
        };
        for odd in self.odd.iter().filter(|odd| odd.may_be_guest()) {
            match odd.vmid {
                Some(vmid) => coverage.unread.push(vmid),
                None if odd.node.is_empty() => coverage.nodes.clear(),
                None => coverage.nodes.retain(|node| *node != odd.node),
            }
        }
        coverage
    }
}

pub(crate) async fn read(client: &Client) -> Result<ClusterResources> {
    let list: Vec<Value> = client.get(&["cluster", "resources"], &[]).await?;
    let (resources, odd) = ClusterResources::parse(&list);
    let mut known = client.odd.lock().unwrap_or_else(PoisonError::into_inner);
    for row in odd.iter().filter(|row| !known.contains(*row)) {
        tracing::warn!(row, "a row of the cluster's list can't be read; ignored until it changes");
    }
    *known = odd.into_iter().collect::<HashSet<_>>();
    Ok(resources)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(odd: &Value) -> ClusterResources {
        let rows = [
            json!({"type": "node", "node": "a", "status": "online"}),
            json!({"type": "node", "node": "b", "status": "online"}),
            json!({"type": "node", "node": "c", "status": "offline"}),
            json!({"type": "lxc", "node": "a", "vmid": 100, "status": "running"}),
            odd.clone(),
        ];
        ClusterResources::parse(&rows).0
    }

    #[test]
    fn what_an_odd_row_hides_is_not_taken_for_gone() {
        let other = json!({"type": "network", "node": null, "network": null, "status": null});
        let well = list(&other).coverage();
        assert!(well.includes("a", 101) && well.includes("b", 101) && !well.includes("c", 101));
        assert!(!list(&other).may_hide(101));
        for odd in [
            json!({"type": "lxc", "vmid": "101", "node": null}),
            json!({"type": null, "id": "lxc/101", "node": "a"}),
            json!({"id": "qemu/101"}),
        ] {
            let (list, text) = (list(&odd), odd.to_string());
            assert_eq!(list.rows.len(), 4, "{text}");
            let coverage = list.coverage();
            assert!(!coverage.includes("a", 101) && coverage.includes("a", 102), "{text}: {coverage:?}");
            assert!(list.may_hide(101), "{text}");
        }
        // A row without a number: nothing is known about its node, or, without a node, about any.
        let coverage = list(&json!({"type": "lxc", "node": "a", "vmid": "x"})).coverage();
        assert!(!coverage.includes("a", 102) && coverage.includes("b", 102));
        for odd in [json!({"type": "qemu"}), json!({}), json!(null), json!("text"), json!([1])] {
            assert_eq!(list(&odd).coverage().nodes, Vec::<String>::new(), "{odd}");
            assert!(list(&odd).may_hide(102), "{odd}");
        }
        // A node that can't be read can't be asked.
        let node = json!({"type": "node", "node": null, "id": "node/d"});
        assert!(list(&node).may_hide(102) && list(&node).coverage().includes("a", 102));
    }

    #[test]
    fn whatever_a_field_holds_the_row_is_read() {
        for key in ["name", "status", "tags", "content", "storage", "pool", "lock", "hastate", "cpu", "mem", "maxdisk"]
        {
            for value in [json!(null), json!(5), json!(-5), json!(true), json!("text"), json!([1]), json!({"a": 1})] {
                let mut row = json!({"type": "qemu", "node": "a", "vmid": 101, "status": "running", "maxmem": 1024});
                row[key] = value;
                let list = list(&row);
                assert_eq!(list.rows.len(), 5, "{row}");
                assert!(list.coverage().unread.is_empty() && !list.may_hide(101), "{row}");
            }
        }
    }
}
