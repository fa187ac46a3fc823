//! What to alert on, and when: rules, and the state machine that turns samples into alerts.

mod quiet;
mod track;

use serde::{Deserialize, Serialize};

pub use quiet::QuietPeriod;
pub use track::{AlertEvent, AlertRule, AlertTrack, step};

/// Usage of a guest's resources, as fractions from 0 to 1; `None` if unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct GuestUsage {
    /// Fraction of its cores.
    pub cpu: Option<f64>,
    /// Fraction of its memory.
    pub memory: Option<f64>,
    /// Fraction of its root disk.
    pub disk: Option<f64>,
}

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A guest's CPU usage, as a fraction of its cores.
    Cpu,
    /// A guest's memory usage, as a fraction of its limit.
    Memory,
    /// A guest's root disk usage, as a fraction of its size.
    Disk,
    /// A guest's traffic this month, as a fraction of its quota.
    Traffic,
    /// A guest that should be up and isn't.
    Down,
    /// A host that does not respond.
    HostUnreachable,
    /// Usage of the storage that a host's guests are on, as a fraction.
    StorageLow,
    /// Addresses of a pool that are in use or resting, as a fraction.
    PoolLow,
    /// An operation that needs an operator.
    OperationStuck,
    /// A guest is locked on its host by a task that is gone.
    StaleLock,
    /// Mail waiting because the mail server is unavailable.
    MailHeld,
    /// A host has guests with our marker that belong to no server.
    UnknownGuest,
    /// The database was restored to an older state.
    DatabaseRestored,
    /// A kind that only a newer version knows: it is shown and otherwise ignored.
    #[serde(skip_deserializing)]
    Unknown,
}

impl Kind {
    /// All kinds that this version knows.
    pub const ALL: [Self; 13] = [
        Self::Cpu,
        Self::Memory,
        Self::Disk,
        Self::Traffic,
        Self::Down,
        Self::HostUnreachable,
        Self::StorageLow,
        Self::PoolLow,
        Self::OperationStuck,
        Self::StaleLock,
        Self::MailHeld,
        Self::UnknownGuest,
        Self::DatabaseRestored,
    ];

    /// The name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Traffic => "traffic",
            Self::Down => "down",
            Self::HostUnreachable => "host_unreachable",
            Self::StorageLow => "storage_low",
            Self::PoolLow => "pool_low",
            Self::OperationStuck => "operation_stuck",
            Self::StaleLock => "stale_lock",
            Self::MailHeld => "mail_held",
            Self::Unknown => "unknown",
            Self::UnknownGuest => "unknown_guest",
            Self::DatabaseRestored => "database_restored",
        }
    }

    /// Whether it is about a guest, so that a guest may have its own rule for it.
    pub fn is_of_guest(self) -> bool {
        matches!(self, Self::Cpu | Self::Memory | Self::Disk | Self::Traffic | Self::Down)
    }

    /// Whether warnings are emailed too, not only critical alerts, so that an owner can act before it is too late.
    pub fn mails_warnings(self) -> bool {
        matches!(self, Self::Cpu | Self::Memory | Self::Disk | Self::StorageLow)
    }

    /// Whether it has a measured value; the others are either on (1) or off (0).
    pub fn has_threshold(self) -> bool {
        matches!(self, Self::Cpu | Self::Memory | Self::Disk | Self::Traffic | Self::StorageLow | Self::PoolLow)
    }

    /// The built-in rule. Conditions that may come and go must last for two sweeps.
    pub fn default_rule(self) -> AlertRule {
        let share = AlertRule { warning: 0.9, critical: 0.95, clear: 0.85, sustain_s: 60, clear_sustain_s: 60 };
        let so = AlertRule { warning: 0.5, critical: 0.5, clear: 0.5, ..share };
        match self {
            Self::Cpu | Self::Memory | Self::Disk | Self::StorageLow | Self::PoolLow => share,
            Self::Traffic => AlertRule { critical: 1.0, sustain_s: 0, clear_sustain_s: 0, ..share },
            Self::Down | Self::HostUnreachable | Self::Unknown => so,
            // A sweep may catch a guest while it is being deleted.
            Self::UnknownGuest => AlertRule { clear_sustain_s: 0, ..so },
            Self::OperationStuck | Self::StaleLock | Self::DatabaseRestored => {
                AlertRule { sustain_s: 0, clear_sustain_s: 0, ..so }
            }
            // The mail server may just be restarting.
            Self::MailHeld => AlertRule { sustain_s: 300, clear_sustain_s: 0, ..so },
        }
    }

    /// The notification that it has ended, with the latest value.
    pub fn over(self, value: f64) -> String {
        match self {
            Self::Down => "The server is up again".to_owned(),
            Self::HostUnreachable => "The host is reachable again".to_owned(),
            Self::OperationStuck => "The operation is no longer stuck".to_owned(),
            Self::StaleLock => "The server is no longer locked on its host".to_owned(),
            Self::MailHeld => "Emails are being sent again".to_owned(),
            Self::Unknown => "The alert has ended".to_owned(),
            Self::UnknownGuest => "There are no unknown guests left on the host".to_owned(),
            Self::DatabaseRestored => "A day has passed since the database was restored".to_owned(),
            _ => self.message(value),
        }
    }

    /// The notification, with the latest value.
    pub fn message(self, value: f64) -> String {
        let percent = value * 100.0;
        match self {
            Self::Cpu => format!("CPU usage is at {percent:.0}%"),
            Self::Memory => format!("Memory usage is at {percent:.0}%"),
            Self::Disk => format!("Disk usage is at {percent:.0}%"),
            Self::Traffic => format!("Traffic is at {percent:.0}% of the monthly quota"),
            Self::Down => "The server is down".to_owned(),
            Self::HostUnreachable => "The host can't be reached".to_owned(),
            Self::StorageLow => format!("{percent:.0}% of the guests' storage is in use"),
            Self::PoolLow => format!("{percent:.0}% of the pool's addresses are in use or resting"),
            Self::OperationStuck => "An operation is stuck and needs manual intervention".to_owned(),
            Self::StaleLock => "A server is locked on its host, but no task is working on it".to_owned(),
            Self::MailHeld => "Emails are waiting: the mail server is unavailable or refuses them".to_owned(),
            Self::Unknown => "This alert comes from a newer version".to_owned(),
            Self::UnknownGuest => {
                "The host has guests of ours that belong to no server: adopt or delete them".to_owned()
            }
            Self::DatabaseRestored => {
                "The database was restored to an older state; open operations need manual intervention".to_owned()
            }
        }
    }
}

/// Severity of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Above the warning threshold.
    Warning,
    /// Nearly exhausted, or not working at all.
    Critical,
}

impl Level {
    /// All levels.
    pub const ALL: [Self; 2] = [Self::Warning, Self::Critical];

    /// The name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_everywhere() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            let rule = kind.default_rule();
            assert!(rule.clear <= rule.warning && rule.warning <= rule.critical, "{kind:?}");
        }
    }

    #[test]
    fn the_words_of_the_contract() {
        assert_eq!(Kind::Cpu.message(0.95), "CPU usage is at 95%");
        assert_eq!(Kind::Disk.message(0.914), "Disk usage is at 91%");
        assert_eq!(serde_json::to_value(Level::Warning).unwrap(), "warning");
    }
}
