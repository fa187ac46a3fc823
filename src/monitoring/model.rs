//! A server's figures as the API and the sockets show them.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::ids::ServerId;
use crate::servers::model::Status;

/// A server's latest figures and the last hour's chart.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// `success`.
    pub status: &'static str,
    /// The figures.
    pub data: StatsData,
}

/// The figures. What the host does not tell, and all of a server that runs and was not looked at yet, is null; what is
/// stopped uses nothing.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatsData {
    /// The guest's number.
    pub vmid: i64,
    /// What the server is doing: `running`, `stopped`, `paused`, ….
    pub status: String,
    /// Why it is paused, in its host's word (`io-error`, …); null where it is not, or the host does not say.
    pub reason: Option<String>,
    /// Seconds since its start.
    pub uptime: Option<i64>,
    /// Share of its cores in use, 0 to 1.
    pub cpu: Option<f64>,
    /// Memory.
    pub memory: Gauge,
    /// Root disk.
    pub disk: Gauge,
    /// Network, counted since its start.
    pub network: Network,
    /// The last hour, oldest first.
    pub rrd_data: Vec<Point>,
    /// When the figures were taken; null before the first sweep.
    pub sampled_at: Option<DateTime<Utc>>,
    /// How old they are, in seconds; null before the first sweep.
    pub age: Option<i64>,
}

/// How much of something is in use.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Gauge {
    /// Bytes in use; null where that is not known, as of the disks of Proxmox VE's machines.
    pub used: Option<i64>,
    /// Bytes there are.
    pub max: i64,
    /// In use, in percent.
    pub usage: Option<f64>,
}

/// Bytes over the network since the guest's start.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Network {
    /// Received.
    #[serde(rename = "in")]
    pub received: Option<i64>,
    /// Sent.
    #[serde(rename = "out")]
    pub sent: Option<i64>,
}

/// One point of a chart, as Proxmox names its figures; what is not known is null.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Point {
    /// Seconds since 1970.
    pub time: i64,
    /// Share of its cores in use, 0 to 1.
    pub cpu: Option<f64>,
    /// Memory in use in bytes.
    pub mem: Option<i64>,
    /// Memory in bytes.
    pub maxmem: Option<i64>,
    /// Root disk in use in bytes.
    pub disk: Option<i64>,
    /// Root disk in bytes.
    pub maxdisk: Option<i64>,
    /// Bytes received per second since the point before.
    pub netin: Option<f64>,
    /// Bytes sent per second since the point before.
    pub netout: Option<f64>,
}

/// A server's status and figures.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ServerStatus {
    /// The server.
    pub id: ServerId,
    /// Where it stands.
    pub status: Status,
    /// Its figures at the last sweep.
    pub stats: Stats,
}

/// A host in the fleet's figures.
#[derive(Debug, Clone)]
pub struct FleetHost {
    /// Its name.
    pub name: String,
    /// Whether the last sweep succeeded.
    pub up: bool,
    /// When one last did.
    pub seen_at: Option<DateTime<Utc>>,
}

/// A server in the fleet's figures. The sample's part is `None` where none was taken in the last ten minutes.
#[derive(Debug, Clone, Default)]
pub struct FleetServer {
    /// Its id.
    pub id: i64,
    /// Its guest's number.
    pub guest_number: i64,
    /// Its name.
    pub name: String,
    /// `lxc` or `vm`.
    pub kind: String,
    /// Its host's name.
    pub host: String,
    /// The node it is on.
    pub node: String,
    /// Its tariff's name.
    pub tariff: String,
    /// What it is doing: `running`, `stopped`, ….
    pub status: String,
    /// Its cores.
    pub cores: i32,
    /// When it was looked at.
    pub taken_at: Option<DateTime<Utc>>,
    /// `running`, `stopped`, `paused` or `unknown`, as the host said.
    pub power: Option<String>,
    /// Seconds since its start.
    pub uptime_s: Option<i64>,
    /// Share of its cores in use, 0 to 1.
    pub cpu: Option<f64>,
    /// Memory in use in bytes.
    pub memory_used: Option<i64>,
    /// Memory in bytes.
    pub memory_max: Option<i64>,
    /// Root disk in use in bytes.
    pub disk_used: Option<i64>,
    /// Root disk in bytes.
    pub disk_max: Option<i64>,
    /// Bytes received since its start.
    pub net_in: Option<i64>,
    /// Bytes sent since its start.
    pub net_out: Option<i64>,
    /// Bytes received a second.
    pub net_in_rate: Option<f64>,
    /// Bytes sent a second.
    pub net_out_rate: Option<f64>,
}

impl FleetServer {
    /// Share of its memory in use, 0 to 1.
    pub fn memory_share(&self) -> Option<f64> {
        share(self.memory_used, self.memory_max)
    }

    /// Share of its root disk in use, 0 to 1.
    pub fn disk_share(&self) -> Option<f64> {
        share(self.disk_used, self.disk_max)
    }
}

/// Part of a whole, where there is a whole to be part of.
fn share(used: Option<i64>, max: Option<i64>) -> Option<f64> {
    Some(used? as f64 / max.filter(|m| *m > 0)? as f64)
}
