//! The server and its machine.

use hypervisor::{Node, Result};
use serde::Deserialize;

use crate::api::{GIB, MIB, PoolResources};
use crate::client::Client;

/// `GET /1.0`.
#[derive(Debug, Deserialize)]
pub(crate) struct ServerInfo {
    #[serde(default)]
    pub(crate) api_extensions: Vec<String>,
    #[serde(default)]
    pub(crate) auth: String,
    pub(crate) environment: Environment,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Environment {
    pub(crate) server_name: String,
    pub(crate) server_version: String,
    pub(crate) server_clustered: bool,
    pub(crate) driver: String,
    pub(crate) firewall: String,
    pub(crate) certificate_fingerprint: String,
}

/// `GET /1.0/resources`.
#[derive(Debug, Deserialize)]
pub(crate) struct MachineResources {
    cpu: Cpu,
    memory: Total,
}

#[derive(Debug, Deserialize)]
struct Cpu {
    total: u32,
}

#[derive(Debug, Deserialize)]
struct Total {
    total: u64,
}

/// The server's name, which is that of its only node.
pub(crate) async fn name(client: &Client) -> Result<String> {
    let server: ServerInfo = client.get(&[], &[]).await?;
    Ok(server.environment.server_name)
}

pub(crate) fn as_node(server: &ServerInfo, resources: &MachineResources, pool: Option<&PoolResources>) -> Node {
    Node {
        name: server.environment.server_name.clone(),
        online: true,
        cores: resources.cpu.total,
        memory_mib: resources.memory.total / MIB,
        disk_gib: pool.map_or(0, |pool| pool.space.total / GIB),
        disk_used: pool.and_then(|pool| pool.space.used),
        disk_shared: false,
    }
}
