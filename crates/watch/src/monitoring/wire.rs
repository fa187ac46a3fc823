//! Stats in the shape of the server-management API, which its Socket.IO events have as well.

use compute::servers::model::{ServerRecord, ServerState};
use compute::servers::wire::SUCCESS;
use serde::Serialize;

use super::model::StatsData;
use crate::ids::ServerId;

/// A server's latest stats and a chart of the last hour.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Always `success`.
    pub status: &'static str,
    /// The stats.
    pub data: StatsData,
}

impl From<StatsData> for Stats {
    fn from(data: StatsData) -> Self {
        Self { status: SUCCESS, data }
    }
}

/// A server's status and metrics.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ServerStatus {
    /// The server.
    pub id: ServerId,
    /// Its status.
    pub status: ServerState,
    /// Its metrics at the last sweep.
    pub stats: Stats,
}

impl ServerStatus {
    /// The status of this server, with its stats.
    pub(super) fn new(server: &ServerRecord, stats: StatsData) -> Self {
        Self { id: server.id, status: server.status, stats: stats.into() }
    }
}
