//! Reads a guest's configuration from Incus.

use std::net::IpAddr;

use hypervisor::{GuestFacts, GuestSize};
use serde_json::Value;

use crate::api::{GIB, Instance, MIB, parse_cpus, parse_size};

pub(crate) fn read(instance: &Instance) -> GuestFacts {
    let limit = |key: &str| instance.expanded_config.get(key);
    let mut addresses: Vec<IpAddr> = instance
        .expanded_devices
        .values()
        .flat_map(|device| ["ipv4.address", "ipv6.address"].map(|key| device.get(key)))
        .flatten()
        .filter_map(|text| text.parse().ok())
        .collect();
    // Without address filters they are only in the guest's own configuration.
    addresses.extend(written(instance.config.get("cloud-init.network-config")));
    addresses.sort_unstable();
    addresses.dedup();
    GuestFacts {
        hostname: hostname(instance.config.get("cloud-init.user-data")),
        addresses,
        limits: GuestSize {
            cores: limit("limits.cpu").and_then(|text| parse_cpus(text)),
            memory_mib: limit("limits.memory").and_then(|text| parse_size(text)).map(|bytes| bytes / MIB),
            disk_gib: instance.disk_size().map(|bytes| bytes.div_ceil(GIB)),
            bandwidth_mbps: None,
        },
    }
}

/// The addresses in the network configuration that we wrote for cloud-init, as JSON.
fn written(text: Option<&String>) -> Vec<IpAddr> {
    let Some(config) = text.and_then(|text| serde_json::from_str::<Value>(text).ok()) else { return vec![] };
    let links = config["ethernets"].as_object().into_iter().flat_map(serde_json::Map::values);
    let networks = links.filter_map(|link| link["addresses"].as_array()).flatten().filter_map(Value::as_str);
    networks.filter_map(|network| network.split('/').next()?.parse().ok()).collect()
}

/// The host name in the user data that we wrote for cloud-init: a comment, then JSON.
fn hostname(text: Option<&String>) -> Option<String> {
    let (_, json) = text?.split_once('\n')?;
    let user: Value = serde_json::from_str(json).ok()?;
    Some(user["fqdn"].as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_guest_was_given_is_read_from_where_we_wrote_it() {
        let config = json!({
            "limits.cpu": "2", "limits.memory": "512MiB",
            "cloud-init.user-data": "#cloud-config\n{\"fqdn\":\"web.example.org\"}\n",
            "cloud-init.network-config": r#"{"ethernets":{"eth0":{"addresses":["10.0.0.5/24","2001:db8::5/64"]}}}"#,
        });
        let devices = json!({
            "eth0": {"type": "nic", "ipv4.address": "10.0.0.5", "ipv6.address": "none"},
            "root": {"type": "disk", "path": "/", "size": "3GiB"},
        });
        let instance =
            json!({"name": "ink-7", "config": config, "expanded_config": config, "expanded_devices": devices});
        let facts = read(&serde_json::from_value(instance).unwrap());
        assert_eq!(facts.hostname.as_deref(), Some("web.example.org"));
        assert_eq!(facts.addresses, ["10.0.0.5", "2001:db8::5"].map(|a| a.parse::<IpAddr>().unwrap()));
        let limits = facts.limits;
        assert_eq!((limits.cores, limits.memory_mib, limits.disk_gib), (Some(2), Some(512), Some(3)));
        let bare = read(&serde_json::from_value(json!({"name": "ink-8"})).unwrap());
        assert_eq!(bare, GuestFacts::default());
    }
}
