//! How to reach an Incus server and where on it our guests go.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The settings of one server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IncusConfig {
    /// The daemon's unix socket.
    pub socket: PathBuf,
    /// The Incus project of our guests.
    pub project: String,
    /// The storage pool for guests' root disks.
    pub storage_pool: String,
    /// Whether Incus filters the guests' traffic, so that none can use another's address. Only switch it off if the
    /// node's kernel lacks support (nftables' bridge family).
    pub address_filters: bool,
    /// The search domain of guests.
    pub search_domain: Option<String>,
    /// How many processes a container may have per GiB of memory, on top of 500; 0: no limit.
    pub processes_per_gib: u32,
    /// Timeout for connecting, in seconds.
    pub connect_timeout_s: u64,
    /// Timeout for a whole request, in seconds.
    pub request_timeout_s: u64,
}

impl Default for IncusConfig {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/var/lib/incus/unix.socket"),
            project: "default".to_owned(),
            storage_pool: "default".to_owned(),
            address_filters: true,
            search_domain: None,
            processes_per_gib: 1000,
            connect_timeout_s: 5,
            request_timeout_s: 30,
        }
    }
}
