//! Charts as they are asked for and answered.

use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};

use crate::ids::ServerId;

/// Which part of a server's history to show, and how finely.
#[derive(Debug, Default, Deserialize, Validate, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ShowMetrics {
    /// From this time on; an hour before `to` if left out.
    #[garde(skip)]
    pub from: Option<DateTime<Utc>>,
    /// Before this time; now if left out.
    #[garde(skip)]
    pub to: Option<DateTime<Utc>>,
    /// Seconds a point; if left out, as many as make about 120 points. At most 2,000 points are shown at once.
    #[garde(range(min = 1, max = 31_536_000))]
    #[param(minimum = 1, maximum = 31_536_000)]
    pub step: Option<i64>,
}

/// A part of a server's history.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    /// Whose.
    pub server_id: ServerId,
    /// From this time on.
    pub from: DateTime<Utc>,
    /// Before this time.
    pub to: DateTime<Utc>,
    /// Seconds a point: as asked for, or as fine as that part of history is kept.
    pub step: i64,
    /// Oldest first. Where nothing is known there is no point.
    pub points: Vec<MetricsPoint>,
}

/// How much a server received and sent.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// Whose.
    pub server_id: ServerId,
    /// Bytes a month, received and sent together, that the tariff includes; null where it sets no limit.
    pub quota: Option<i64>,
    /// Newest first, beginning with the current month; two years at most.
    pub months: Vec<TrafficMonth>,
}

/// A calendar month's traffic.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficMonth {
    /// In UTC.
    #[schema(example = "2026-01")]
    pub month: String,
    /// Bytes received.
    pub received: i64,
    /// Bytes sent.
    pub sent: i64,
}

/// What a server did in one step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricsPoint {
    /// When the step began.
    pub time: DateTime<Utc>,
    /// How many looks at the server it sums up.
    pub samples: i64,
    /// In which share of them it ran, 0 to 1.
    pub up: f64,
    /// Share of its cores in use, 0 to 1. This and all below is null where no look could tell.
    pub cpu: Option<Spread>,
    /// Memory in use in bytes.
    pub memory: Option<Spread>,
    /// Memory it might use in bytes, at most.
    pub memory_size: Option<i64>,
    /// Root disk in use in bytes.
    pub disk: Option<Spread>,
    /// Root disk in bytes, at most.
    pub disk_size: Option<i64>,
    /// Bytes received a second; not known either where only one look was ever taken.
    pub net_in: Option<Spread>,
    /// Bytes sent a second.
    pub net_out: Option<Spread>,
}

/// A figure over a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// Over all looks that could tell.
    pub mean: f64,
    /// The greatest.
    pub max: f64,
}
