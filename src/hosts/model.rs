//! Hosts as they are asked for and answered.

use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};

use super::kinds::KindName;
use super::settings::{GivenSettings, HostSettings};
use crate::error::Result;
use crate::http::page::Listed;
use crate::http::text;
use crate::ids::HostId;

/// A host with its machines.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// Its id.
    pub id: HostId,
    /// Its name.
    pub name: String,
    /// What drives it.
    pub kind: KindName,
    /// How it is reached, without secrets. Null where the key that sealed it is lost, or only a
    /// newer version can read it: give it again, whole.
    pub config: Option<HostSettings>,
    /// The public key that we sign in with over SSH, as a line for `authorized_keys`; null where we don't.
    pub management_key: Option<String>,
    /// Whether new servers may be placed on it and it is watched.
    pub enabled: bool,
    /// How many times its cores may be sold.
    pub cpu_overcommit: f64,
    /// How many times its memory may be sold.
    pub memory_overcommit: f64,
    /// How many times its disk may be sold.
    pub disk_overcommit: f64,
    /// Its machines.
    pub nodes: Vec<HostNode>,
    /// When it last answered a sweep or check.
    pub seen_at: Option<DateTime<Utc>>,
    /// Why it did not answer the last one; null when it did.
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

/// One machine of a host: what it has, and what servers hold of it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostNode {
    /// Its name on the host.
    pub name: String,
    /// Whether it can take guests: it is up, and nobody keeps it free for maintenance.
    pub online: bool,
    /// Processor threads.
    pub cores: i32,
    /// Memory in MiB.
    pub memory: i64,
    /// Room for root disks in GiB.
    pub disk: i64,
    /// Whether that is the room of one storage, which all of the host's machines that say so share: it is there once, and
    /// what servers on all of them hold counts.
    pub disk_shared: bool,
    /// What servers hold, from the order until the guest is certainly gone.
    pub reserved: Reserved,
    /// When it was last seen.
    pub seen_at: DateTime<Utc>,
}

/// What servers hold of a node.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reserved {
    /// How many servers.
    pub servers: i64,
    /// Their cores.
    pub cores: i64,
    /// Their memory in MiB.
    pub memory: i64,
    /// Their disks and snapshots in GiB.
    pub disk: i64,
}

/// What a look at a host found.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostCheck {
    /// Product and version, as the host names them.
    pub version: String,
    /// Its machines.
    pub nodes: Vec<CheckedNode>,
    /// What is missing or doubtful, a sentence each; empty when all is well.
    pub problems: Vec<String>,
}

/// One machine of a host that was looked at.
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
    /// Room for root disks in GiB.
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

/// A host that was added, with what the check before it found.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddedHost {
    /// The host.
    #[serde(flatten)]
    pub host: Host,
    /// What is doubtful about it, a sentence each.
    pub problems: Vec<String>,
}

/// A new host.
#[derive(Debug, Clone, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewHost {
    /// Its name; no two hosts have the same, without regard to case.
    #[garde(length(chars, max = 100), custom(text::title))]
    pub name: String,
    /// What drives it.
    #[garde(skip)]
    pub kind: KindName,
    /// How it is reached.
    #[garde(skip)]
    #[schema(value_type = HostSettings)]
    pub config: GivenSettings,
    /// Whether new servers may be placed on it and it is watched; true if left out.
    #[serde(default = "yes")]
    #[garde(skip)]
    pub enabled: bool,
    /// How many times its cores may be sold; 4 if left out.
    #[serde(default = "four")]
    #[garde(custom(factor))]
    pub cpu_overcommit: f64,
    /// How many times its memory may be sold; 1 if left out.
    #[serde(default = "one")]
    #[garde(custom(factor))]
    pub memory_overcommit: f64,
    /// How many times its disk may be sold; 1 if left out.
    #[serde(default = "one")]
    #[garde(custom(factor))]
    pub disk_overcommit: f64,
    /// Save it even though it can't be reached, lacks something, or is there already as another host.
    #[serde(default)]
    #[garde(skip)]
    pub force: bool,
}

impl NewHost {
    /// A host with defaults for all but its name and how it is reached.
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

/// A change of a host. Fields left out stay as they are; `config` is replaced as a whole.
#[derive(Debug, Default, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateHost {
    /// Its name.
    #[garde(inner(length(chars, max = 100), custom(text::title)))]
    pub name: Option<String>,
    /// How it is reached; checked like a new host's. Secrets that are left out stay as they are.
    #[garde(skip)]
    #[schema(value_type = Option<HostSettings>)]
    pub config: Option<GivenSettings>,
    /// Whether new servers may be placed on it and it is watched.
    #[garde(skip)]
    pub enabled: Option<bool>,
    /// How many times its cores may be sold.
    #[garde(inner(custom(factor)))]
    pub cpu_overcommit: Option<f64>,
    /// How many times its memory may be sold.
    #[garde(inner(custom(factor)))]
    pub memory_overcommit: Option<f64>,
    /// How many times its disk may be sold.
    #[garde(inner(custom(factor)))]
    pub disk_overcommit: Option<f64>,
    /// Save the new `config` even though the host can't be reached with it, lacks something, is there already as another
    /// host, or has servers on it and is told to look for them elsewhere.
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
    // Not the `range` rule, which lets through what is not a number.
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
