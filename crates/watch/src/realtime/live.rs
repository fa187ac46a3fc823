//! What the sockets push to the watchers of a server: its stats and open alerts.

use kernel::core::Core;
use kernel::error::Result;

use crate::alerts;
use crate::alerts::model::LiveAlert;
use crate::ids::{HostId, ServerId};
use crate::monitoring;
use crate::monitoring::Charts;
use crate::monitoring::wire::Stats;

/// What the sockets push to the watchers of a server.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ServerUpdate {
    /// The server's id.
    pub server: ServerId,
    /// Its latest stats.
    pub stats: Stats,
    /// Its open alerts.
    pub alerts: Vec<LiveAlert>,
}

/// The stats and open alerts of these servers, limited to one host if given, in a fixed number of queries.
pub(super) async fn of(
    core: &Core,
    host: Option<HostId>,
    servers: &[ServerId],
    charts: &mut Charts,
) -> Result<Vec<ServerUpdate>> {
    if servers.is_empty() {
        return Ok(vec![]);
    }
    let stats = monitoring::service::stats_of(core, host, servers, charts).await?;
    let ids: Vec<ServerId> = stats.iter().map(|(id, _)| *id).collect();
    let mut open = alerts::service::open(core, &ids).await?;
    let updates = stats.into_iter().map(|(server, stats)| {
        let alerts = open.remove(&server).unwrap_or_default();
        ServerUpdate { server, stats: stats.into(), alerts }
    });
    Ok(updates.collect())
}
