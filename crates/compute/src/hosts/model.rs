//! Request and response types for hosts.

use chrono::{DateTime, Utc};
use garde::Validate;
use kernel::error::Result;
use kernel::http::page::Listed;
use kernel::http::text;
use serde::{Deserialize, Serialize};

use super::kinds::KindName;
use super::settings::{HostSettings, RawSettings};
use crate::ids::HostId;

/// A host with its nodes.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// Its id.
    pub id: HostId,
    /// Its name.
    pub name: String,
    /// The kind of hypervisor.
    pub kind: KindName,
    /// How it is reached, without secrets. Null if the key that sealed it is lost, or if only a newer version can read
    /// it: set it again in full.
    pub config: Option<HostSettings>,
    /// The public key that we log in with over SSH, as a line for `authorized_keys`; null if we don't use SSH.
    pub management_key: Option<String>,
    /// Whether it is monitored and new servers may be placed on it.
    pub enabled: bool,
    /// CPU overcommit factor.
    pub cpu_overcommit: f64,
    /// Memory overcommit factor.
    pub memory_overcommit: f64,
    /// Disk overcommit factor.
    pub disk_overcommit: f64,
    /// Its nodes.
    pub nodes: Vec<HostNode>,
    /// When it last responded to a sweep or check.
    pub seen_at: Option<DateTime<Utc>>,
    /// Why it did not respond to the last one; null if it did.
    pub last_error: Option<String>,
    /// When it was added.
    pub created_at: DateTime<Utc>,
    /// When its settings were last changed.
    pub updated_at: DateTime<Utc>,
}

impl Listed for Host {
    fn facts(&self) -> (i64, &str, bool, DateTime<Utc>, DateTime<Utc>) {
        (self.id.0, &self.name, self.enabled, self.created_at, self.updated_at)
    }
}

/// One node of a host: its capacity, and what servers hold of it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostNode {
    /// Its name on the host.
    pub name: String,
    /// Whether it can take guests: it is up and not in maintenance.
    pub online: bool,
    /// Processor threads.
    pub cores: i32,
    /// Memory in MiB.
    pub memory: i64,
    /// Capacity for root disks in GiB.
    pub disk: i64,
    /// Whether that is the capacity of a storage shared by all of the host's nodes that have this set: it exists only
    /// once, and what servers on any of those nodes hold counts against it.
    pub disk_shared: bool,
    /// What servers hold, from the order until the guest is certainly gone.
    pub reserved: ReservedCapacity,
    /// When a sweep or check last found it.
    pub seen_at: DateTime<Utc>,
}

/// What servers hold of a node.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservedCapacity {
    /// The number of servers.
    pub servers: i64,
    /// Their cores.
    pub cores: i64,
    /// Their memory in MiB.
    pub memory: i64,
    /// Their disks and snapshots in GiB.
    pub disk: i64,
}

/// The result of checking a host.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostCheck {
    /// Product and version, as the host reports them.
    pub version: String,
    /// Its nodes.
    pub nodes: Vec<CheckedNode>,
    /// What is missing or questionable, one sentence each; empty if all is well.
    pub problems: Vec<String>,
}

/// One node of a host that was checked.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckedNode {
    /// Its name on the host.
    pub name: String,
    /// Whether it can take guests.
    pub online: bool,
    /// Processor threads.
    pub cores: u32,
    /// Memory in MiB.
    pub memory: u64,
    /// Capacity for root disks in GiB.
    pub disk: u64,
}

impl From<hypervisor::HostInfo> for HostCheck {
    fn from(info: hypervisor::HostInfo) -> Self {
        let nodes = info.nodes.into_iter().map(|n| CheckedNode {
            name: n.name,
            online: n.online,
            cores: n.cores,
            memory: n.memory_mib,
            disk: n.disk_gib,
        });
        Self { version: info.version, nodes: nodes.collect(), problems: info.problems }
    }
}

/// A host that was added, with the results of the check before.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddedHost {
    /// The host.
    #[serde(flatten)]
    pub host: Host,
    /// What is questionable about it, one sentence each.
    pub problems: Vec<String>,
}

/// A new host.
#[derive(Debug, Clone, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewHost {
    /// Its name, unique among hosts, ignoring case.
    #[garde(length(chars, max = 100), custom(text::title))]
    pub name: String,
    /// The kind of hypervisor.
    #[garde(skip)]
    pub kind: KindName,
    /// How it is reached.
    #[garde(skip)]
    #[schema(value_type = HostSettings)]
    pub config: RawSettings,
    /// Whether it is monitored and new servers may be placed on it; true if omitted.
    #[serde(default = "yes")]
    #[garde(skip)]
    pub enabled: bool,
    /// CPU overcommit factor; 4 if omitted.
    #[serde(default = "four")]
    #[garde(custom(factor))]
    pub cpu_overcommit: f64,
    /// Memory overcommit factor; 1 if omitted.
    #[serde(default = "one")]
    #[garde(custom(factor))]
    pub memory_overcommit: f64,
    /// Disk overcommit factor; 1 if omitted.
    #[serde(default = "one")]
    #[garde(custom(factor))]
    pub disk_overcommit: f64,
    /// Save it even if it can't be reached, lacks something, or already exists as another host.
    #[serde(default)]
    #[garde(skip)]
    pub force: bool,
}

impl NewHost {
    /// A host with defaults for everything but its name and settings.
    pub fn new(name: String, settings: &HostSettings) -> Result<Self> {
        Ok(Self {
            name,
            kind: settings.kind(),
            config: settings.given()?,
            enabled: true,
            cpu_overcommit: four(),
            memory_overcommit: one(),
            disk_overcommit: one(),
            force: false,
        })
    }
}

/// A change of a host. Omitted fields stay unchanged; `config` is replaced as a whole.
#[derive(Debug, Default, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateHost {
    /// Its name.
    #[garde(inner(length(chars, max = 100), custom(text::title)))]
    pub name: Option<String>,
    /// How it is reached; checked like a new host's. Omitted secrets stay unchanged.
    #[garde(skip)]
    #[schema(value_type = Option<HostSettings>)]
    pub config: Option<RawSettings>,
    /// Whether it is monitored and new servers may be placed on it.
    #[garde(skip)]
    pub enabled: Option<bool>,
    /// CPU overcommit factor.
    #[garde(inner(custom(factor)))]
    pub cpu_overcommit: Option<f64>,
    /// Memory overcommit factor.
    #[garde(inner(custom(factor)))]
    pub memory_overcommit: Option<f64>,
    /// Disk overcommit factor.
    #[garde(inner(custom(factor)))]
    pub disk_overcommit: Option<f64>,
    /// Save the new `config` even if the host can't be reached with it, lacks something, already exists as another
    /// host, or has servers on it that might no longer be found.
    #[serde(default)]
    #[garde(skip)]
    pub force: bool,
}

fn yes() -> bool {
    true
}

fn one() -> f64 {
    1.0
}

fn four() -> f64 {
    4.0
}

fn factor(times: &f64, (): &()) -> garde::Result {
    // Not the `range` rule, which accepts NaN.
    match (0.1..=100.0).contains(times) {
        true => Ok(()),
        false => Err(garde::Error::new("must be between 0.1 and 100")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overcommit_is_bounded() {
        let new: NewHost = serde_json::from_str(r#"{"name": "a", "kind": "incus", "config": {}}"#).unwrap();
        assert!(new.validate().is_ok());
        for factor in [0.0, -1.0, 1e9, f64::NAN] {
            assert!(NewHost { memory_overcommit: factor, ..new.clone() }.validate().is_err(), "{factor}");
        }
    }
}
