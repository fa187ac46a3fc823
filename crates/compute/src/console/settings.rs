//! Settings of consoles.

use kernel::settings::{Settings, at_least_one};
use serde::{Deserialize, Serialize};

/// How long consoles may stay open, and how many.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
#[allow(clippy::struct_field_names, reason = "fields are named like their variables")]
pub struct ConsoleSettings {
    /// Seconds within which a console ticket must be used.
    pub console_ticket_seconds: u32,
    /// Seconds within which a console that lost its connection can be reconnected.
    pub console_reconnect_seconds: u32,
    /// Seconds without input after which a console is closed.
    pub console_idle_seconds: u32,
    /// Maximum duration of a console in seconds, including all reconnects.
    pub console_total_seconds: u32,
    /// Maximum number of open consoles per account.
    pub console_limit_account: u32,
    /// Maximum number of open consoles per server.
    pub console_limit_server: u32,
    /// Maximum input of a console in KiB per second; more is delayed.
    pub console_input_kib: u32,
}

impl Default for ConsoleSettings {
    fn default() -> Self {
        Self {
            console_ticket_seconds: 30,
            console_reconnect_seconds: 120,
            console_idle_seconds: 900,
            console_total_seconds: 28_800,
            console_limit_account: 20,
            console_limit_server: 5,
            console_input_kib: 256,
        }
    }
}

impl Settings for ConsoleSettings {
    fn check(&self) -> anyhow::Result<()> {
        at_least_one([
            ("INNKEEPER_CONSOLE_TICKET_SECONDS", self.console_ticket_seconds.into()),
            ("INNKEEPER_CONSOLE_IDLE_SECONDS", self.console_idle_seconds.into()),
            ("INNKEEPER_CONSOLE_TOTAL_SECONDS", self.console_total_seconds.into()),
            ("INNKEEPER_CONSOLE_LIMIT_ACCOUNT", self.console_limit_account.into()),
            ("INNKEEPER_CONSOLE_LIMIT_SERVER", self.console_limit_server.into()),
            ("INNKEEPER_CONSOLE_INPUT_KIB", self.console_input_kib.into()),
        ])
    }
}
