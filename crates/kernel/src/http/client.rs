//! Finds out which client is at the other end of a connection.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap};

use crate::auth::ClientAddress;
use crate::config::Proxies;
use crate::core::Core;
use crate::error::{Error, Result};

impl ClientAddress {
    /// The peer or, if it is a trusted proxy, the last hop it names that is not one.
    pub fn of(extensions: &Extensions, headers: &HeaderMap, core: &Core) -> Self {
        let peer = extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(peer)| peer.ip());
        Self::from_headers(peer, headers, &core.config.trusted_proxies)
    }

    /// Reads the address from a connection and its headers, hop by hop from our side: each trusted proxy is believed
    /// about the hop before it, and no one else is believed. An unreadable hop ends the walk; skipping it would mean
    /// believing what is left of it, which the client controls.
    pub fn from_headers(peer: IpAddr, headers: &HeaderMap, trusted: &Proxies) -> Self {
        let mut at = peer.to_canonical();
        // Several header lines form one list, in their order (RFC 9110, 5.3).
        let lines = headers.get_all("x-forwarded-for").iter().rev();
        let mut hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        while trusted.contains(at) {
            match hops.next().map(hop) {
                Some(Some(before)) => at = before,
                Some(None) | None => break,
            }
        }
        Self(at)
    }
}

/// An address in the list, with or without a port; IPv6 with or without brackets.
fn hop(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim_matches([' ', '\t']);
    let alone = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let with_port = || text.parse().ok().map(|at: SocketAddr| at.ip());
    let address = text.parse().ok().or_else(with_port).or_else(alone)?;
    Some(address.to_canonical())
}

impl<S: Send + Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        Ok(Self::of(&parts.extensions, &parts.headers, super::auth::core(&parts.extensions)?))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng};

    use super::*;

    fn seen(peer: &str, lines: &[&str], trusted: &str) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        let trusted = Proxies::try_from(trusted.to_owned()).unwrap();
        ClientAddress::from_headers(peer.parse().unwrap(), &headers, &trusted).0.to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let line = ["6.6.6.6, 1.2.3.4, 10.0.0.1"];
        assert_eq!(seen("9.9.9.9", &line, "10.0.0.1"), "9.9.9.9");
        assert_eq!(seen("10.0.0.1", &line, "10.0.0.1"), "1.2.3.4");
        assert_eq!(seen("10.0.0.1", &line, ""), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", &[], "10.0.0.1"), "10.0.0.1");
    }

    #[test]
    fn a_hop_has_a_port_or_brackets_or_neither() {
        for (hop, address) in [
            ("198.51.100.77", "198.51.100.77"),
            ("198.51.100.77:4711", "198.51.100.77"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("::ffff:198.51.100.77", "198.51.100.77"),
            ("[::ffff:198.51.100.77]:4711", "198.51.100.77"),
            ("\t198.51.100.77 ", "198.51.100.77"),
        ] {
            assert_eq!(seen("10.0.0.1", &[&format!("6.6.6.6,{hop}")], "10.0.0.1"), address, "{hop}");
        }
    }

    #[test]
    fn what_can_t_be_read_ends_the_walk_where_it_is() {
        for odd in [
            "unknown",
            "",
            " ",
            "_hidden",
            "198.51.100.77:",
            "198.51.100.77:99999",
            "198.51.100.077",
            "[198.51.100.77]",
            "[2001:db8::1",
            "fe80::1%eth0",
            "198.51.100.77 6.6.6.6",
            "веб",
            "\"198.51.100.77\"",
        ] {
            assert_eq!(seen("10.0.0.1", &[&format!("6.6.6.6, {odd}")], "10.0.0.1"), "10.0.0.1", "{odd:?}");
            assert_eq!(seen("10.0.0.1", &[&format!("6.6.6.6, {odd}, 10.0.0.2")], "10.0.0.0/8"), "10.0.0.2", "{odd:?}");
            // Everything left of the client is under the client's control.
            assert_eq!(seen("10.0.0.1", &[&format!("{odd}, 1.2.3.4, 10.0.0.2")], "10.0.0.0/8"), "1.2.3.4", "{odd:?}");
        }
    }

    #[test]
    fn lines_are_one_list() {
        assert_eq!(seen("10.0.0.1", &["6.6.6.6", "1.2.3.4:80, 10.0.0.3", "10.0.0.2"], "10.0.0.0/24"), "1.2.3.4");
        assert_eq!(seen("10.0.0.1", &["6.6.6.6", "1.2.3.4", "unknown"], "10.0.0.0/24"), "10.0.0.1");
    }

    #[test]
    fn an_ipv4_peer_of_an_ipv6_socket_is_that_ipv4_address() {
        assert_eq!(seen("::ffff:10.0.0.1", &["1.2.3.4"], "10.0.0.1"), "1.2.3.4");
        assert_eq!(seen("10.0.0.1", &["1.2.3.4"], "::ffff:10.0.0.1"), "1.2.3.4");
        assert_eq!(seen("10.0.0.1", &["1.2.3.4"], "::ffff:10.0.0.0/120"), "1.2.3.4");
        assert_eq!(seen("::ffff:9.9.9.9", &["1.2.3.4"], "10.0.0.1"), "9.9.9.9");
    }

    /// Whatever a client sends, in any number of header lines, the outermost proxy appends the address it saw, and that
    /// is the client's.
    #[test]
    fn no_client_chooses_its_address() {
        let mut random = StdRng::seed_from_u64(7);
        let odd =
            ["unknown", "", "10.0.0.9", "10.0.0.9:1", "6.6.6.6", "[::1]:80", "fd00::9", "-", "\u{e9}", "127.0.0.1"];
        let trusted = "10.0.0.0/8, fd00::/16";
        for _ in 0..2000 {
            let v4: [u8; 2] = random.random();
            let client: IpAddr = match random.random() {
                true => IpAddr::from([198, 51, v4[0], v4[1]]),
                false => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, v4[0].into(), v4[1].into()]),
            };
            let proxies: Vec<IpAddr> = (0..random.random_range(0..4))
                .map(|n: u16| match random.random() {
                    true => IpAddr::from([10, 0, 1, n.to_be_bytes()[1]]),
                    false => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 1, n]),
                })
                .collect();
            let mut list: Vec<String> =
                (0..random.random_range(0..5)).map(|_| odd[random.random_range(0..odd.len())].to_owned()).collect();
            for hop in std::iter::once(&client).chain(&proxies) {
                list.push(match random.random_range(0..3) {
                    0 => hop.to_string(),
                    1 => SocketAddr::new(*hop, random.random()).to_string(),
                    _ => {
                        if hop.is_ipv6() {
                            format!(" [{hop}] ")
                        } else {
                            format!(" {hop} ")
                        }
                    }
                });
            }
            let mut lines = vec![String::new()];
            for (n, hop) in list.iter().enumerate() {
                match lines.last_mut() {
                    Some(line) if n == 0 => line.push_str(hop),
                    Some(line) if random.random() => *line = format!("{line},{hop}"),
                    _ => lines.push(hop.clone()),
                }
            }
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            assert_eq!(seen("10.9.9.9", &lines, trusted), client.to_string(), "{lines:?}");
        }
    }
}
