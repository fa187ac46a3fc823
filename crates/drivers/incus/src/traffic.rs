//! What guests send and receive, counted on the machine's side of their interfaces. What Incus reads in a guest is the
//! guest's to change: it may rename its interface, move it where nobody looks, or make thousands of its own.

use std::collections::HashMap;
use std::path::Path;

use crate::api::{Instance, Network};
use crate::client::Client;

/// Every interface of the machine (of our network namespace) with its counters, read in one go. Incus has no call that
/// tells of all of them, and the socket is this machine's.
pub(crate) const INTERFACES: &str = "/proc/net/dev";

/// What an interface of the machine has received and sent since it was made, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted {
    received: u64,
    sent: u64,
}

/// The machine's interfaces by name; none where they can't be read.
pub(crate) async fn interfaces(file: &Path) -> HashMap<String, Counted> {
    tokio::fs::read_to_string(file).await.map(|text| parse(&text)).unwrap_or_default()
}

fn parse(text: &str) -> HashMap<String, Counted> {
    let line = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let mut counters = counters.split_ascii_whitespace();
        let received = counters.next()?.parse().ok()?;
        let sent = counters.nth(7)?.parse().ok()?;
        Some((name.trim().to_owned(), Counted { received, sent }))
    };
    text.lines().filter_map(line).collect()
}

/// The machine's sides of a guest's interfaces: Incus notes their names at each start.
fn sides(instance: &Instance) -> Option<Vec<&String>> {
    let nics = instance.expanded_devices.iter().filter(|(_, d)| d.get("type").is_some_and(|t| t == "nic"));
    nics.map(|(name, _)| instance.config.get(&format!("volatile.{name}.host_name"))).collect()
}

/// What a running guest has received and sent since its start; `None` where that can't be seen from here.
pub(crate) fn of(instance: &Instance, interfaces: &HashMap<String, Counted>) -> Option<(u64, u64)> {
    let counted: Option<Vec<_>> = sides(instance)?.into_iter().map(|side| interfaces.get(side)).collect();
    // What the machine's side receives is what the guest sends.
    Some(counted?.into_iter().fold((0, 0), |(received, sent), side| (received + side.sent, sent + side.received)))
}

/// What to say where Incus' own bridges are not among the interfaces that we see.
pub(crate) async fn problem(client: &Client) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Named {
        name: String,
        #[serde(rename = "type")]
        kind: String,
    }
    let networks: Vec<Named> = client.get(&["networks"], &[("recursion", "1")]).await.ok()?;
    let bridges: Vec<_> = networks.into_iter().filter(|n| n.kind == "bridge").map(|n| n.name).collect();
    let seen = interfaces(Path::new(INTERFACES)).await;
    (!bridges.is_empty() && !bridges.iter().any(|name| seen.contains_key(name))).then(|| {
        "Innkeeper runs in another network namespace than Incus and can't see the guests' interfaces, so their traffic is \
         not counted: run it on the machine itself."
            .to_owned()
    })
}

/// How many of a guest's interfaces are told: it can make as many as it likes.
pub(crate) const TOLD: usize = 64;

/// The first of a guest's interfaces as Incus reads them inside, but for the loopback one.
pub(crate) fn told(networks: impl IntoIterator<Item = (String, Network)>) -> impl Iterator<Item = (String, Network)> {
    networks.into_iter().filter(|(name, _)| name != "lo").take(TOLD)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_guest_s_traffic_is_its_machine_s_sides_the_other_way_round() {
        let interfaces = parse(
            "Inter-|   Receive                                                |  Transmit\n \
             face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
             lo: 34073859  187565    0    0    0     0          0         0 34073859  187565    0    0    0     0       0          0\n\
             vethab12:  700  5    0    0    0     0          0         0  9000  6    0    0    0     0       0          0\n\
             veth0:70 5 0 0 0 0 0 0 5 6 0 0 0 0 0 0\n",
        );
        assert_eq!(interfaces.len(), 3);
        let nic = json!({"type": "nic"});
        let guest = |config: serde_json::Value, devices: serde_json::Value| -> Instance {
            let guest = json!({"name": "ink-1", "config": config, "expanded_devices": devices});
            serde_json::from_value(guest).unwrap()
        };
        let one = guest(json!({"volatile.eth0.host_name": "vethab12"}), json!({"eth0": nic, "root": {"type": "disk"}}));
        assert_eq!(of(&one, &interfaces), Some((9000, 700)));
        let both = json!({"volatile.eth0.host_name": "vethab12", "volatile.eth1.host_name": "veth0"});
        assert_eq!(of(&guest(both, json!({"eth0": nic, "eth1": nic})), &interfaces), Some((9005, 770)));
        // One that can't be seen is not nothing; one that is not there is.
        assert_eq!(of(&guest(json!({"volatile.eth0.host_name": "gone"}), json!({"eth0": nic})), &interfaces), None);
        assert_eq!(of(&guest(json!({}), json!({"eth0": nic})), &interfaces), None);
        assert_eq!(of(&guest(json!({}), json!({})), &interfaces), Some((0, 0)));
    }
}
