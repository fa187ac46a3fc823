//! Sizes as they are asked for, answered and kept.

use garde::Validate;
use hypervisor::Limits;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::TariffId;
use crate::servers::model::ServerRecord;

/// A wish for another size: another tariff, or parts of it. Fields left out stay as they are.
#[derive(Debug, Default, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResizeServer {
    /// Processor cores.
    #[garde(inner(range(min = 1, max = 1024)))]
    pub cores: Option<i32>,
    /// Memory in MiB.
    #[garde(inner(range(min = 64, max = 16_777_216)))]
    pub memory: Option<i64>,
    /// Disk in GiB; it can only grow.
    #[garde(inner(range(min = 1, max = 1_048_576)))]
    pub disk: Option<i64>,
    /// Another tariff, which brings its own cores, memory and disk: goes with none of these.
    #[garde(skip)]
    pub tariff_id: Option<TariffId>,
    /// Whether the server may be restarted where its size can't change while it runs. Asked for with a 422.
    #[serde(default)]
    #[garde(skip)]
    pub allow_restart: bool,
}

/// The answer to a wish for another size.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resizing {
    /// `success`: it has been taken on.
    pub status: String,
    /// The host's own id of the task, the operation's where the host has none (yet), or `unchanged`.
    pub data: String,
    /// Whether the server goes down and up again for it.
    pub restart: bool,
    /// The operation, for `GET /api/operations/{id}`; null where the server has that size already.
    pub operation_id: Option<Uuid>,
}

/// A server's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Cores.
    pub cores: i32,
    /// Memory in MiB.
    pub memory: i64,
    /// Disk in GiB.
    pub disk: i64,
    /// Rate of the network in Mbit/s; none: not limited. It comes with the tariff.
    #[serde(default)]
    pub bandwidth: Option<i32>,
}

impl Size {
    /// What a server has.
    pub fn of(server: &ServerRecord) -> Self {
        Self { cores: server.cores, memory: server.memory_mib, disk: server.disk_gib, bandwidth: server.bandwidth_mbps }
    }

    /// The greater of each (of the network nothing is held): what is held of the node while a change is under way.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            cores: self.cores.max(other.cores),
            memory: self.memory.max(other.memory),
            disk: self.disk.max(other.disk),
            ..self
        }
    }

    /// All of it as a driver takes it.
    pub(crate) fn limits(self) -> Limits {
        Limits {
            cores: u32::try_from(self.cores).ok(),
            memory_mib: u64::try_from(self.memory).ok(),
            disk_gib: u64::try_from(self.disk).ok(),
            bandwidth_mbps: Some(self.bandwidth.map_or(0, i32::unsigned_abs)),
        }
    }

    /// Cores, memory and the network's rate, as a driver takes them.
    pub(super) fn power(self) -> Limits {
        Limits { disk_gib: None, ..self.limits() }
    }

    /// The disk, as a driver takes it.
    pub(super) fn room(self) -> Limits {
        Limits { disk_gib: self.limits().disk_gib, ..Limits::default() }
    }
}
