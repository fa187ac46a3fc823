//! Reads a guest's configuration from Proxmox VE.

use std::net::IpAddr;

use hypervisor::{GuestFacts, GuestKind, GuestSize};

use crate::api::{GIB, GuestConfig, Properties, parse_size};

pub(crate) fn read(kind: GuestKind, config: &GuestConfig) -> GuestFacts {
    let number = |key: &str| config.get(key).and_then(|text| text.parse().ok());
    // A container has them in its interfaces, a machine in its cloud-init values.
    let (interface, hostname) = match kind {
        GuestKind::Lxc => ("net", "hostname"),
        GuestKind::Vm => ("ipconfig", "name"),
    };
    let mut addresses = vec![];
    for key in config.keys().filter(|key| key.strip_prefix(interface).is_some_and(|n| n.parse::<u8>().is_ok())) {
        let properties = Properties::parse(&config.get(key).unwrap_or_default());
        let networks = ["ip", "ip6"].map(|key| properties.get(key).and_then(|text| text.split('/').next()));
        addresses.extend(networks.into_iter().flatten().filter_map(|text| text.parse::<IpAddr>().ok()));
    }
    // For a machine, the largest disk is taken for the root disk.
    let sizes = config.keys().filter(|key| is_disk(key)).filter_map(|key| {
        let disk = Properties::parse(&config.get(key)?);
        parse_size(disk.get("size")?)
    });
    GuestFacts {
        hostname: config.get(hostname),
        addresses,
        limits: GuestSize {
            cores: number("cores").and_then(|n| u32::try_from(n).ok()),
            memory_mib: number("memory"),
            disk_gib: sizes.max().map(|bytes| bytes.div_ceil(GIB)),
            bandwidth_mbps: None,
        },
    }
}

fn is_disk(key: &str) -> bool {
    let of_machine = ["scsi", "virtio", "sata", "ide"];
    key == "rootfs" || of_machine.iter().any(|bus| key.strip_prefix(bus).is_some_and(|n| n.parse::<u8>().is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(kind: GuestKind, text: &str) -> GuestFacts {
        read(kind, &serde_json::from_str(text).unwrap())
    }

    #[test]
    fn what_a_guest_was_given_is_in_its_configuration() {
        let container = facts(
            GuestKind::Lxc,
            r#"{"hostname":"web","cores":2,"memory":"512","rootfs":"local-lvm:vm-100-disk-0,size=8G",
                "net0":"name=eth0,bridge=vmbr0,ip=10.0.0.5/24,ip6=2001:db8::5/64","nameserver":"10.0.0.1"}"#,
        );
        assert_eq!(container.addresses, ["10.0.0.5", "2001:db8::5"].map(|a| a.parse::<IpAddr>().unwrap()));
        assert_eq!((container.hostname.as_deref(), container.limits.disk_gib), (Some("web"), Some(8)));
        let machine = facts(
            GuestKind::Vm,
            r#"{"name":"db","cores":4,"memory":2048,"scsi0":"local-lvm:vm-101-disk-0,size=20G",
                "ide2":"none,media=cdrom","net0":"virtio=BC:24:11:7B:36:93,bridge=vmbr0",
                "ipconfig0":"ip=10.0.0.6/24,gw=10.0.0.1"}"#,
        );
        assert_eq!(machine.addresses, ["10.0.0.6".parse::<IpAddr>().unwrap()]);
        assert_eq!((machine.limits.cores, machine.limits.memory_mib), (Some(4), Some(2048)));
        assert_eq!(machine.limits.disk_gib, Some(20));
        assert_eq!(
            facts(GuestKind::Vm, r#"{"net0":"virtio,bridge=vmbr0","ipconfig0":"ip=dhcp"}"#).addresses,
            [] as [IpAddr; 0]
        );
    }
}
