//! A guest's network interface and addresses, as Proxmox VE's property strings.

use std::net::IpAddr;

use hypervisor::{Error, GuestAddress, GuestNetwork, GuestSize, Result, check};

use crate::api::Properties;

/// One address per family: Proxmox VE configures no more on an interface.
fn families(network: &GuestNetwork) -> Result<(Option<&GuestAddress>, Option<&GuestAddress>)> {
    let of = |v4: bool| {
        let mut addresses = network.addresses.iter().filter(move |a| a.address.is_ipv4() == v4);
        (addresses.next(), addresses.next())
    };
    match (of(true), of(false)) {
        ((v4, None), (v6, None)) => Ok((v4, v6)),
        _ => Err(Error::Invalid("Proxmox VE gives a guest one IPv4 and one IPv6 address".to_owned())),
    }
}

fn bridge(network: &GuestNetwork) -> Result<&str> {
    check::line("bridge", &network.bridge)?;
    if network.bridge.is_empty() || network.bridge.contains([',', '=', '/', ' ']) {
        return Err(Error::Invalid(format!("{:?} is not a valid bridge", network.bridge)));
    }
    Ok(&network.bridge)
}

/// Sets the addresses as `ip`, `gw`, `ip6` and `gw6`.
fn addresses(network: &GuestNetwork, to: &mut Properties) -> Result<()> {
    let (v4, v6) = families(network)?;
    for (address, ip, gateway) in [(v4, "ip", "gw"), (v6, "ip6", "gw6")] {
        for key in [ip, gateway] {
            to.pairs.remove(key);
        }
        if let Some(a) = address {
            to.pairs.insert(ip.to_owned(), format!("{}/{}", a.address, a.prefix));
            to.pairs.extend(a.gateway.map(|via| (gateway.to_owned(), via.to_string())));
        }
    }
    Ok(())
}

/// Proxmox VE has the rate in megabytes per second.
fn limit(mbps: u32, to: &mut Properties) {
    match mbps {
        0 => drop(to.pairs.remove("rate")),
        mbps => drop(to.pairs.insert("rate".to_owned(), (f64::from(mbps) / 8.0).to_string())),
    }
}

/// A `net0` with another rate in Mbit/s, 0 for none; `None` if it has that rate already.
pub(crate) fn at_rate(present: &str, mbps: u32) -> Option<String> {
    let before = Properties::parse(present);
    let mut net = before.clone();
    limit(mbps, &mut net);
    (net != before).then(|| net.print())
}

fn attach(network: &GuestNetwork, limits: &GuestSize, filters: bool, to: &mut Properties) -> Result<()> {
    to.pairs.insert("bridge".to_owned(), bridge(network)?.to_owned());
    match network.vlan {
        Some(tag) => drop(to.pairs.insert("tag".to_owned(), tag.to_string())),
        None => drop(to.pairs.remove("tag")),
    }
    limit(limits.bandwidth_mbps.unwrap_or_default(), to);
    if filters {
        to.pairs.insert("firewall".to_owned(), "1".to_owned());
    }
    Ok(())
}

/// A container's `net0`; `None` without addresses. Other properties of `present` stay, the hardware address among them.
pub(crate) fn container(
    network: &GuestNetwork,
    limits: &GuestSize,
    filters: bool,
    present: Option<&str>,
) -> Result<Option<String>> {
    if network.addresses.is_empty() {
        return Ok(None);
    }
    let mut net = Properties::parse(present.unwrap_or("name=eth0"));
    attach(network, limits, filters, &mut net)?;
    addresses(network, &mut net)?;
    Ok(Some(net.print()))
}

/// A VM's `net0`, keeping its model and MAC address.
pub(crate) fn machine(
    network: &GuestNetwork,
    limits: &GuestSize,
    filters: bool,
    present: Option<&str>,
) -> Result<Option<String>> {
    if network.addresses.is_empty() {
        return Ok(None);
    }
    let mut net = Properties::parse(present.unwrap_or("virtio"));
    attach(network, limits, filters, &mut net)?;
    Ok(Some(net.print()))
}

/// A VM's `ipconfig0` for cloud-init.
pub(crate) fn cloud_init(network: &GuestNetwork) -> Result<Option<String>> {
    let mut config = Properties::default();
    addresses(network, &mut config)?;
    Ok((!config.pairs.is_empty()).then(|| config.print()))
}

/// Whether a key belongs to another interface than the first.
pub(crate) fn is_further(key: &str) -> bool {
    let number = key.strip_prefix("net").or_else(|| key.strip_prefix("ipconfig"));
    number.and_then(|n| n.parse::<u8>().ok()).is_some_and(|n| n > 0)
}

/// The search domain if neither the settings nor the guest's host name give one. Without any, Proxmox VE uses the
/// node's own, which customers should neither see nor resolve names in.
const NO_DOMAIN: &str = "localdomain";

pub(crate) fn search_domain<'a>(set: Option<&'a str>, hostname: &'a str) -> &'a str {
    set.or_else(|| hostname.split_once('.').map(|(_, domain)| domain)).filter(|d| !d.is_empty()).unwrap_or(NO_DOMAIN)
}

/// Separated by spaces.
pub(crate) fn name_servers(network: &GuestNetwork) -> String {
    network.dns.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ")
}

/// The hardware address in a container's or machine's `net0`.
pub(crate) fn hardware_address(net: &str) -> Option<[u8; 6]> {
    Properties::parse(net).pairs.values().find_map(|value| {
        let bytes: Vec<u8> =
            value.split(':').map(|part| u8::from_str_radix(part, 16)).collect::<Result<_, _>>().ok()?;
        bytes.try_into().ok()
    })
}

/// The addresses that the guest may send from: its own, and for IPv6 the link-local one of its hardware address,
/// without which neighbour discovery fails. There is always an IPv4 address, if only an unusable one: without any,
/// ARP is not filtered.
pub(crate) fn allowed(network: &GuestNetwork, hardware: Option<[u8; 6]>) -> Vec<IpAddr> {
    let mut allowed: Vec<IpAddr> = network.addresses.iter().map(|a| a.address).collect();
    if let Some([a, b, c, d, e, f]) = hardware.filter(|_| allowed.iter().any(IpAddr::is_ipv6)) {
        let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
        let own = [0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f)];
        allowed.push(IpAddr::from(own));
    }
    if !allowed.is_empty() && !allowed.iter().any(IpAddr::is_ipv4) {
        allowed.push(IpAddr::from(std::net::Ipv4Addr::LOCALHOST));
    }
    allowed.sort_unstable();
    allowed.dedup();
    allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> GuestNetwork {
        let address = |text: &str, prefix, gateway: &str| GuestAddress {
            address: text.parse().unwrap(),
            prefix,
            gateway: gateway.parse().ok(),
        };
        GuestNetwork {
            bridge: "vmbr0".to_owned(),
            vlan: Some(12),
            addresses: vec![address("10.0.0.5", 24, "10.0.0.1"), address("2001:db8::5", 64, "")],
            dns: vec!["10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        }
    }

    #[test]
    fn a_container_s_interface_says_it_all_and_keeps_its_hardware_address() {
        let first = container(&network(), &slow(), true, None).unwrap().unwrap();
        assert_eq!(
            Properties::parse(&first),
            Properties::parse(
                "name=eth0,bridge=vmbr0,firewall=1,gw=10.0.0.1,ip=10.0.0.5/24,ip6=2001:db8::5/64,tag=12,rate=12.5"
            )
        );
        let present = "name=eth0,bridge=old,gw=1.1.1.1,hwaddr=BC:24:11:78:DA:22,ip=1.1.1.2/24,gw6=::1,type=veth";
        let after =
            Properties::parse(&container(&network(), &GuestSize::default(), false, Some(present)).unwrap().unwrap());
        assert_eq!((after.get("hwaddr"), after.get("type")), (Some("BC:24:11:78:DA:22"), Some("veth")));
        assert_eq!(
            (after.get("gw6"), after.get("ip"), after.get("bridge")),
            (None, Some("10.0.0.5/24"), Some("vmbr0"))
        );
        assert_eq!(container(&GuestNetwork::default(), &GuestSize::default(), true, None).unwrap(), None);
    }

    fn slow() -> GuestSize {
        GuestSize { bandwidth_mbps: Some(100), ..GuestSize::default() }
    }

    #[test]
    fn a_rate_comes_and_goes_and_the_rest_stays() {
        let slow = at_rate("name=eth0,bridge=vmbr0,hwaddr=BC:24:11:78:DA:22", 100).unwrap();
        assert_eq!(
            Properties::parse(&slow),
            Properties::parse("name=eth0,bridge=vmbr0,hwaddr=BC:24:11:78:DA:22,rate=12.5")
        );
        assert_eq!(at_rate(&slow, 100), None);
        assert!(!at_rate(&slow, 0).unwrap().contains("rate"));
        assert_eq!(at_rate("bridge=vmbr0", 0), None);
    }

    #[test]
    fn a_machine_s_interface_keeps_its_model() {
        let net = machine(&network(), &GuestSize::default(), true, Some("virtio=BC:24:11:7B:36:93,bridge=vmbr9"))
            .unwrap()
            .unwrap();
        assert_eq!(net, "bridge=vmbr0,firewall=1,tag=12,virtio=BC:24:11:7B:36:93");
        assert_eq!(cloud_init(&network()).unwrap().unwrap(), "gw=10.0.0.1,ip=10.0.0.5/24,ip6=2001:db8::5/64");
    }

    /// Proxmox VE adds the on-link route itself in a container; in a VM cloud-init does.
    #[test]
    fn a_gateway_may_be_outside_of_the_guest_s_network() {
        let mut outside = network();
        outside.addresses[0] =
            GuestAddress { address: "192.0.2.7".parse().unwrap(), prefix: 32, gateway: "198.51.100.1".parse().ok() };
        outside.addresses[1].gateway = "fe80::1".parse().ok();
        let text = "gw=198.51.100.1,gw6=fe80::1,ip=192.0.2.7/32,ip6=2001:db8::5/64";
        assert_eq!(cloud_init(&outside).unwrap().unwrap(), text);
        let net = Properties::parse(&container(&outside, &GuestSize::default(), false, None).unwrap().unwrap());
        assert!(Properties::parse(text).pairs.iter().all(|(key, value)| net.get(key) == Some(value)), "{net:?}");
    }

    #[test]
    fn a_search_domain_is_never_the_node_s() {
        assert_eq!(search_domain(None, "web.example.org"), "example.org");
        assert_eq!(search_domain(Some("customers.example"), "web.example.org"), "customers.example");
        assert_eq!([search_domain(None, "web"), search_domain(None, "web.")], ["localdomain"; 2]);
    }

    #[test]
    fn only_own_addresses_are_allowed() {
        let hardware = hardware_address("virtio=BC:24:11:7B:36:93,bridge=vmbr0");
        assert_eq!(hardware, Some([0xbc, 0x24, 0x11, 0x7b, 0x36, 0x93]));
        let texts: Vec<_> = allowed(&network(), hardware).iter().map(IpAddr::to_string).collect();
        assert_eq!(texts, ["10.0.0.5", "2001:db8::5", "fe80::be24:11ff:fe7b:3693"]);
        let mut v4 = network();
        v4.addresses.pop();
        assert_eq!(allowed(&v4, hardware).len(), 1);
    }

    #[test]
    fn what_can_t_be_said_is_refused() {
        let mut two = network();
        two.addresses.push(two.addresses[0].clone());
        assert!(container(&two, &GuestSize::default(), true, None).is_err() && cloud_init(&two).is_err());
        for bad in ["", "a,b=c", "a\nb"] {
            let network = GuestNetwork { bridge: bad.to_owned(), ..network() };
            assert!(
                container(&network, &slow(), true, None).is_err() && machine(&network, &slow(), true, None).is_err()
            );
        }
    }
}
