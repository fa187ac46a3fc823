//! The parts of Incus's JSON that we read, and its size notation.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use hypervisor::GuestPower;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

/// Incus keeps nearly everything as string keys and values.
pub(crate) type Map = BTreeMap<String, String>;
/// Devices by name.
pub(crate) type Devices = BTreeMap<String, Map>;

/// Reads Go's `null` for an empty map or list.
fn or_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The wrapper of every answer.
#[derive(Debug, Deserialize)]
pub(crate) struct Envelope {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) operation: String,
    #[serde(default)]
    pub(crate) error: String,
    #[serde(default)]
    pub(crate) error_code: u16,
    #[serde(default)]
    pub(crate) metadata: Value,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct IncusOperation {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) class: String,
    #[serde(default)]
    pub(crate) description: String,
    #[serde(default)]
    pub(crate) status_code: u16,
    #[serde(default)]
    pub(crate) err: String,
    #[serde(default)]
    pub(crate) resources: Option<BTreeMap<String, Vec<String>>>,
    #[serde(default)]
    pub(crate) metadata: Option<Value>,
}

impl IncusOperation {
    /// Created, running, cancelling and the like are 1xx; ends are 200, 400 and 401.
    pub(crate) fn is_running(&self) -> bool {
        self.status_code < 200
    }

    pub(crate) fn is_success(&self) -> bool {
        self.status_code == 200
    }

    pub(crate) fn concerns(&self, instance: &str) -> bool {
        self.resources.iter().flat_map(BTreeMap::values).flatten().any(|url| {
            url.split("/instances/")
                .nth(1)
                .is_some_and(|rest| rest.split(['/', '?']).next().is_some_and(|name| name == instance))
        })
    }

    /// In percent, where Incus reports it: unpacking and copying an image do.
    pub(crate) fn progress(&self) -> Option<u8> {
        let metadata = self.metadata.as_ref()?.as_object()?;
        if let Some(percent) = metadata.get("progress").and_then(|p| p.get("percent")) {
            return match percent {
                Value::String(text) => text.parse().ok(),
                other => other.as_u64().and_then(|n| u8::try_from(n).ok()),
            }
            .filter(|percent| *percent <= 100);
        }
        let text = metadata.iter().find(|(key, _)| key.ends_with("_progress"))?.1.as_str()?;
        let (before, _) = text.split_once('%')?;
        before.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok().filter(|percent| *percent <= 100)
    }
}

/// An instance; `state` is only set with `recursion=2`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Instance {
    pub(crate) name: String,
    /// `container` or `virtual-machine`.
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) status: String,
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) config: Map,
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) devices: Devices,
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) expanded_config: Map,
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) expanded_devices: Devices,
    #[serde(default)]
    pub(crate) created_at: Option<DateTime<Utc>>,
    #[serde(default)]
    pub(crate) last_used_at: Option<DateTime<Utc>>,
    #[serde(default)]
    pub(crate) state: Option<InstanceState>,
}

impl Instance {
    pub(crate) fn power(&self) -> GuestPower {
        if self.has_failed() { GuestPower::Paused } else { power(&self.status) }
    }

    /// Whether it is a VM whose QEMU is there but halted (an I/O error, a panic) or unresponsive. Of a container the
    /// same status says only that Incus could not find out how it is.
    pub(crate) fn has_failed(&self) -> bool {
        self.status == "Error" && self.kind == "virtual-machine"
    }

    /// The root disk's device and its name, which the image may have chosen.
    pub(crate) fn root_disk(&self) -> Option<(&str, &Map)> {
        self.expanded_devices
            .iter()
            .find(|(_, d)| d.get("type").is_some_and(|t| t == "disk") && d.get("path").is_some_and(|p| p == "/"))
            .map(|(name, device)| (name.as_str(), device))
    }

    pub(crate) fn nic(&self) -> Option<(&str, &Map)> {
        let nic = self.expanded_devices.iter().find(|(_, d)| d.get("type").is_some_and(|t| t == "nic"));
        nic.map(|(name, device)| (name.as_str(), device))
    }

    /// In bytes; `None` where no size is set.
    pub(crate) fn disk_size(&self) -> Option<u64> {
        self.root_disk().and_then(|(_, d)| d.get("size")).and_then(|s| parse_size(s))
    }

    /// A timestamp that changes with each start.
    pub(crate) fn boot(&self) -> i64 {
        self.last_used_at.map_or(0, |at| at.timestamp_micros())
    }
}

fn power(status: &str) -> GuestPower {
    match status {
        "Running" | "Ready" => GuestPower::Running,
        "Stopped" => GuestPower::Stopped,
        "Frozen" => GuestPower::Paused,
        _ => GuestPower::Unknown,
    }
}

/// The live state of an instance.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct InstanceState {
    status: String,
    pub(crate) disk: Option<BTreeMap<String, UsageTotal>>,
    pub(crate) memory: UsageTotal,
    pub(crate) network: Option<BTreeMap<String, InterfaceState>>,
    pub(crate) cpu: UsageTotal,
    pub(crate) started_at: Option<DateTime<Utc>>,
}

impl InstanceState {
    pub(crate) fn power(&self) -> GuestPower {
        power(&self.status)
    }
}

/// -1 is Incus's "unknown".
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(crate) struct UsageTotal {
    pub(crate) usage: i64,
    pub(crate) total: i64,
}

/// An interface as Incus sees it inside a running instance.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct InterfaceState {
    #[serde(deserialize_with = "or_empty")]
    pub(crate) addresses: Vec<InterfaceAddress>,
    pub(crate) hwaddr: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct InterfaceAddress {
    pub(crate) address: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct PoolResources {
    pub(crate) space: PoolSpace,
}

/// In bytes.
#[derive(Debug, Deserialize)]
pub(crate) struct PoolSpace {
    pub(crate) total: u64,
    #[serde(default)]
    pub(crate) used: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct InstanceSnapshot {
    pub(crate) name: String,
    pub(crate) created_at: DateTime<Utc>,
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) config: Map,
    #[serde(default)]
    pub(crate) size: Option<i64>,
}

/// Parses Incus's sizes (`512MiB`, `10GB`, `1024`) to bytes; `None` for percentages and invalid text.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => MIB,
        "GiB" => GIB,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Counts the CPUs that `limits.cpu` allows: a number (`2`) or a set (`0-3,7`).
pub(crate) fn parse_cpus(text: &str) -> Option<u32> {
    if let Ok(count) = text.trim().parse() {
        return Some(count);
    }
    text.split(',').try_fold(0_u32, |sum, part| {
        let count = match part.trim().split_once('-') {
            Some((from, to)) => to.parse::<u32>().ok()?.checked_sub(from.parse().ok()?)?.checked_add(1)?,
            None => part.trim().parse::<u32>().ok().map(|_| 1)?,
        };
        sum.checked_add(count)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed_in_their_units() {
        assert_eq!(parse_size("10GiB"), Some(10 * GIB));
        assert_eq!(parse_size("512MiB"), Some(512 * MIB));
        assert_eq!(parse_size("2GB"), Some(2_000_000_000));
        assert_eq!(parse_size("4096"), Some(4096));
        assert_eq!(parse_size("50%"), None);
        assert_eq!(parse_size(""), None);
        assert_eq!(parse_size("99999999999TiB"), None);
    }

    #[test]
    fn cpu_limits_are_counted() {
        assert_eq!(parse_cpus("2"), Some(2));
        assert_eq!(parse_cpus("0-3,7"), Some(5));
        assert_eq!(parse_cpus("3-1"), None);
        assert_eq!(parse_cpus("all"), None);
    }

    #[test]
    fn an_operation_tells_its_instance_and_progress() {
        let operation: IncusOperation = serde_json::from_value(serde_json::json!({
            "id": "b3a1", "class": "task", "description": "Creating instance", "status_code": 103,
            "resources": {"instances": ["/1.0/instances/ink-12?project=inn"]},
            "metadata": {"create_instance_from_image_unpack_progress": "Unpacking image: 34% (11.2MB/s)"}
        }))
        .unwrap();
        assert!(operation.is_running());
        assert!(operation.concerns("ink-12"));
        assert!(!operation.concerns("ink-1"));
        assert_eq!(operation.progress(), Some(34));
        let snapshot: IncusOperation = serde_json::from_value(serde_json::json!({
            "id": "b3a2", "status_code": 200, "metadata": null,
            "resources": {"instances_snapshots": ["/1.0/instances/ink-12/snapshots/one"]},
        }))
        .unwrap();
        assert!(snapshot.concerns("ink-12") && snapshot.is_success() && snapshot.progress().is_none());
    }

    #[test]
    fn states_without_figures_are_read() {
        let stopped: InstanceState = serde_json::from_value(serde_json::json!({
            "status": "Stopped", "status_code": 102, "disk": {}, "network": null,
            "memory": {"usage": 0, "total": -1}, "started_at": "0001-01-01T00:00:00Z"
        }))
        .unwrap();
        assert_eq!(stopped.memory.total, -1);
        assert!(stopped.network.is_none());
    }
}
