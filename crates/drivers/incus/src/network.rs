//! A guest's network device.

use std::net::IpAddr;

use hypervisor::{Error, GuestNetwork, GuestSize, Result, check};
use serde::Deserialize;

use crate::api::Map;
use crate::client::Client;

/// The only network interface inside a guest.
pub(crate) const NIC: &str = "eth0";

/// An Incus network.
#[derive(Debug, Deserialize)]
struct Network {
    managed: bool,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    config: Map,
}

impl Network {
    /// Incus can't pin an address outside a network for which it is the DHCP server. Its own error would not say what
    /// to do.
    fn takes(&self, name: &str, address: IpAddr) -> Result<()> {
        let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        let of = |key: &str| self.config.get(&format!("{family}.{key}")).map_or("", String::as_str);
        let given_out = !["", "none"].contains(&of("address")) && of("dhcp") != "false";
        if !given_out || contains(of("address"), address) {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "{address} is outside {}, which Incus serves with DHCP on {name}: switch {family}.dhcp off there or use \
             another bridge",
            of("address")
        )))
    }
}

/// Whether a network, such as `10.0.0.1/24`, contains this address.
fn contains(network: &str, address: IpAddr) -> bool {
    let Some((base, Ok(prefix))) = network.split_once('/').map(|(base, prefix)| (base, prefix.parse::<u32>())) else {
        return false;
    };
    let same = |a: u128, b: u128, bits: u32| (a ^ b).checked_shr(bits.saturating_sub(prefix)).unwrap_or(0) == 0;
    match (base.parse(), address) {
        (Ok(IpAddr::V4(base)), IpAddr::V4(address)) => same(base.to_bits().into(), address.to_bits().into(), 32),
        (Ok(IpAddr::V6(base)), IpAddr::V6(address)) => same(base.to_bits(), address.to_bits(), 128),
        _ => false,
    }
}

/// The network device; `None` for a guest without addresses.
pub(crate) async fn nic(client: &Client, network: &GuestNetwork, limits: &GuestSize) -> Result<Option<Map>> {
    if network.addresses.is_empty() {
        return Ok(None);
    }
    let bridge = network.bridge.as_str();
    check::line("bridge", bridge)?;
    if bridge.is_empty() || bridge.contains('/') {
        return Err(Error::Invalid(format!("{bridge:?} is no bridge")));
    }
    let known: Option<Network> = client.get_opt(&["networks", bridge], &[]).await?;
    if known.is_none() {
        require_on_host(client, bridge).await?;
    }
    let managed = known.filter(|n| n.managed && n.kind == "bridge");
    let mut nic = device(network, managed.is_some(), client.config.address_filters);
    let pinned = network.addresses.iter().map(|a| a.address).filter(|a| nic.values().any(|v| *v == a.to_string()));
    managed.map_or(Ok(()), |known| pinned.into_iter().try_for_each(|address| known.takes(bridge, address)))?;
    limit(limits.bandwidth_mbps.unwrap_or_default(), &mut nic);
    Ok(Some(nic))
}

/// Refuses a bridge that the host does not have. The project shows managed networks only; a certificate that may see
/// nothing else can't tell.
async fn require_on_host(client: &Client, bridge: &str) -> Result<()> {
    match client.get_of_server::<Network>(&["networks", bridge]).await {
        Err(Error::NotFound(_)) => Err(Error::NotFound(format!("the bridge {bridge}"))),
        Ok(_) | Err(Error::Forbidden(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The device's rate limit in Mbit/s, each way; 0 for none.
pub(crate) fn limit(mbps: u32, nic: &mut Map) {
    match mbps {
        0 => drop(nic.remove("limits.max")),
        mbps => drop(nic.insert("limits.max".to_owned(), format!("{mbps}Mbit"))),
    }
}

fn device(network: &GuestNetwork, managed: bool, filters: bool) -> Map {
    let mut nic = Map::new();
    let mut set = |key: &str, value: String| nic.insert(key.to_owned(), value);
    set("type", "nic".to_owned());
    set("name", NIC.to_owned());
    if managed {
        set("network", network.bridge.clone());
    } else {
        set("nictype", "bridged".to_owned());
        set("parent", network.bridge.clone());
    }
    if let Some(vlan) = network.vlan {
        set("vlan", vlan.to_string());
    }
    if !filters {
        return nic;
    }
    set("security.mac_filtering", "true".to_owned());
    for (family, v4) in [("ipv4", true), ("ipv6", false)] {
        let mut of_family = network.addresses.iter().filter(|a| a.address.is_ipv4() == v4);
        match (of_family.next(), of_family.next()) {
            (Some(one), None) => {
                set(&format!("{family}.address"), one.address.to_string());
                set(&format!("security.{family}_filtering"), "true".to_owned());
            }
            // "none" with the filter drops all of that family.
            (None, _) => {
                set(&format!("{family}.address"), "none".to_owned());
                set(&format!("security.{family}_filtering"), "true".to_owned());
            }
            // Incus filters for one address per family and would drop the second.
            (Some(_), Some(_)) => {}
        }
    }
    nic
}

#[cfg(test)]
mod tests {
    use hypervisor::GuestAddress;

    use super::*;

    #[test]
    fn a_network_that_incus_gives_out_takes_its_own_addresses_only() {
        let network = |address: &str, dhcp: &str| Network {
            managed: true,
            kind: "bridge".to_owned(),
            config: Map::from([
                ("ipv4.address".to_owned(), address.to_owned()),
                ("ipv4.dhcp".to_owned(), dhcp.to_owned()),
                ("ipv6.address".to_owned(), "fd00::1/64".to_owned()),
            ]),
        };
        let takes = |network: &Network, address: &str| network.takes("br0", address.parse().unwrap()).is_ok();
        let own = network("10.0.0.1/24", "true");
        assert!(takes(&own, "10.0.0.255") && takes(&own, "fd00::ffff:1"));
        assert!(!takes(&own, "10.0.1.0") && !takes(&own, "192.0.2.7") && !takes(&own, "fd00:0:0:1::1"));
        assert!(takes(&network("10.0.0.1/24", "false"), "192.0.2.7") && takes(&network("none", ""), "192.0.2.7"));
        assert!(contains("10.0.0.1/0", "192.0.2.7".parse().unwrap()) && !contains("x", "192.0.2.7".parse().unwrap()));
    }

    #[test]
    fn a_managed_network_pins_the_addresses() {
        let address = |text: &str, prefix| GuestAddress { address: text.parse().unwrap(), prefix, gateway: None };
        let network = GuestNetwork {
            bridge: "br0".to_owned(),
            addresses: vec![address("10.0.0.5", 24), address("2001:db8::5", 64)],
            ..GuestNetwork::default()
        };
        let nic = device(&network, true, true);
        assert_eq!(nic["network"], "br0");
        assert_eq!(nic["ipv4.address"], "10.0.0.5");
        assert_eq!(nic["security.ipv6_filtering"], "true");
        let bare = device(&network, false, false);
        assert_eq!(bare["parent"], "br0");
        assert!(!bare.contains_key("security.mac_filtering"));
    }
}
