//! Looking at everything at once: one call for a whole cluster, whatever its size.

use std::time::Duration;

use chrono::Utc;

use super::api::{GIB, MIB, Resource, power};
use super::client::Client;
use super::marker;
use crate::{GuestPower, GuestSample, Node, Result, Sweep};

/// `pvestatd` of each node tells the cluster of its guests every ten seconds, and takes a moment to ask them.
const LAG: Duration = Duration::from_secs(15);

pub(super) async fn sweep(client: &Client) -> Result<Sweep> {
    let taken_at = Utc::now();
    let rows: Vec<Resource> = client.get(&["cluster", "resources"], &[]).await?;
    let nodes = nodes(&rows, &client.config.storage);
    let all_online = !nodes.is_empty() && nodes.iter().all(|node| node.online);
    // A token that lost its rights is shown no guests at all: that is no evidence of anything.
    let complete = all_online && rows.iter().any(Resource::is_guest);
    let guests = rows.iter().filter(|row| row.is_guest()).filter_map(sample).collect();
    Ok(Sweep { taken_at, lag: LAG, nodes, guests, complete })
}

/// The cluster's machines, with the room of `storage` on each. A shared storage shows its whole room on all of them.
pub(super) fn nodes(rows: &[Resource], storage: &str) -> Vec<Node> {
    let room = |node: &str| {
        let of_node = |row: &&Resource| row.kind == "storage" && row.storage == storage && row.node == node;
        rows.iter().find(of_node).map_or(0, |row| row.maxdisk / GIB)
    };
    let nodes = rows.iter().filter(|row| row.kind == "node").map(|row| Node {
        name: row.node.clone(),
        online: row.status == "online",
        cores: u32::try_from(row.maxcpu).unwrap_or(u32::MAX),
        memory_mib: row.maxmem / MIB,
        disk_gib: room(&row.node),
    });
    nodes.collect()
}

fn sample(row: &Resource) -> Option<GuestSample> {
    let marker = marker::find(&row.tags, i64::try_from(row.vmid).ok()?)?;
    let power = power(&row.status);
    let running = power == GuestPower::Running;
    Some(GuestSample {
        marker,
        node: row.node.clone(),
        power,
        uptime_s: if running { row.uptime } else { 0 },
        cpu: row.cpu.filter(|_| running),
        cpu_time_ns: None,
        cores: u32::try_from(row.maxcpu).unwrap_or(u32::MAX),
        memory_used: row.mem,
        memory_max: row.maxmem,
        disk_used: row.disk,
        disk_max: row.maxdisk,
        net_in: row.netin,
        net_out: row.netout,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_guests_with_our_marker_are_sampled() {
        let uuid = uuid::Uuid::new_v4();
        let text = format!(
            r#"[{{"type":"node","node":"a","status":"online","maxcpu":4,"maxmem":8589934592}},
            {{"type":"storage","node":"a","storage":"big","maxdisk":1099511627776}},
            {{"type":"lxc","node":"a","vmid":100,"status":"running","tags":"innkeeper-100-{uuid};web","cpu":0.5,"maxcpu":2,"uptime":"7"}},
            {{"type":"qemu","node":"a","vmid":101,"status":"running","tags":"innkeeper-100-{uuid}"}},
            {{"type":"lxc","node":"a","vmid":102,"status":"unknown","lock":"create"}}]"#
        );
        let rows: Vec<Resource> = serde_json::from_str(&text).unwrap();
        let samples: Vec<_> = rows.iter().filter(|row| row.is_guest()).filter_map(sample).collect();
        assert_eq!(samples.len(), 1, "a clone of ours is not ours");
        assert_eq!((samples[0].marker, samples[0].cpu, samples[0].uptime_s), (uuid, Some(0.5), 7));
        let nodes = nodes(&rows, "big");
        assert_eq!((nodes[0].memory_mib, nodes[0].disk_gib, nodes[0].online), (8192, 1024, true));
    }
}
