//! The range of addresses that a pool assigns, its network, and the checks on both.

use std::net::IpAddr;

use ipnet::IpNet;

/// A network and the range of its addresses that servers may get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The network.
    pub cidr: IpNet,
    /// Its gateway; if it is outside the network, guests reach it by a route of its own (on-link).
    pub gateway: Option<IpAddr>,
    /// The first address that servers may get.
    pub first: IpAddr,
    /// The last one.
    pub last: IpAddr,
}

/// The problem with a range: the field and a sentence.
pub type Problem = (&'static str, String);

/// The largest integer that every JSON parser reads exactly: larger sizes are reported as this one.
pub const MOST: i64 = (1 << 53) - 1;

impl Range {
    /// Checks a range. Without `first` and `last` it is the whole network except the addresses that hosts may not have:
    /// the network's own address and, in IPv4, the broadcast address.
    pub fn new(
        cidr: IpNet,
        gateway: Option<IpAddr>,
        first: Option<IpAddr>,
        last: Option<IpAddr>,
    ) -> Result<Self, Problem> {
        check_network(cidr)?;
        let (lowest, highest) = usable(cidr);
        let first = first.unwrap_or(lowest);
        let last = last.unwrap_or(highest);
        for (field, address) in [("first", first), ("last", last)] {
            if !cidr.contains(&address) {
                return Err((field, format!("{address} is not in {cidr}.")));
            }
            if address < lowest || address > highest {
                return Err((field, format!("{address} is the network or broadcast address of {cidr}.")));
            }
        }
        if first > last {
            return Err(("last", format!("{last} comes before the first address, {first}.")));
        }
        if let Some(gateway) = gateway {
            check_gateway(gateway, cidr, (lowest, highest))?;
            if first == last && first == gateway {
                let text = format!("The only address in the range, {gateway}, is also the gateway.");
                return Err(("gateway", text));
            }
        }
        Ok(Self { cidr, gateway, first, last })
    }

    /// Whether servers may get an address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.first.is_ipv4() == address.is_ipv4() && self.first <= address && address <= self.last
    }

    /// The number of addresses, at most [`MOST`], which also stands for more.
    pub fn total(&self) -> i64 {
        let size = number(self.last) - number(self.first);
        i64::try_from(size).map_or(MOST, |n| n.saturating_add(1).min(MOST))
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

fn check_network(cidr: IpNet) -> Result<(), Problem> {
    if cidr != cidr.trunc() {
        return Err(("cidr", format!("{cidr} is an address in a network; the network is {}.", cidr.trunc())));
    }
    let (least, mapped) = match cidr {
        IpNet::V4(_) => (8, false),
        IpNet::V6(v6) => (16, v6.network().to_ipv4_mapped().is_some()),
    };
    let network = cidr.network();
    if cidr.prefix_len() < least {
        return Err(("cidr", format!("{cidr} is too large: the prefix length must be at least {least}.")));
    }
    if mapped || network.is_loopback() || network.is_multicast() || network.is_unspecified() || is_reserved(network) {
        return Err(("cidr", format!("Guests can't have addresses in {cidr}.")));
    }
    Ok(())
}

/// Real networks have their gateway in the network, link-local (IPv6), or somewhere else on the link.
fn check_gateway(gateway: IpAddr, cidr: IpNet, (lowest, highest): (IpAddr, IpAddr)) -> Result<(), Problem> {
    let wrong = |text: String| Err(("gateway", text));
    if gateway.is_ipv4() != cidr.network().is_ipv4() {
        return wrong(format!("{gateway} and {cidr} are of different address families."));
    }
    if cidr.contains(&gateway) {
        return match lowest <= gateway && gateway <= highest {
            true => Ok(()),
            false => wrong(format!("{gateway} is the network or broadcast address of {cidr}.")),
        };
    }
    let odd = match gateway {
        IpAddr::V4(_) => is_reserved(gateway),
        IpAddr::V6(v6) => v6.to_ipv4_mapped().is_some() || v6.is_loopback(),
    };
    match odd || gateway.is_multicast() || gateway.is_unspecified() {
        true => wrong(format!("A gateway can't have the address {gateway}.")),
        false => Ok(()),
    }
}

/// 0.0.0.0/8 and 240.0.0.0/4; link-local IPv6, because each link has its own.
fn is_reserved(network: IpAddr) -> bool {
    match network {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.octets()[0] >= 240 || v4.octets()[0] == 127,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// The lowest and the highest address that a host of the network may have.
fn usable(cidr: IpNet) -> (IpAddr, IpAddr) {
    match cidr {
        IpNet::V4(v4) => {
            let (low, high) = (u32::from(v4.network()), u32::from(v4.broadcast()));
            // RFC 3021: networks of one or two addresses have neither a network nor a broadcast address.
            let edge = u32::from(v4.prefix_len() < 31);
            (IpAddr::V4((low + edge).into()), IpAddr::V4((high - edge).into()))
        }
        IpNet::V6(v6) => {
            let (low, high) = (u128::from(v6.network()), u128::from(v6.broadcast()));
            // The lowest one is the subnet-router anycast address (RFC 4291), except on point-to-point links.
            let edge = u128::from(v6.prefix_len() < 127);
            (IpAddr::V6((low + edge).into()), IpAddr::V6(high.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(cidr: &str, gateway: &str, first: &str, last: &str) -> Result<Range, Problem> {
        let ip = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
        Range::new(cidr.parse().unwrap(), ip(gateway), ip(first), ip(last))
    }

    fn wrong(cidr: &str, gateway: &str, first: &str, last: &str) -> &'static str {
        range(cidr, gateway, first, last).map_or_else(|(field, _)| field, |_| "nothing")
    }

    #[test]
    fn good_ranges_pass() {
        let pool = range("10.0.0.0/24", "10.0.0.1", "10.0.0.10", "10.0.0.14").unwrap();
        assert_eq!(pool.total(), 5);
        assert!(pool.contains("10.0.0.14".parse().unwrap()) && !pool.contains("10.0.0.1".parse().unwrap()));
        assert_eq!(range("10.0.0.4/31", "", "", "").unwrap().total(), 2);
        assert_eq!(range("10.0.0.4/32", "", "", "").unwrap().total(), 1);
        assert_eq!(range("fd00::/126", "fd00::1", "", "").unwrap().total(), 3);
    }

    #[test]
    fn gateways_are_where_real_networks_have_them() {
        for (cidr, gateway) in [
            ("2001:db8:1::/64", "fe80::1"),
            ("2001:db8:1::5/128", "fe80::1"),
            ("2001:db8:1::/64", "2001:db8:ff::1"),
            ("192.0.2.7/32", "198.51.100.1"),
            ("192.0.2.8/29", "198.51.100.1"),
            ("192.0.2.8/29", "169.254.0.1"),
            ("10.0.0.4/31", "10.0.0.5"),
        ] {
            assert_eq!(range(cidr, gateway, "", "").unwrap().gateway, gateway.parse().ok(), "{cidr} by {gateway}");
        }
    }

    #[test]
    fn a_range_left_out_is_what_hosts_may_have() {
        let v4 = range("192.0.2.0/28", "", "", "").unwrap();
        assert_eq!((v4.first.to_string(), v4.last.to_string()), ("192.0.2.1".into(), "192.0.2.14".into()));
        let v6 = range("fd00::/64", "", "", "").unwrap();
        assert_eq!((v6.first.to_string(), v6.last.to_string()), ("fd00::1".into(), "fd00::ffff:ffff:ffff:ffff".into()));
    }

    #[test]
    fn sizes_beyond_exact_numbers_are_shown_as_the_largest() {
        assert_eq!(range("fd00::/64", "", "", "").unwrap().total(), MOST);
        assert_eq!(range("fd00::/16", "", "", "").unwrap().total(), MOST);
        assert_eq!(range("fd00::/96", "", "", "").unwrap().total(), (1 << 32) - 1);
    }

    #[test]
    fn bad_ranges_name_their_field() {
        assert_eq!(wrong("10.0.0.5/24", "", "", ""), "cidr");
        assert_eq!(wrong("0.0.0.0/0", "", "", ""), "cidr");
        assert_eq!(wrong("0.0.0.0/8", "", "", ""), "cidr");
        assert_eq!(wrong("127.0.0.0/8", "", "", ""), "cidr");
        assert_eq!(wrong("224.0.0.0/8", "", "", ""), "cidr");
        assert_eq!(wrong("::/0", "", "", ""), "cidr");
        assert_eq!(wrong("ff00::/16", "", "", ""), "cidr");
        assert_eq!(wrong("fe80::/64", "", "", ""), "cidr");
        assert_eq!(wrong("::ffff:10.0.0.0/120", "", "", ""), "cidr");
        assert_eq!(wrong("10.0.0.0/24", "fd00::1", "", ""), "gateway");
        assert_eq!(wrong("10.0.0.0/24", "10.0.0.0", "", ""), "gateway");
        for no_gateway in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
            assert_eq!(wrong("10.0.0.0/24", no_gateway, "", ""), "gateway", "{no_gateway}");
        }
        for no_gateway in ["::", "::1", "ff02::1", "::ffff:10.0.0.1", "10.0.0.1"] {
            assert_eq!(wrong("fd00::/64", no_gateway, "", ""), "gateway", "{no_gateway}");
        }
        assert_eq!(wrong("10.0.0.4/32", "10.0.0.4", "", ""), "gateway");
        assert_eq!(wrong("10.0.0.0/24", "10.0.0.9", "10.0.0.9", "10.0.0.9"), "gateway");
        assert_eq!(wrong("10.0.0.0/24", "", "10.0.0.0", ""), "first");
        assert_eq!(wrong("10.0.0.0/24", "", "", "10.0.0.255"), "last");
        assert_eq!(wrong("10.0.0.0/24", "", "10.0.0.9", "10.0.0.8"), "last");
        assert_eq!(wrong("10.0.0.0/24", "", "10.0.0.9", "10.0.1.8"), "last");
        assert_eq!(wrong("fd00::/64", "", "10.0.0.1", ""), "first");
    }
}
