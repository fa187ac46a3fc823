//! A guest's size in its configuration: cores, memory, root disk, and the rate of its interface.

use hypervisor::{Error, GuestKind, GuestSize, Result};

use crate::api::{GuestConfig, Properties, parse_size};
use crate::client::Client;
use crate::network;
use crate::place::Place;

/// The configuration keys for cores, memory and the interface's rate.
pub(crate) fn size_of(
    kind: GuestKind,
    config: &GuestConfig,
    limits: &GuestSize,
) -> Vec<(&'static str, Option<String>)> {
    let mut wanted = Vec::new();
    if let Some(cores) = limits.cores {
        wanted.push(("cores", Some(cores.to_string())));
        if kind == GuestKind::Vm && config.get("sockets").is_some_and(|sockets| sockets != "1") {
            wanted.push(("sockets", Some("1".to_owned())));
        }
    }
    if let Some(memory) = limits.memory_mib {
        wanted.push(("memory", Some(memory.to_string())));
        // A balloon larger than the memory is refused; without one it follows the memory.
        if kind == GuestKind::Vm && config.get("balloon").is_some_and(|balloon| balloon != "0") {
            wanted.push(("balloon", None));
        }
    }
    if let Some(net) = limits.bandwidth_mbps.and_then(|rate| network::at_rate(&config.get("net0")?, rate)) {
        wanted.push(("net0", Some(net)));
    }
    wanted
}

/// A guest's root disk: its configuration key and properties.
pub(crate) fn root_disk(kind: GuestKind, config: &GuestConfig) -> Result<(String, Properties)> {
    let read = |key: &str| config.get(key).map(|value| (key.to_owned(), Properties::parse(&value)));
    let is_disk = |(_, disk): &(String, Properties)| disk.get("media") != Some("cdrom") && disk.get("size").is_some();
    let found = match kind {
        GuestKind::Lxc => read("rootfs"),
        GuestKind::Vm => {
            let boot = Properties::parse(&config.get("boot").unwrap_or_default());
            let order = boot.get("order").unwrap_or_default().to_owned();
            let keys = order.split(';').map(str::to_owned).chain(config.get("bootdisk"));
            let keys = keys.chain(["scsi0", "virtio0", "sata0", "ide0"].map(str::to_owned));
            keys.filter_map(|key| read(&key)).find(is_disk)
        }
    };
    found.ok_or_else(|| Error::Failed("it has no root disk".to_owned()))
}

/// In bytes.
pub(crate) fn disk_size(disk: &Properties) -> u64 {
    disk.get("size").and_then(parse_size).unwrap_or_default()
}

pub(crate) async fn grow(client: &Client, at: &Place, key: &str, gib: u64) -> Result<String> {
    client.put(&at.path(&["resize"]), &[("disk", key), ("size", &format!("{gib}G"))]).await
}
