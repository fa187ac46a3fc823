//! Who is at the other end of the connection.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap};

use crate::app::App;

/// The client's address: the peer's, or, where the peer is a proxy we trust, the last hop it names that is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// Reads it from a request.
    pub fn of(extensions: &Extensions, headers: &HeaderMap, app: &App) -> Self {
        let peer = extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(peer)| peer.ip());
        Self::from_headers(peer, headers, &app.config.trusted_proxies.0)
    }

    /// What counts as one client: IPv6 clients have a whole /64 to themselves.
    pub fn network(self) -> String {
        match self.0.to_canonical() {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => {
                let s = v6.segments();
                format!("{:x}:{:x}:{:x}:{:x}::/64", s[0], s[1], s[2], s[3])
            }
        }
    }

    /// Reads it from a connection and its headers.
    pub fn from_headers(peer: IpAddr, headers: &HeaderMap, trusted: &[IpAddr]) -> Self {
        if !trusted.contains(&peer) {
            return Self(peer);
        }
        let hops: Vec<IpAddr> = headers
            .get_all("x-forwarded-for")
            .iter()
            .filter_map(|v| v.to_str().ok())
            .flat_map(|v| v.split(','))
            .filter_map(|hop| hop.trim().parse().ok())
            .collect();
        Self(hops.into_iter().rev().find(|hop| !trusted.contains(hop)).unwrap_or(peer))
    }
}

impl FromRequestParts<Arc<App>> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions, &parts.headers, app))
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

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let proxy: IpAddr = "10.0.0.1".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "6.6.6.6, 1.2.3.4, 10.0.0.1".parse().unwrap());
        let seen = |peer: &str, trusted: &[IpAddr]| {
            ClientAddress::from_headers(peer.parse().unwrap(), &headers, trusted).0.to_string()
        };
        assert_eq!(seen("9.9.9.9", &[proxy]), "9.9.9.9");
        assert_eq!(seen("10.0.0.1", &[proxy]), "1.2.3.4");
        assert_eq!(seen("10.0.0.1", &[]), "10.0.0.1");
    }
}
