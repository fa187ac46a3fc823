//! The size of servers, as workflows store it.

use hypervisor::GuestSize;
use serde::{Deserialize, Serialize};

use super::model::ServerRecord;

/// A server's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSize {
    /// Cores.
    pub cores: i32,
    /// Memory in MiB.
    pub memory: i64,
    /// Disk in GiB.
    pub disk: i64,
    /// Network rate in Mbit/s; `None`: unlimited. It comes from the tariff.
    #[serde(default)]
    pub bandwidth: Option<i32>,
}

impl ServerSize {
    /// A server's current size.
    pub fn of(server: &ServerRecord) -> Self {
        Self { cores: server.cores, memory: server.memory_mib, disk: server.disk_gib, bandwidth: server.bandwidth_mbps }
    }

    /// The maximum of each value (the network rate reserves nothing): what is held of the node while a change is in
    /// progress.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            cores: self.cores.max(other.cores),
            memory: self.memory.max(other.memory),
            disk: self.disk.max(other.disk),
            ..self
        }
    }

    /// All of it, as driver limits.
    pub fn limits(self) -> GuestSize {
        GuestSize {
            cores: u32::try_from(self.cores).ok(),
            memory_mib: u64::try_from(self.memory).ok(),
            disk_gib: u64::try_from(self.disk).ok(),
            bandwidth_mbps: Some(self.bandwidth.map_or(0, i32::unsigned_abs)),
        }
    }

    /// Cores, memory and the network rate, as driver limits.
    pub fn power(self) -> GuestSize {
        GuestSize { disk_gib: None, ..self.limits() }
    }

    /// The disk, as driver limits.
    pub fn room(self) -> GuestSize {
        GuestSize { disk_gib: self.limits().disk_gib, ..GuestSize::default() }
    }
}
