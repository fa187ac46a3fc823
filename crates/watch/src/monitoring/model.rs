//! A server's stats, as the API and the sockets show them.

use chrono::{DateTime, Utc};
pub use compute::servers::figures::ResourceUsage;
use serde::Serialize;

/// The stats of a server. Values that the host does not report are null, as is everything of a running server before
/// its first sample; a stopped server uses nothing.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatsData {
    /// The guest's number on its host.
    pub vmid: i64,
    /// The server's status: `running`, `stopped`, `paused`, ….
    pub status: String,
    /// Why it is paused, as the host puts it (`io-error`, …); null if it isn't paused or the host does not say.
    pub reason: Option<String>,
    /// Seconds since its last start.
    pub uptime: Option<i64>,
    /// CPU usage as a fraction of its cores, 0 to 1.
    pub cpu: Option<f64>,
    /// Memory usage.
    pub memory: ResourceUsage,
    /// Root disk usage.
    pub disk: ResourceUsage,
    /// Network traffic since its last start.
    pub network: NetworkUsage,
    /// Chart of the last hour, oldest point first.
    pub rrd_data: Vec<ChartPoint>,
    /// When the sample was taken; null before the first sweep.
    pub sampled_at: Option<DateTime<Utc>>,
    /// Age of the sample in seconds; null before the first sweep.
    pub age: Option<i64>,
}

/// Network bytes since the guest's last start.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, utoipa::ToSchema)]
pub struct NetworkUsage {
    /// Bytes received.
    #[serde(rename = "in")]
    pub received: Option<i64>,
    /// Bytes sent.
    #[serde(rename = "out")]
    pub sent: Option<i64>,
}

/// One chart point, with Proxmox's field names. Unknown values are null.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, utoipa::ToSchema)]
pub struct ChartPoint {
    /// Unix time in seconds.
    pub time: i64,
    /// CPU usage as a fraction of its cores, 0 to 1.
    pub cpu: Option<f64>,
    /// Memory in use, in bytes.
    pub mem: Option<i64>,
    /// Memory limit, in bytes.
    pub maxmem: Option<i64>,
    /// Root disk in use, in bytes.
    pub disk: Option<i64>,
    /// Root disk size, in bytes.
    pub maxdisk: Option<i64>,
    /// Bytes received per second since the previous point.
    pub netin: Option<f64>,
    /// Bytes sent per second since the previous point.
    pub netout: Option<f64>,
}

/// A host in the fleet overview.
#[derive(Debug, Clone)]
pub struct FleetHost {
    /// The host's name.
    pub name: String,
    /// Whether the last sweep succeeded.
    pub up: bool,
    /// When a sweep last succeeded.
    pub seen_at: Option<DateTime<Utc>>,
}

/// A server in the fleet overview. Sample fields are `None` if there was no sample in the last ten minutes.
#[derive(Debug, Clone, Default)]
pub struct FleetServer {
    /// The server's id.
    pub id: i64,
    /// The guest's number on its host.
    pub guest_number: i64,
    /// The server's name.
    pub name: String,
    /// `lxc` or `vm`.
    pub kind: String,
    /// Name of its host.
    pub host: String,
    /// The node that it is on.
    pub node: String,
    /// Name of its tariff.
    pub tariff: String,
    /// The server's status: `running`, `stopped`, ….
    pub status: String,
    /// Number of cores.
    pub cores: i32,
    /// When the sample was taken.
    pub taken_at: Option<DateTime<Utc>>,
    /// Power state that the host reported: `running`, `stopped`, `paused` or `unknown`.
    pub power: Option<String>,
    /// Seconds since its last start.
    pub uptime_s: Option<i64>,
    /// CPU usage as a fraction of its cores, 0 to 1.
    pub cpu: Option<f64>,
    /// Memory in use, in bytes.
    pub memory_used: Option<i64>,
    /// Memory limit, in bytes.
    pub memory_max: Option<i64>,
    /// Root disk in use, in bytes.
    pub disk_used: Option<i64>,
    /// Root disk size, in bytes.
    pub disk_max: Option<i64>,
    /// Bytes received since its last start.
    pub net_in: Option<i64>,
    /// Bytes sent since its last start.
    pub net_out: Option<i64>,
    /// Bytes received per second.
    pub net_in_rate: Option<f64>,
    /// Bytes sent per second.
    pub net_out_rate: Option<f64>,
}

impl FleetServer {
    /// Memory usage as a fraction, 0 to 1.
    pub fn memory_share(&self) -> Option<f64> {
        share(self.memory_used, self.memory_max)
    }

    /// Root disk usage as a fraction, 0 to 1.
    pub fn disk_share(&self) -> Option<f64> {
        share(self.disk_used, self.disk_max)
    }
}

/// `used / max`, if both are known and `max` is not 0.
fn share(used: Option<i64>, max: Option<i64>) -> Option<f64> {
    Some(used? as f64 / max.filter(|m| *m > 0)? as f64)
}
