//! Settings of servers.

use std::time::Duration;

use kernel::settings::Settings;
use serde::{Deserialize, Serialize};

/// How long changes of servers may take, and how full their storages may get.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerSettings {
    /// Seconds after which the creation of a server is undone if it has not succeeded.
    pub create_deadline_seconds: u32,
    /// Seconds that a guest may take to shut down before it is forced off.
    pub shutdown_seconds: u32,
    /// Percentage of a storage that must stay free after another snapshot or a larger disk.
    pub storage_margin_percent: u32,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self { create_deadline_seconds: 900, shutdown_seconds: 60, storage_margin_percent: 10 }
    }
}

impl Settings for ServerSettings {
    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.storage_margin_percent < 100, "INNKEEPER_STORAGE_MARGIN_PERCENT must be less than 100");
        Ok(())
    }
}

impl ServerSettings {
    /// How long a guest may take to shut down before it is forced off.
    pub fn shutdown(&self) -> Duration {
        Duration::from_secs(self.shutdown_seconds.into())
    }
}
