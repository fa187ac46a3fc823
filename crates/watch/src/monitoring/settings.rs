//! Settings of monitoring.

use std::time::Duration;

use kernel::settings::{Settings, at_least_one};
use serde::{Deserialize, Serialize};

/// How often hosts are swept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct MonitoringSettings {
    /// Seconds between two sweeps of a host.
    pub sweep_seconds: u32,
}

impl Default for MonitoringSettings {
    fn default() -> Self {
        Self { sweep_seconds: 30 }
    }
}

impl Settings for MonitoringSettings {
    fn check(&self) -> anyhow::Result<()> {
        at_least_one([("INNKEEPER_SWEEP_SECONDS", self.sweep_seconds.into())])
    }
}

impl MonitoringSettings {
    /// From the start of one sweep of a host to the start of the next one.
    pub fn sweep_interval(&self) -> Duration {
        Duration::from_secs(self.sweep_seconds.into())
    }
}
