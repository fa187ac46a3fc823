//! Requests and responses for charts and traffic.

use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};

use crate::ids::ServerId;

/// The period of a server's history to show, and its resolution.
#[derive(Debug, Default, Deserialize, Validate, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ShowMetrics {
    /// Start of the period; an hour before `to` by default.
    #[garde(skip)]
    pub from: Option<DateTime<Utc>>,
    /// End of the period (exclusive); now by default.
    #[garde(skip)]
    pub to: Option<DateTime<Utc>>,
    /// Seconds per point; by default chosen to give about 120 points. A response has at most 2,000 points.
    #[garde(range(min = 1, max = 31_536_000))]
    #[param(minimum = 1, maximum = 31_536_000)]
    pub step: Option<i64>,
}

/// The metrics of a server over a period.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    /// The server's id.
    pub server_id: ServerId,
    /// Start of the period.
    pub from: DateTime<Utc>,
    /// End of the period (exclusive).
    pub to: DateTime<Utc>,
    /// Seconds per point: as requested, or the finest step kept for that period.
    pub step: i64,
    /// Oldest first. Steps without any data are left out.
    pub points: Vec<MetricsPoint>,
}

/// A server's traffic.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerTraffic {
    /// The server's id.
    pub server_id: ServerId,
    /// Bytes per month included in the tariff, both directions together; null if it sets no limit.
    pub quota: Option<i64>,
    /// Newest first, starting with the current month; at most two years.
    pub months: Vec<TrafficMonth>,
}

/// The traffic of one calendar month.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficMonth {
    /// The month, in UTC.
    #[schema(example = "2026-01")]
    pub month: String,
    /// Bytes received.
    pub received: i64,
    /// Bytes sent.
    pub sent: i64,
}

/// A server's metrics over one step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricsPoint {
    /// Start of the step.
    pub time: DateTime<Utc>,
    /// Number of samples in this step.
    pub samples: i64,
    /// Fraction of the samples in which it was running, 0 to 1.
    pub up: f64,
    /// CPU usage as a fraction of its cores, 0 to 1. This and everything below is null if no sample in the step had the
    /// value.
    pub cpu: Option<MetricSpread>,
    /// Memory in use, in bytes.
    pub memory: Option<MetricSpread>,
    /// Memory limit, in bytes.
    pub memory_size: Option<i64>,
    /// Root disk in use, in bytes.
    pub disk: Option<MetricSpread>,
    /// Root disk size, in bytes.
    pub disk_size: Option<i64>,
    /// Bytes received per second; also null if there has only ever been one sample.
    pub net_in: Option<MetricSpread>,
    /// Bytes sent per second.
    pub net_out: Option<MetricSpread>,
}

/// Distribution of a metric over a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, utoipa::ToSchema)]
pub struct MetricSpread {
    /// Minimum.
    pub min: f64,
    /// Mean of the samples that have the value.
    pub mean: f64,
    /// Maximum.
    pub max: f64,
}
