//! Request and response types for address pools.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use garde::Validate;
use ipnet::IpNet;
use kernel::http::page::Listed;
use kernel::http::patch::Patch;
use kernel::http::text;
use serde::{Deserialize, Serialize};

use crate::ids::{HostId, PoolId, ServerId};

/// A pool of addresses for a host's servers.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    /// Its id.
    pub id: PoolId,
    /// Its name.
    pub name: String,
    /// The host whose servers get its addresses.
    pub host_id: HostId,
    /// The network.
    #[schema(value_type = String, example = "10.0.0.0/24")]
    pub cidr: IpNet,
    /// The network's gateway: in the network, link-local (IPv6), or elsewhere on the link, in which case guests reach
    /// it by a route of its own. If it is within the range, it is reserved.
    #[schema(value_type = Option<String>, example = "10.0.0.1")]
    pub gateway: Option<IpAddr>,
    /// The first address that servers may get.
    #[schema(value_type = String, example = "10.0.0.10")]
    pub first: IpAddr,
    /// The last address that servers may get.
    #[schema(value_type = String, example = "10.0.0.250")]
    pub last: IpAddr,
    /// The host's bridge or managed network.
    pub bridge: String,
    /// VLAN tag.
    pub vlan: Option<i32>,
    /// Name servers for the guests; empty: the image's own.
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
    /// Whether new servers get addresses from it.
    pub enabled: bool,
    /// Addresses in the range, at most 9007199254740991 (2^53 - 1), which also stands for more.
    pub total: i64,
    /// Addresses of the range in use, reserved ones included.
    pub taken: i64,
    /// How many of those are reserved.
    pub held_back: i64,
    /// Released addresses that are resting: for now only the account that had them can get them.
    pub resting: i64,
    /// Addresses free for any account, at most 9007199254740991 (2^53 - 1), which also stands for more.
    pub free: i64,
    /// Pools of other hosts that have some of these addresses. If the hosts' guests share a network, each of these
    /// addresses may be assigned twice.
    pub overlaps: Vec<PoolId>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

impl Listed for Pool {
    fn facts(&self) -> (i64, &str, bool, DateTime<Utc>, DateTime<Utc>) {
        (self.id.0, &self.name, self.enabled, self.created_at, self.updated_at)
    }
}

/// A new pool.
#[derive(Debug, Clone, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewPool {
    /// Its name, unique among pools, ignoring case.
    #[garde(length(chars, max = 100), custom(text::title))]
    pub name: String,
    /// The host whose servers get its addresses.
    #[garde(skip)]
    pub host_id: HostId,
    /// The network.
    #[garde(skip)]
    #[schema(value_type = String, example = "10.0.0.0/24")]
    pub cidr: IpNet,
    /// The network's gateway: in the network, link-local (IPv6), or elsewhere on the link, in which case guests reach
    /// it by a route of its own. If it is within the range, it is reserved.
    #[serde(default)]
    #[garde(skip)]
    #[schema(value_type = Option<String>, example = "10.0.0.1")]
    pub gateway: Option<IpAddr>,
    /// The first address that servers may get; the network's first, if omitted.
    #[serde(default)]
    #[garde(skip)]
    #[schema(value_type = Option<String>, example = "10.0.0.10")]
    pub first: Option<IpAddr>,
    /// The last address that servers may get; the network's last, if omitted.
    #[serde(default)]
    #[garde(skip)]
    #[schema(value_type = Option<String>, example = "10.0.0.250")]
    pub last: Option<IpAddr>,
    /// The host's bridge or managed network.
    #[garde(custom(bridge_name))]
    pub bridge: String,
    /// VLAN tag.
    #[serde(default)]
    #[garde(range(min = 1, max = 4094))]
    pub vlan: Option<i32>,
    /// Name servers for the guests; empty: the image's own.
    #[serde(default)]
    #[garde(length(max = 8), inner(custom(name_server)))]
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
    /// Whether new servers get addresses from it; true if omitted.
    #[serde(default = "yes")]
    #[garde(skip)]
    pub enabled: bool,
}

/// A change of a pool. Omitted fields stay unchanged. Servers keep their addresses.
#[derive(Debug, Default, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdatePool {
    /// Its name.
    #[garde(inner(length(chars, max = 100), custom(text::title)))]
    pub name: Option<String>,
    /// The network; it can't be changed while servers have addresses of it. `first` and `last` are reset with it unless
    /// given.
    #[garde(skip)]
    #[schema(value_type = Option<String>)]
    pub cidr: Option<IpNet>,
    /// The network's gateway; null: none.
    #[serde(default)]
    #[garde(skip)]
    #[schema(value_type = Option<String>)]
    pub gateway: Patch<IpAddr>,
    /// The first address that servers may get.
    #[garde(skip)]
    #[schema(value_type = Option<String>)]
    pub first: Option<IpAddr>,
    /// The last address that servers may get.
    #[garde(skip)]
    #[schema(value_type = Option<String>)]
    pub last: Option<IpAddr>,
    /// The host's bridge or managed network.
    #[garde(inner(custom(bridge_name)))]
    pub bridge: Option<String>,
    /// VLAN tag; null: none.
    #[serde(default)]
    #[garde(custom(tag))]
    #[schema(value_type = Option<i32>)]
    pub vlan: Patch<i32>,
    /// Name servers for the guests.
    #[garde(inner(length(max = 8), inner(custom(name_server))))]
    #[schema(value_type = Option<Vec<String>>)]
    pub dns: Option<Vec<IpAddr>>,
    /// Whether new servers get addresses from it.
    #[garde(skip)]
    pub enabled: Option<bool>,
}

/// An address in use.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// The address.
    #[schema(value_type = String, example = "10.0.0.10")]
    pub address: IpAddr,
    /// The server that has it; null: it is reserved.
    pub server_id: Option<ServerId>,
    /// Why it is reserved, if a reason was given.
    pub reason: Option<String>,
    /// When it was assigned or reserved.
    pub taken_at: DateTime<Utc>,
}

/// A page of the addresses in use, lowest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressPage {
    /// The addresses.
    pub addresses: Vec<Address>,
    /// The total number of addresses on all pages.
    pub total: i64,
    /// The number of this page, from 1.
    pub page: i64,
    /// The maximum number of addresses per page.
    pub limit: i64,
    /// The number of pages.
    pub pages: i64,
}

/// An address to reserve.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReserveAddress {
    /// The address, within the pool's range.
    #[garde(skip)]
    #[schema(value_type = String, example = "10.0.0.20")]
    pub address: IpAddr,
    /// Why it is reserved.
    #[serde(default)]
    #[garde(inner(length(chars, max = 500), custom(text::title)))]
    #[schema(example = "the office printer")]
    pub reason: Option<String>,
}

fn yes() -> bool {
    true
}

fn bridge_name(name: &str, (): &()) -> garde::Result {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match (1..=64).contains(&name.len()) && name.chars().all(fine) && name.starts_with(|c: char| c != '-' && c != '.') {
        true => Ok(()),
        false => Err(garde::Error::new("must have 1 to 64 letters, digits, dots, hyphens or underscores")),
    }
}

fn name_server(address: &IpAddr, (): &()) -> garde::Result {
    match address.is_unspecified() || address.is_multicast() {
        true => Err(garde::Error::new("can't be a name server's address")),
        false => Ok(()),
    }
}

fn tag(vlan: &Patch<i32>, (): &()) -> garde::Result {
    match vlan.value() {
        Some(tag) if !(1..=4094).contains(tag) => Err(garde::Error::new("must be between 1 and 4094")),
        _ => Ok(()),
    }
}

/// An address of a server.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamedAddress {
    /// The address.
    #[schema(value_type = String, example = "10.0.0.5")]
    pub address: IpAddr,
    /// Its reverse DNS name (PTR); null: none.
    pub reverse_dns: Option<String>,
}

/// A reverse DNS name for an address.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NameAddress {
    /// The reverse DNS name (PTR); null clears it.
    #[garde(inner(custom(text::domain)))]
    #[schema(example = "mail.example.com")]
    pub reverse_dns: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_addresses_and_refuse_odd_names() {
        let json = |bridge: &str, dns: &str| {
            format!(r#"{{"name":"v4","hostId":1,"cidr":"10.0.0.0/24","bridge":{bridge:?},"dns":[{dns:?}]}}"#)
        };
        let good: NewPool = serde_json::from_str(&json("ink-br0", "1.1.1.1")).unwrap();
        assert!(good.validate().is_ok() && good.enabled && good.first.is_none());
        for bridge in ["", "-x", "a b", "br0;rm", "a/b"] {
            assert!(serde_json::from_str::<NewPool>(&json(bridge, "::1")).unwrap().validate().is_err(), "{bridge}");
        }
        assert!(serde_json::from_str::<NewPool>(&json("br0", "0.0.0.0")).unwrap().validate().is_err());
        assert!(serde_json::from_str::<NewPool>(&json("br0", "one.one")).is_err());
        assert!(serde_json::from_str::<NewPool>(&json("br0", "1.1.1.1").replace("/24", "/33")).is_err());
    }
}
