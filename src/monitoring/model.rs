//! A server's figures as the API and the sockets show them.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::alerts::model::LiveAlert;
use crate::ids::ServerId;

/// A server's latest figures and the last hour's chart.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// `success`.
    pub status: &'static str,
    /// The figures.
    pub data: StatsData,
}

/// The figures. Before the first sweep they are 0, with `sampledAt` null.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatsData {
    /// The guest's number.
    pub vmid: i64,
    /// What the server is doing: `running`, `stopped`, ….
    pub status: String,
    /// Seconds since its start.
    pub uptime: i64,
    /// Share of its cores in use, 0 to 1.
    pub cpu: f64,
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
}

/// How much of something is in use.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Gauge {
    /// Bytes in use.
    pub used: i64,
    /// Bytes there are.
    pub max: i64,
    /// In use, in percent.
    pub usage: f64,
}

/// Bytes over the network since the guest's start.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Network {
    /// Received.
    #[serde(rename = "in")]
    pub received: i64,
    /// Sent.
    #[serde(rename = "out")]
    pub sent: i64,
}

/// One point of a chart, as Proxmox names its figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Point {
    /// Seconds since 1970.
    pub time: i64,
    /// Share of its cores in use, 0 to 1.
    pub cpu: f64,
    /// Memory in use in bytes.
    pub mem: i64,
    /// Memory in bytes.
    pub maxmem: i64,
    /// Root disk in use in bytes.
    pub disk: i64,
    /// Root disk in bytes.
    pub maxdisk: i64,
    /// Bytes received per second since the point before.
    pub netin: f64,
    /// Bytes sent per second since the point before.
    pub netout: f64,
}

/// What is pushed to those who watch a server.
#[derive(Debug, Clone, PartialEq)]
pub struct Live {
    /// Whose.
    pub server: ServerId,
    /// Its figures.
    pub stats: Stats,
    /// Its open alerts.
    pub alerts: Vec<LiveAlert>,
}
