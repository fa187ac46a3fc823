//! The parts of Proxmox VE's JSON that we read: numbers may be strings, flags are 0 or 1, and anything may be
//! missing. And property strings (`a=1,b=2`).

use std::collections::BTreeMap;

use hypervisor::GuestPower;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;
/// More than any count.
const MOST: f64 = (1_u64 << 62) as f64;

/// A number, perhaps as a string.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(n) => n.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
        _ => None,
    }
}

/// A count, perhaps as a string; 0 where it is missing.
fn count<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    Ok(figure(from)?.unwrap_or(0))
}

/// A figure, perhaps as a string; `None` where it is no sensible number.
pub(crate) fn figure<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    Ok(whole_number(&Value::deserialize(from)?))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(crate) fn whole_number(value: &Value) -> Option<u64> {
    // As floats, counters above 2^53 would lose digits.
    value.as_u64().or_else(|| number(value).filter(|n| (0.0..=MOST).contains(n)).map(|n| n as u64))
}

fn share<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    Ok(number(&Value::deserialize(from)?).filter(|share| share.is_finite() && *share >= 0.0))
}

fn flag<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    Ok(number(&Value::deserialize(from)?).is_some_and(|n| n != 0.0))
}

/// Text, perhaps as a number.
pub(crate) fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(as_text(&Value::deserialize(from)?))
}

pub(crate) fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A row of `/cluster/resources`: a guest, node or storage.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Resource {
    #[serde(rename = "type", deserialize_with = "text")]
    pub(crate) kind: String,
    #[serde(deserialize_with = "text")]
    pub(crate) node: String,
    #[serde(deserialize_with = "count")]
    pub(crate) vmid: u64,
    #[serde(deserialize_with = "text")]
    pub(crate) name: String,
    #[serde(deserialize_with = "text")]
    pub(crate) status: String,
    #[serde(deserialize_with = "text")]
    pub(crate) lock: String,
    /// A node's state in the HA manager.
    #[serde(deserialize_with = "text")]
    pub(crate) hastate: String,
    #[serde(deserialize_with = "text")]
    pub(crate) tags: String,
    #[serde(deserialize_with = "flag")]
    pub(crate) template: bool,
    #[serde(deserialize_with = "text")]
    pub(crate) storage: String,
    #[serde(deserialize_with = "text")]
    pub(crate) content: String,
    #[serde(deserialize_with = "text")]
    pub(crate) plugintype: String,
    /// Whether all nodes that have this storage see the same one.
    #[serde(deserialize_with = "flag")]
    pub(crate) shared: bool,
    #[serde(deserialize_with = "share")]
    pub(crate) cpu: Option<f64>,
    #[serde(deserialize_with = "count")]
    pub(crate) maxcpu: u64,
    #[serde(deserialize_with = "figure")]
    pub(crate) mem: Option<u64>,
    /// The memory of the guest's process on the node.
    #[serde(deserialize_with = "figure")]
    pub(crate) memhost: Option<u64>,
    #[serde(deserialize_with = "figure")]
    pub(crate) maxmem: Option<u64>,
    #[serde(deserialize_with = "figure")]
    pub(crate) disk: Option<u64>,
    #[serde(deserialize_with = "figure")]
    pub(crate) maxdisk: Option<u64>,
    #[serde(deserialize_with = "figure")]
    pub(crate) netin: Option<u64>,
    #[serde(deserialize_with = "figure")]
    pub(crate) netout: Option<u64>,
    #[serde(deserialize_with = "figure")]
    pub(crate) uptime: Option<u64>,
}

impl Resource {
    pub(crate) fn is_guest(&self) -> bool {
        self.kind == "lxc" || self.kind == "qemu"
    }

    pub(crate) fn in_maintenance(&self) -> bool {
        self.hastate.eq_ignore_ascii_case("maintenance")
    }

    /// Whether it says what it is about.
    pub(crate) fn makes_sense(&self) -> bool {
        match self.kind.as_str() {
            "" => false,
            "lxc" | "qemu" => i64::try_from(self.vmid).is_ok_and(|vmid| vmid > 0) && !self.node.is_empty(),
            "node" => !self.node.is_empty(),
            _ => true,
        }
    }
}

/// A row of `/cluster/status`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Membership {
    #[serde(rename = "type", deserialize_with = "text")]
    pub(crate) kind: String,
    #[serde(deserialize_with = "flag")]
    pub(crate) quorate: bool,
}

/// A guest's `status/current`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct GuestStatus {
    #[serde(rename = "status", deserialize_with = "text")]
    state: String,
    #[serde(deserialize_with = "text")]
    qmpstatus: String,
    #[serde(deserialize_with = "text")]
    pub(crate) tags: String,
    #[serde(deserialize_with = "text")]
    pub(crate) lock: String,
    #[serde(deserialize_with = "count")]
    pub(crate) uptime: u64,
    #[serde(deserialize_with = "count")]
    disk: u64,
    #[serde(deserialize_with = "count")]
    maxdisk: u64,
}

impl GuestStatus {
    /// Bytes of the root disk in use, which nodes know of running containers only.
    pub(crate) fn disk_used(&self) -> Option<u64> {
        Some(self.disk).filter(|used| *used > 0)
    }

    /// Whether the root disk is full. Nodes know that of running containers only: for machines and stopped guests they
    /// report 0 in use.
    pub(crate) fn is_disk_full(&self) -> bool {
        self.maxdisk > 0 && self.disk.saturating_add(MIB) > self.maxdisk
    }

    pub(crate) fn power(&self) -> GuestPower {
        match (self.state.as_str(), self.qmpstatus.as_str()) {
            ("running", qemu) if !qemu.is_empty() => power(qemu, &self.lock),
            (status, _) => power(status, &self.lock),
        }
    }
}

/// By the status or, for machines, QEMU's own status, which may stand in its place.
pub(crate) fn power(status: &str, lock: &str) -> GuestPower {
    match status {
        "running" => GuestPower::Running,
        "stopped" => GuestPower::Stopped,
        "io-error" | "internal-error" | "guest-panicked" | "watchdog" | "debug" => GuestPower::Paused,
        // With a lock it is a backup or snapshot that pauses it for a moment.
        "paused" | "suspended" if lock.is_empty() => GuestPower::Paused,
        // In transition, started for a backup only (`prelaunch`), or not reported.
        _ => GuestPower::Unknown,
    }
}

/// A guest's configuration as plain keys and values.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct GuestConfig(BTreeMap<String, Value>);

impl GuestConfig {
    /// A value as text.
    pub(crate) fn get(&self, key: &str) -> Option<String> {
        self.0.get(key).filter(|value| !value.is_null()).map(as_text)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Without the newline that Proxmox VE adds.
    pub(crate) fn description(&self) -> String {
        self.get("description").map(|text| text.trim_end_matches('\n').to_owned()).unwrap_or_default()
    }

    pub(crate) fn lock(&self) -> String {
        self.get("lock").unwrap_or_default()
    }
}

/// A row of a node's task list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TaskRow {
    #[serde(deserialize_with = "text")]
    pub(crate) upid: String,
    #[serde(rename = "type", deserialize_with = "text")]
    pub(crate) kind: String,
    #[serde(deserialize_with = "text")]
    pub(crate) id: String,
    #[serde(deserialize_with = "count")]
    pub(crate) starttime: u64,
    #[serde(deserialize_with = "count")]
    pub(crate) endtime: u64,
    /// The exit status, if it has ended.
    pub(crate) status: Option<String>,
}

impl TaskRow {
    pub(crate) fn is_running(&self) -> bool {
        self.endtime == 0 && self.status.as_deref().is_none_or(|s| s.is_empty() || s.eq_ignore_ascii_case("running"))
    }
}

/// A property string: `key=value` pairs separated by commas, the first perhaps without a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Properties {
    /// The value without a key.
    pub(crate) head: Option<String>,
    pub(crate) pairs: BTreeMap<String, String>,
}

impl Properties {
    pub(crate) fn parse(text: &str) -> Self {
        let mut properties = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some((key, value)) => drop(properties.pairs.insert(key.to_owned(), value.to_owned())),
                None => properties.head = Some(part.to_owned()),
            }
        }
        properties
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.pairs.get(key).map(String::as_str)
    }

    pub(crate) fn print(&self) -> String {
        let pairs = self.pairs.iter().map(|(key, value)| format!("{key}={value}"));
        self.head.iter().cloned().chain(pairs).collect::<Vec<_>>().join(",")
    }
}

/// Parses a size such as `8G`, `102M` or `8` (GiB, as in storage configurations) to bytes.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(at);
    let factor = match unit {
        "" => 1,
        "K" => 1 << 10,
        "M" => MIB,
        "G" => GIB,
        "T" => 1 << 40,
        _ => return None,
    };
    let number: f64 = digits.parse().ok()?;
    Some((number * factor as f64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_as_they_please() {
        let row: Resource = serde_json::from_str(
            r#"{"type":"lxc","vmid":"100","maxmem":268435456,"cpu":"0.25","template":"1","netin":9007199254740993}"#,
        )
        .unwrap();
        assert_eq!((row.vmid, row.maxmem, row.cpu, row.template), (100, Some(256 * MIB), Some(0.25), true));
        assert_eq!((row.netin, row.uptime), (Some(9_007_199_254_740_993), None));
        let fresh: Resource = serde_json::from_str(
            r#"{"id":"lxc/1","type":"lxc","node":"a","vmid":1,"status":"unknown","lock":"create"}"#,
        )
        .unwrap();
        assert!(fresh.is_guest() && fresh.tags.is_empty());
    }

    #[test]
    fn a_configuration_is_text_whatever_it_came_as() {
        let config: GuestConfig = serde_json::from_str(
            r#"{"memory":"512","cores":2,"cpulimit":"0.5","description":"two\nlines\n","lxc":[["a","b"]]}"#,
        )
        .unwrap();
        assert_eq!(config.get("memory").as_deref(), Some("512"));
        assert_eq!(config.get("cores").as_deref(), Some("2"));
        assert_eq!((config.get("swap"), config.lock().as_str()), (None, ""));
        assert_eq!(config.description(), "two\nlines");
    }

    #[test]
    fn property_strings_survive() {
        let net = Properties::parse("name=eth0,bridge=vmbr0,hwaddr=BC:24:11:78:DA:22,ip=10.0.0.5/24,type=veth");
        assert_eq!(net.get("ip"), Some("10.0.0.5/24"));
        assert_eq!(Properties::parse(&net.print()), net);
        let disk = Properties::parse("local:100/vm-100-disk-0.raw,size=102M");
        assert_eq!(disk.head.as_deref(), Some("local:100/vm-100-disk-0.raw"));
        assert_eq!(parse_size(disk.get("size").unwrap()), Some(102 * MIB));
        assert_eq!((parse_size("8G"), parse_size("1.5T"), parse_size("x")), (Some(8 * GIB), Some(1536 * GIB), None));
    }

    #[test]
    fn figures_without_sense_are_none() {
        for odd in ["null", "-5", "1e22", r#""NaN""#, r#""-1""#, r#""x""#, "[]", r#""inf""#] {
            let row: Resource =
                serde_json::from_str(&format!(r#"{{"type":"qemu","mem":{odd},"cpu":{odd},"netin":{odd}}}"#)).unwrap();
            assert_eq!((row.mem, row.netin, row.disk), (None, None, None), "{odd}");
            assert!(row.cpu.is_none_or(f64::is_finite), "{odd}");
        }
    }

    #[test]
    fn a_paused_machine_neither_runs_nor_is_stopped() {
        let power = |text: &str| serde_json::from_str::<GuestStatus>(text).unwrap().power();
        for qemu in ["paused", "suspended", "io-error", "internal-error", "guest-panicked"] {
            let text = format!(r#"{{"status":"running","qmpstatus":"{qemu}"}}"#);
            assert_eq!(power(&text), GuestPower::Paused, "{qemu}");
        }
        for passing in ["prelaunch", "inmigrate", "shutdown", "what"] {
            let text = format!(r#"{{"status":"running","qmpstatus":"{passing}"}}"#);
            assert_eq!(power(&text), GuestPower::Unknown, "{passing}");
        }
        // Paused for its backup.
        assert_eq!(power(r#"{"status":"running","qmpstatus":"paused","lock":"backup"}"#), GuestPower::Unknown);
        assert_eq!(power(r#"{"status":"running","qmpstatus":"running","lock":"backup"}"#), GuestPower::Running);
        assert_eq!(power(r#"{"status":"running"}"#), GuestPower::Running);
        assert_eq!(power(r#"{"status":"stopped","qmpstatus":"stopped"}"#), GuestPower::Stopped);
    }
}
