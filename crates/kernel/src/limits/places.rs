//! Connection slots: a limit per address, so that no client can take them all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::auth::ClientAddress;
use crate::config::Proxies;

/// Limit of a whole IPv6 /48, as a multiple of one network's.
const WIDE: usize = 2;

/// Connections per network.
#[derive(Debug)]
pub struct ConnectionSlots {
    most: usize,
    /// Proxies carry the connections of all clients behind them.
    trusted: Proxies,
    taken: Mutex<HashMap<String, usize>>,
}

/// A connection slot, released when dropped.
#[derive(Debug)]
pub struct ConnectionSlot {
    places: Arc<ConnectionSlots>,
    of: Vec<String>,
}

impl ConnectionSlots {
    /// `most` per address (IPv6: per /64), without a limit for trusted proxies.
    pub fn new(most: usize, trusted: Proxies) -> Arc<Self> {
        Arc::new(Self { most, trusted, taken: Mutex::default() })
    }

    /// A slot for a connection from `peer`; none if its network has reached the limit.
    pub fn take(self: &Arc<Self>, peer: IpAddr) -> Option<ConnectionSlot> {
        let address = ClientAddress(peer);
        let wanted = match self.trusted.contains(peer) {
            true => vec![],
            false => std::iter::once((address.network(), self.most))
                .chain(address.wide().map(|wide| (wide, self.most.saturating_mul(WIDE))))
                .collect(),
        };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.iter().any(|(network, most)| taken.get(network).is_some_and(|n| n >= most)) {
            return None;
        }
        let of: Vec<String> = wanted.into_iter().map(|(network, _)| network).collect();
        for network in &of {
            *taken.entry(network.clone()).or_default() += 1;
        }
        Some(ConnectionSlot { places: Arc::clone(self), of })
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        for network in &self.of {
            if let Some(count) = taken.get_mut(network) {
                *count -= 1;
                if *count == 0 {
                    taken.remove(network);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_its_places_and_gets_them_back() {
        let places = ConnectionSlots::new(2, Proxies::default());
        let mut held: Vec<_> = (0..2).map(|_| places.take(at("192.0.2.1")).unwrap()).collect();
        assert!(places.take(at("192.0.2.1")).is_none());
        assert!(places.take(at("192.0.2.2")).is_some());
        held.pop();
        assert!(places.take(at("192.0.2.1")).is_some());
        drop(held);
        assert!(places.taken.lock().unwrap().is_empty());
    }

    #[test]
    fn networks_of_one_network_share() {
        let places = ConnectionSlots::new(2, Proxies::default());
        let _held = ["2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:2::1", "2001:db8:0:3::1"]
            .map(|address| places.take(at(address)).unwrap());
        assert!(places.take(at("2001:db8:0:4::1")).is_none());
        assert!(places.take(at("2001:db8:1:1::1")).is_some());
    }

    #[test]
    fn a_trusted_proxy_has_as_many_as_there_are() {
        let places = ConnectionSlots::new(1, Proxies::try_from("192.0.2.0/24".to_owned()).unwrap());
        let _held = [1, 2, 3].map(|_| places.take(at("192.0.2.1")).unwrap());
    }
}
