//! What a clone keeps of its template. Proxmox VE copies nearly every key of the configuration. A clone keeps what
//! makes it boot like the template; keys that change what was sold, or protect it from deletion, are removed.

use hypervisor::{Error, GuestKind, Result};

use crate::api::{GuestConfig, Properties, Resource};
use crate::client::Client;
use crate::place::{self, Place};
use crate::size::root_disk;

/// Keys that a clone keeps; for numbered ones see [`is_kept`].
#[rustfmt::skip]
const KEPT: &[&str] = &[
    // Hardware and boot.
    "acpi", "agent", "arch", "audio0", "bios", "boot", "bootdisk", "cpu", "efidisk0", "hotplug", "keyboard", "kvm",
    "localtime", "machine", "numa", "ostype", "rng0", "scsihw", "startdate", "tablet", "tpmstate0", "vga", "watchdog",
    // What we write ourselves: size, name, marker, cloud-init.
    "balloon", "ciuser", "cipassword", "citype", "ciupgrade", "cores", "description", "memory", "name", "nameserver",
    "onboot", "searchdomain", "sockets", "sshkeys", "tags",
    // What Proxmox VE writes itself.
    "digest", "lock", "meta", "migrate_downtime", "migrate_speed", "smbios1", "template", "vmgenid", "vmstatestorage",
];
/// Keys that only root may remove, whatever the token's rights.
const OF_ROOT: &[&str] = &["args", "hookscript"];
/// Keys that our rights certainly suffice to remove; for numbered ones see [`is_ours_to_reset`].
const RESET: &[&str] =
    &["autostart", "cicustom", "cpulimit", "cpuunits", "freeze", "protection", "reboot", "shares", "startup", "vcpus"];

/// A key without its trailing number, if it has one.
fn numbered(key: &str) -> Option<&str> {
    let name = key.trim_end_matches(|c: char| c.is_ascii_digit());
    (name.len() < key.len()).then_some(name)
}

fn is_drive(key: &str) -> bool {
    numbered(key).is_some_and(|name| matches!(name, "ide" | "sata" | "scsi" | "virtio"))
}

/// Whether a volume is a cloud-init drive: `cloudinit`, which is still to be made, or `vm-<number>-cloudinit`.
fn is_cloud_init(volume: &str) -> bool {
    let Some((_, name)) = volume.split_once(':') else { return false };
    let name = name.rsplit('/').next().unwrap_or(name);
    let stem = name.split_once('.').map_or(name, |(stem, _)| stem);
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    stem == "cloudinit" || stem.strip_prefix("vm-").and_then(|s| s.strip_suffix("-cloudinit")).is_some_and(number)
}

pub(crate) fn has_cloud_init(config: &GuestConfig) -> bool {
    let volume = |key: &str| Properties::parse(&config.get(key).unwrap_or_default()).head.unwrap_or_default();
    config.keys().any(|key| is_drive(key) && is_cloud_init(&volume(key)))
}

fn is_kept(key: &str, value: &str, root: &str) -> bool {
    if is_drive(key) {
        // A CD drive holds no data of its own.
        return key == root || Properties::parse(value).get("media") == Some("cdrom") || {
            Properties::parse(value).head.is_some_and(|volume| is_cloud_init(&volume))
        };
    }
    match (key, numbered(key)) {
        // The template's own user data would replace keys and password.
        ("cicustom", _) => !["user", "network", "meta"].iter().any(|part| Properties::parse(value).get(part).is_some()),
        (_, Some("ipconfig" | "net")) => true,
        // Otherwise it is a device of the node.
        (_, Some("serial")) => value == "socket",
        (_, Some("usb")) => value.starts_with("spice"),
        _ => KEPT.contains(&key),
    }
}

fn is_ours_to_reset(key: &str) -> bool {
    is_drive(key) || RESET.contains(&key) || numbered(key).is_some_and(|name| matches!(name, "unused" | "numa"))
}

/// The keys of a template, or of a new clone of it, that a clone does not keep.
fn not_kept(config: &GuestConfig) -> Result<Vec<&str>> {
    let (root, _) = root_disk(GuestKind::Vm, config)?;
    let kept = |key: &&str| is_kept(key, &config.get(key).unwrap_or_default(), &root);
    Ok(config.keys().filter(|key| !kept(key)).collect())
}

/// Refuses a template whose clones can't be turned into what was sold. `surely`: also where that is doubtful.
pub(crate) fn check(template: &Resource, config: &GuestConfig, surely: bool) -> Result<()> {
    let (name, vmid) = (&template.name, template.vmid);
    if !has_cloud_init(config) {
        return Err(Error::Invalid(format!("the template {name} has no cloud-init drive")));
    }
    let mut keys = not_kept(config)?;
    keys.retain(|key| if surely { !is_ours_to_reset(key) } else { OF_ROOT.contains(key) });
    if keys.is_empty() {
        return Ok(());
    }
    let keys = keys.join(",");
    Err(Error::Invalid(format!(
        "the template {name} has {keys}, which its clones must not keep and only root may remove: qm set {vmid} \
         --delete {keys}"
    )))
}

/// Removes what a clone must not keep, and returns its configuration then.
pub(crate) async fn strip(client: &Client, at: &Place) -> Result<GuestConfig> {
    // A removed disk becomes an unused one first.
    for _ in 0..3 {
        let config = place::config(client, at).await?;
        let keys = not_kept(&config)?;
        if keys.is_empty() {
            return Ok(config);
        }
        let gone: Vec<_> = keys.iter().map(|key| (*key, None)).collect();
        place::change(client, at, &config, &gone).await.map_err(|error| match error {
            Error::Forbidden(text) => Error::Invalid(format!(
                "its template has {}, which clones do not keep, and we may not remove it: remove it from the template \
                 ({text})",
                keys.join(",")
            )),
            other => other,
        })?;
    }
    Err(Error::Failed(format!("{} still has settings of its template", at.vmid)))
}

/// The preflight's problems with machine templates whose clones differ from them or can't be made.
pub(crate) async fn problems(client: &Client, rows: &[Resource]) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for template in rows.iter().filter(|row| row.kind == "qemu" && row.template) {
        let (name, vmid) = (&template.name, template.vmid);
        let at = Place { node: template.node.clone(), kind: GuestKind::Vm, vmid: vmid.to_string() };
        // A template that is being changed, or on a node that is offline, can't be judged.
        let Ok(config) = place::config(client, &at).await else { continue };
        let Ok(keys) = not_kept(&config) else { continue };
        let (sure, doubtful): (Vec<&str>, Vec<&str>) = keys.into_iter().partition(|key| is_ours_to_reset(key));
        if !doubtful.is_empty() {
            let keys = doubtful.join(",");
            problems.push(format!(
                "The VM template {name} has {keys}, which its clones must not keep and a token may not be allowed to \
                 remove, so orders for it may fail: qm set {vmid} --delete {keys}."
            ));
        }
        if !sure.is_empty() {
            problems.push(format!("The VM template {name} has {}: its clones do not keep that.", sure.join(", ")));
        }
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(changes: &[(&str, &str)]) -> GuestConfig {
        let mut all = serde_json::json!({
            "boot": "order=scsi0;ide2;net0", "scsi0": "local-lvm:base-9000-disk-0,size=2G", "scsihw": "virtio-scsi-pci",
            "ide2": "local-lvm:vm-9000-cloudinit,media=cdrom", "net0": "virtio=BC:24:11:00:00:01,bridge=vmbr0",
            "agent": "1", "serial0": "socket", "ostype": "l26", "cores": 2, "sockets": 2, "memory": 2048, "template": 1,
        });
        for (key, value) in changes {
            all[key] = (*value).into();
        }
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn cloud_init_is_a_drive_and_not_a_word() {
        assert!(has_cloud_init(&config(&[])));
        for volume in ["local:cloudinit", "local:9000/vm-9000-cloudinit.qcow2,media=cdrom", "big:vm-9000-cloudinit"] {
            assert!(has_cloud_init(&config(&[("ide2", "none,media=cdrom"), ("scsi1", volume)])), "{volume}");
        }
        for (key, value) in [
            ("name", "ubuntu-24-cloudinit"),
            ("description", "local:cloudinit"),
            ("tags", "cloudinit"),
            ("ide0", "local:iso/cloudinit-tools.iso,media=cdrom"),
            ("scsi1", "local:vm-9000-cloudinit-data,size=1G"),
            ("cicustom", "user=local:snippets/cloudinit"),
        ] {
            assert!(!has_cloud_init(&config(&[("ide2", "none,media=cdrom"), (key, value)])), "{key}: {value}");
        }
    }

    #[test]
    fn a_clone_keeps_what_is_on_the_list_and_nothing_else() {
        assert_eq!(not_kept(&config(&[])).unwrap(), Vec::<&str>::new());
        for (key, value) in [
            ("protection", "1"),
            ("cpulimit", "0.5"),
            ("cpuunits", "50"),
            ("vcpus", "1"),
            ("affinity", "0"),
            ("hookscript", "local:snippets/x.pl"),
            ("startup", "order=1"),
            ("hostpci0", "01:00"),
            ("usb0", "host=1234:5678"),
            ("parallel0", "/dev/parport0"),
            ("serial1", "/dev/ttyS0"),
            ("scsi1", "local-lvm:vm-9000-disk-1,size=100G"),
            ("virtio5", "local-lvm:vm-9000-disk-2,size=1G"),
            ("unused0", "local-lvm:vm-9000-disk-3"),
            ("args", "-nographic"),
            ("cicustom", "user=local:snippets/user.yaml"),
            ("a_key_of_a_later_version", "1"),
        ] {
            assert_eq!(not_kept(&config(&[(key, value)])).unwrap(), [key]);
        }
        for (key, value) in [
            ("cicustom", "vendor=local:snippets/agent.yaml"),
            ("net1", "virtio,bridge=vmbr0"),
            ("usb0", "spice"),
            ("ide0", "none,media=cdrom"),
        ] {
            assert_eq!(not_kept(&config(&[(key, value)])).unwrap(), Vec::<&str>::new(), "{key}: {value}");
        }
    }
}
