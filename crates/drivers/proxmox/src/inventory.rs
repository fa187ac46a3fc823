//! Which guests are there and how they are: all at once, with one call for a whole cluster of any size, and one by one.

use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use hypervisor::{
    Error, GuestFacts, GuestKind, GuestPower, GuestRef, GuestSample, Inventory, Presence, Result, Sweep, check,
};

use crate::api::{Resource, TaskRow, power};
use crate::client::Client;
use crate::lookup::Lookup;
use crate::place::Place;
use crate::rows::{Rows, rows};
use crate::{Proxmox, facts, lookup, marker, place, resources};

/// Each node's `pvestatd` reports its guests to the cluster every ten seconds, and takes a moment to ask them.
const LAG: Duration = Duration::from_secs(15);

#[async_trait]
impl Inventory for Proxmox {
    async fn sweep(&self) -> Result<Sweep> {
        let client = &self.client;
        let taken_at = Utc::now();
        let list = resources::read(client).await?;
        let guests = list.guests().filter_map(sample).collect();
        Ok(Sweep {
            taken_at,
            lag: LAG,
            nodes: list.as_nodes(&client.config.storage),
            guests,
            coverage: list.coverage(),
        })
    }

    async fn find(&self, guest: &GuestRef) -> Result<Presence> {
        let client = &self.client;
        let mut seen = lookup::lookup(client, guest).await?;
        if let Lookup::Coming(at) = &seen {
            if is_made_now(client, at).await? {
                return Ok(Presence::Present { node: at.node.clone(), power: GuestPower::Unknown, busy: true });
            }
            // The task may have ended between the two reads.
            seen = lookup::lookup(client, guest).await?;
        }
        let (at, power) = match seen {
            Lookup::Absent => return Ok(Presence::Absent),
            Lookup::Ours(found) => (found.at.clone(), found.power()),
            Lookup::Coming(at) => {
                return Err(Error::StaleLock(format!(
                    "{0} is locked by a creation that no task is working on: check it on node {1}, then unlock and \
                     destroy it",
                    guest.vmid, at.node
                )));
            }
        };
        let busy = !place::active(client, &at).await?.is_empty();
        Ok(Presence::Present { node: at.node, power, busy })
    }

    async fn facts(&self, guest: &GuestRef) -> Result<GuestFacts> {
        let client = &self.client;
        let found = lookup::require(client, guest).await?;
        let config = place::config(client, &found.at).await?;
        Ok(facts::read(guest.kind, &config))
    }

    async fn disk_used(&self, guest: &GuestRef) -> Result<Option<u64>> {
        Ok(lookup::require(&self.client, guest).await?.status.disk_used())
    }

    async fn is_number_free(&self, vmid: i64) -> Result<bool> {
        lookup::is_number_free(&self.client, vmid).await
    }
}

/// Whether a running task creates this guest. A clone's task has its template's number.
async fn is_made_now(client: &Client, at: &Place) -> Result<bool> {
    if at.kind == GuestKind::Lxc {
        return Ok(!place::active(client, at).await?.is_empty());
    }
    let query = [("typefilter", "qmclone"), ("source", "active")];
    let Rows { read, incomplete } = rows::<TaskRow>(client, &["nodes", &at.node, "tasks"], &query).await?;
    Ok(incomplete || read.iter().any(|row| row.is_running() && row.kind == "qmclone"))
}

fn sample(row: &Resource) -> Option<GuestSample> {
    let vmid = i64::try_from(row.vmid).ok()?;
    let marker = marker::find(&row.tags, vmid)?;
    let power = power(&row.status, &row.lock);
    let kind = if row.kind == place::word(GuestKind::Vm) { GuestKind::Vm } else { GuestKind::Lxc };
    // If a machine does not report its memory, its node reports that of the machine's process instead.
    let told = kind == GuestKind::Lxc || row.memhost.is_none() || row.mem != row.memhost;
    Some(GuestSample {
        marker,
        vmid,
        kind,
        // Only in each guest's own configuration, if anywhere.
        created_at: None,
        node: row.node.clone(),
        power,
        reason: (power == GuestPower::Paused).then(|| row.status.clone()),
        uptime_s: if power == GuestPower::Stopped { Some(0) } else { row.uptime },
        cpu: row.cpu.filter(|_| power == GuestPower::Running),
        cpu_time_ns: None,
        cores: u32::try_from(row.maxcpu).unwrap_or(u32::MAX),
        memory_used: row.mem.filter(|_| told).and_then(|used| check::memory_used(kind, used, row.maxmem)),
        memory_max: row.maxmem.filter(|max| *max > 0),
        // For machines and stopped guests it is 0.
        disk_used: row.disk.filter(|used| *used > 0),
        disk_max: row.maxdisk.filter(|max| *max > 0),
        net_in: row.netin,
        net_out: row.netout,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::ClusterResources;

    #[test]
    fn only_guests_with_our_marker_are_sampled() {
        let uuid = uuid::Uuid::new_v4();
        let text = format!(
            r#"[{{"type":"node","node":"a","status":"online","maxcpu":4,"maxmem":8589934592}},
            {{"type":"storage","node":"a","storage":"big","maxdisk":1099511627776}},
            {{"type":"lxc","node":"a","vmid":100,"status":"running","tags":"innkeeper-100-{uuid};web","cpu":0.5,
                "maxcpu":2,"uptime":"7"}},
            {{"type":"qemu","node":"a","vmid":101,"status":"running","tags":"innkeeper-100-{uuid}"}},
            {{"type":"lxc","node":"a","vmid":102,"status":"unknown","lock":"create"}}]"#
        );
        let list = ClusterResources { rows: serde_json::from_str(&text).unwrap(), ..ClusterResources::default() };
        let samples: Vec<_> = list.guests().filter_map(sample).collect();
        assert_eq!(samples.len(), 1, "a clone of ours is not ours");
        assert_eq!((samples[0].marker, samples[0].cpu, samples[0].uptime_s), (uuid, Some(0.5), Some(7)));
        let nodes = list.as_nodes("big");
        assert_eq!((nodes[0].memory_mib, nodes[0].disk_gib, nodes[0].online), (8192, 1024, true));
    }

    fn row(text: &str) -> GuestSample {
        let tags = format!("innkeeper-100-{}", uuid::Uuid::nil());
        let mut row: Resource = serde_json::from_str(text).unwrap();
        (row.tags, row.vmid, row.node) = (tags, 100, "a".to_owned());
        sample(&row).unwrap()
    }

    #[test]
    fn what_a_node_does_not_know_is_not_nothing() {
        let machine =
            row(r#"{"type":"qemu","status":"running","cpu":0.1,"mem":100,"memhost":300,"maxmem":512,"disk":0,
            "maxdisk":8000,"netin":5,"netout":0,"uptime":9}"#);
        assert_eq!((machine.memory_used, machine.memory_max), (Some(100), Some(512)));
        assert_eq!((machine.disk_used, machine.disk_max), (None, Some(8000)));
        assert_eq!((machine.net_in, machine.net_out, machine.uptime_s), (Some(5), Some(0), Some(9)));
        // The memory of QEMU's process is not the guest's usage.
        for memory in
            [r#""mem":544,"maxmem":512"#, r#""mem":512,"maxmem":512"#, r#""mem":300,"memhost":300,"maxmem":512"#]
        {
            let seen = row(&format!(r#"{{"type":"qemu","status":"running",{memory}}}"#));
            assert_eq!((seen.memory_used, seen.memory_max), (None, Some(512)), "{memory}");
        }
        // A container may well use all of it.
        assert_eq!(row(r#"{"type":"lxc","status":"running","mem":512,"maxmem":512}"#).memory_used, Some(512));
        assert_eq!(row(r#"{"type":"lxc","status":"running","mem":513,"maxmem":512}"#).memory_used, None);
        let nothing = row(r#"{"type":"lxc","status":"unknown"}"#);
        assert_eq!((nothing.cpu, nothing.memory_max, nothing.disk_used, nothing.net_in), (None, None, None, None));
        assert_eq!((nothing.uptime_s, nothing.power), (None, GuestPower::Unknown));
    }

    #[test]
    fn a_paused_machine_says_why() {
        let seen = row(r#"{"type":"qemu","status":"io-error"}"#);
        assert_eq!((seen.power, seen.reason.as_deref()), (GuestPower::Paused, Some("io-error")));
        assert_eq!(row(r#"{"type":"qemu","status":"paused","lock":"snapshot"}"#).power, GuestPower::Unknown);
        assert_eq!(row(r#"{"type":"qemu","status":"running"}"#).reason, None);
    }

    #[test]
    fn a_shared_storage_and_a_node_in_maintenance_are_known() {
        let text = r#"[{"type":"node","node":"a","status":"online","maxcpu":4},
            {"type":"node","node":"b","status":"online","hastate":"maintenance"},
            {"type":"storage","node":"a","storage":"ceph","maxdisk":107374182400,"shared":1},
            {"type":"storage","node":"b","storage":"ceph","maxdisk":107374182400,"shared":"1"},
            {"type":"storage","node":"a","storage":"big","maxdisk":107374182400,"shared":0}]"#;
        let list = ClusterResources { rows: serde_json::from_str(text).unwrap(), ..ClusterResources::default() };
        let shown =
            |storage| list.as_nodes(storage).iter().map(|n| (n.online, n.disk_gib, n.disk_shared)).collect::<Vec<_>>();
        assert_eq!(shown("ceph"), [(true, 100, true), (false, 100, true)]);
        assert_eq!(shown("big"), [(true, 100, false), (false, 0, false)]);
    }
}
