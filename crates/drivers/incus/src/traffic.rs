//! Guests' traffic, counted on the machine's side of their interfaces. What Incus reads inside a guest is under the
//! guest's control: it may rename or hide its interface, or make thousands.

use std::collections::HashMap;
use std::path::Path;

use crate::api::{Instance, InterfaceState};
use crate::client::Client;
use crate::rows::rows;

/// The counters of all interfaces in our network namespace, in one read. Incus has no call for all of them, and the
/// socket is local.
pub(crate) const INTERFACES: &str = "/proc/net/dev";

/// In bytes, since the interface was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counters {
    received: u64,
    sent: u64,
}

/// By name; empty where they can't be read.
pub(crate) async fn interfaces(file: &Path) -> HashMap<String, Counters> {
    tokio::fs::read_to_string(file).await.map(|text| parse(&text)).unwrap_or_default()
}

fn parse(text: &str) -> HashMap<String, Counters> {
    let line = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let mut counters = counters.split_ascii_whitespace();
        let received = counters.next()?.parse().ok()?;
        let sent = counters.nth(7)?.parse().ok()?;
        Some((name.trim().to_owned(), Counters { received, sent }))
    };
    text.lines().filter_map(line).collect()
}

/// The names of the machine's side of a guest's interfaces, which Incus notes at each start.
fn host_names(instance: &Instance) -> Option<Vec<&String>> {
    let nics = instance.expanded_devices.iter().filter(|(_, d)| d.get("type").is_some_and(|t| t == "nic"));
    nics.map(|(name, _)| instance.config.get(&format!("volatile.{name}.host_name"))).collect()
}

/// What a running guest has received and sent since its start; `None` where its interfaces can't be seen from here.
pub(crate) fn counted(instance: &Instance, interfaces: &HashMap<String, Counters>) -> Option<(u64, u64)> {
    let sides: Option<Vec<_>> = host_names(instance)?.into_iter().map(|side| interfaces.get(side)).collect();
    // The machine's side receives what the guest sends.
    Some(sides?.into_iter().fold((0, 0), |(received, sent), side| (received + side.sent, sent + side.received)))
}

/// The preflight's problem where Incus's own bridges are not among the interfaces that we see.
pub(crate) async fn problem(client: &Client) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct NetworkName {
        name: String,
        #[serde(rename = "type")]
        kind: String,
    }
    let networks: Vec<NetworkName> = rows(client, &["networks"]).await.ok()?;
    let bridges: Vec<_> = networks.into_iter().filter(|n| n.kind == "bridge").map(|n| n.name).collect();
    let seen = interfaces(Path::new(INTERFACES)).await;
    (!bridges.is_empty() && !bridges.iter().any(|name| seen.contains_key(name))).then(|| {
        "Innkeeper runs in a different network namespace than Incus and can't see the guests' interfaces, so their \
         traffic is not counted: run it on the host itself."
            .to_owned()
    })
}

/// How many of a guest's interfaces are shown: it can make any number.
pub(crate) const SHOWN: usize = 64;

/// A guest's interfaces as Incus reads them inside: the first few, without the loopback interface.
pub(crate) fn shown(
    networks: impl IntoIterator<Item = (String, InterfaceState)>,
) -> impl Iterator<Item = (String, InterfaceState)> {
    networks.into_iter().filter(|(name, _)| name != "lo").take(SHOWN)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_guest_s_traffic_is_its_machine_s_sides_the_other_way_round() {
        let interfaces = parse(
            "Inter-|   Receive                                                |  Transmit\n \
             face |bytes    packets errs drop fifo frame compressed multicast\
             |bytes    packets errs drop fifo colls carrier compressed\n    \
             lo: 34073859  187565    0    0    0     0          0         0 \
             34073859  187565    0    0    0     0       0          0\n\
             vethab12:  700  5    0    0    0     0          0         0  \
             9000  6    0    0    0     0       0          0\n\
             veth0:70 5 0 0 0 0 0 0 5 6 0 0 0 0 0 0\n",
        );
        assert_eq!(interfaces.len(), 3);
        let nic = json!({"type": "nic"});
        let guest = |config: serde_json::Value, devices: serde_json::Value| -> Instance {
            let guest = json!({"name": "ink-1", "config": config, "expanded_devices": devices});
            serde_json::from_value(guest).unwrap()
        };
        let one = guest(json!({"volatile.eth0.host_name": "vethab12"}), json!({"eth0": nic, "root": {"type": "disk"}}));
        assert_eq!(counted(&one, &interfaces), Some((9000, 700)));
        let both = json!({"volatile.eth0.host_name": "vethab12", "volatile.eth1.host_name": "veth0"});
        assert_eq!(counted(&guest(both, json!({"eth0": nic, "eth1": nic})), &interfaces), Some((9005, 770)));
        // An interface that we can't see is unknown; one that does not exist counts as 0.
        assert_eq!(
            counted(&guest(json!({"volatile.eth0.host_name": "gone"}), json!({"eth0": nic})), &interfaces),
            None
        );
        assert_eq!(counted(&guest(json!({}), json!({"eth0": nic})), &interfaces), None);
        assert_eq!(counted(&guest(json!({}), json!({})), &interfaces), Some((0, 0)));
    }
}
