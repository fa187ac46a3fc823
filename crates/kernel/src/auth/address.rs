//! Where a request comes from.

use std::net::IpAddr;

/// A client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// The network that counts as one client: IPv6 clients have a whole /64 to themselves.
    pub fn network(self) -> String {
        match self.0.to_canonical() {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => {
                let s = v6.segments();
                format!("{:x}:{:x}:{:x}:{:x}::/64", s[0], s[1], s[2], s[3])
            }
        }
    }

    /// The /48 of an IPv6 address: anyone with many IPv6 networks has at least one. None for IPv4, where addresses are
    /// expensive.
    pub fn wide(self) -> Option<String> {
        match self.0.to_canonical() {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => {
                let s = v6.segments();
                Some(format!("{:x}:{:x}:{:x}::/48", s[0], s[1], s[2]))
            }
        }
    }

    /// The network that a user usually stays in: a /24, or a /48 for IPv6. Internet providers give their customers
    /// another address of it now and then.
    pub fn known_network(self) -> String {
        match self.0.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                format!("{a}.{b}.{c}.0/24")
            }
            IpAddr::V6(_) => self.wide().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_one_client() {
        let network = |address: &str| ClientAddress(address.parse().unwrap()).network();
        assert_eq!(network("1.2.3.4"), "1.2.3.4");
        assert_eq!(network("::ffff:1.2.3.4"), "1.2.3.4");
        assert_eq!(network("fd00:1:2:3:4::5"), network("fd00:1:2:3::1"));
        assert_ne!(network("fd00:1:2:3::1"), network("fd00:1:2:4::1"));
    }
}
