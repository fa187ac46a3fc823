//! Settings of alerts.

use kernel::settings::Settings;
use serde::{Deserialize, Serialize};

/// How soon and how often people are notified.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct AlertSettings {
    /// Seconds without a further alert before emails are sent; at most six times as long while new ones keep coming.
    pub alert_settle_seconds: u32,
    /// Seconds in which a server's owner is notified only once of the same kind of problem, however often it comes and
    /// goes.
    pub alert_floor_seconds: u32,
}

impl Default for AlertSettings {
    fn default() -> Self {
        Self { alert_settle_seconds: 10, alert_floor_seconds: 900 }
    }
}

impl Settings for AlertSettings {}
