//! What is known of servers by those who watch them, as each server shows it.

use std::collections::HashMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;

use crate::ids::ServerId;

/// How many steps a sparkline has.
pub const SPARKLINE_STEPS: usize = 20;
/// Seconds in each.
pub const SPARKLINE_STEP: i64 = 180;

/// Looks up figures of servers.
#[async_trait]
pub trait ServerFigures: std::fmt::Debug + Send + Sync {
    /// How many open alerts these servers have; those without any may be left out.
    async fn open_alerts(&self, db: &mut PgConnection, servers: &[ServerId]) -> sqlx::Result<HashMap<ServerId, i64>>;

    /// These servers' latest figures, in a fixed number of queries.
    async fn stats(&self, db: &mut PgConnection, servers: &[ServerId]) -> sqlx::Result<HashMap<ServerId, ServerStats>>;
}

/// A server's latest figures. Values that the host does not report are null, as is everything of a running server before
/// its first sample; a stopped server uses nothing.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerStats {
    /// CPU usage as a fraction of its cores, 0 to 1.
    pub cpu: Option<f64>,
    /// Memory usage.
    pub memory: ResourceUsage,
    /// Root disk usage.
    pub disk: ResourceUsage,
    /// Network traffic now.
    pub network: NetworkRates,
    /// Seconds since its last start.
    pub uptime: Option<i64>,
    /// When the sample was taken; null before the first sweep.
    pub sampled_at: Option<DateTime<Utc>>,
    /// Age of the sample in seconds; null before the first sweep.
    pub age: Option<i64>,
    /// The last hour.
    pub sparkline: Sparkline,
}

/// Usage of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, utoipa::ToSchema)]
pub struct ResourceUsage {
    /// Bytes in use; null if unknown, as for disks of Proxmox VE virtual machines.
    pub used: Option<i64>,
    /// Total bytes.
    pub max: i64,
    /// Usage in percent.
    pub usage: Option<f64>,
}

/// Network traffic, in bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, utoipa::ToSchema)]
pub struct NetworkRates {
    /// Bytes received per second.
    #[serde(rename = "in")]
    pub received: Option<f64>,
    /// Bytes sent per second.
    #[serde(rename = "out")]
    pub sent: Option<f64>,
}

/// The last hour in steps of three minutes, oldest first; null where there was no sample.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Sparkline {
    /// Mean CPU usage as a fraction of its cores.
    pub cpu: Vec<Option<f64>>,
    /// Mean memory in use, in bytes.
    pub memory: Vec<Option<f64>>,
}
