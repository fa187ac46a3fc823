//! What someone should hear about, and when: rules, and the state machine that turns samples into alerts.

mod quiet;
mod track;

use serde::{Deserialize, Serialize};

pub use quiet::Quiet;
pub use track::{Event, Rule, Track, step};

/// How much of what a guest has is in use, as shares from 0 to 1, where that is known.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Of its cores.
    pub cpu: Option<f64>,
    /// Of its memory.
    pub memory: Option<f64>,
    /// Of its root disk.
    pub disk: Option<f64>,
}

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A guest's processor time, as a share of its cores.
    Cpu,
    /// A guest's memory, as a share of what it may use.
    Memory,
    /// A guest's root disk, as a share of its size.
    Disk,
    /// A guest's traffic of the month, as a share of its quota.
    Traffic,
    /// A guest that should be up and is not.
    Down,
    /// A host that does not answer.
    HostUnreachable,
    /// What is in use of the storage that a host's guests are on, as a share of all.
    StorageLow,
    /// An address pool's addresses that are in use or rest, as a share of all.
    PoolLow,
    /// An operation that waits for a person.
    OperationStuck,
    /// Mails that wait for the mail server.
    MailHeld,
    /// A host has guests with our marker that no server goes with.
    UnknownGuest,
    /// The database was found to be an older state of itself.
    DatabaseRestored,
    /// Something that a newer version knows and this one does not: it is shown, and otherwise left alone.
    #[serde(skip_deserializing)]
    Unknown,
}

impl Kind {
    /// Every kind that this version knows.
    pub const ALL: [Self; 12] = [
        Self::Cpu,
        Self::Memory,
        Self::Disk,
        Self::Traffic,
        Self::Down,
        Self::HostUnreachable,
        Self::StorageLow,
        Self::PoolLow,
        Self::OperationStuck,
        Self::MailHeld,
        Self::UnknownGuest,
        Self::DatabaseRestored,
    ];

    /// Its name, as it is stored and shown.
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
            Self::MailHeld => "mail_held",
            Self::Unknown => "unknown",
            Self::UnknownGuest => "unknown_guest",
            Self::DatabaseRestored => "database_restored",
        }
    }

    /// Whether it is about a guest, and so may have a rule of its own for one.
    pub fn is_of_guest(self) -> bool {
        matches!(self, Self::Cpu | Self::Memory | Self::Disk | Self::Traffic | Self::Down)
    }

    /// Whether its warnings are mailed as well, and not only what is critical: an owner can act before it is too late.
    pub fn tells_warnings(self) -> bool {
        matches!(self, Self::Cpu | Self::Memory | Self::Disk | Self::StorageLow)
    }

    /// Whether it has a figure; the others are so or not so (1 or 0).
    pub fn is_share(self) -> bool {
        matches!(self, Self::Cpu | Self::Memory | Self::Disk | Self::Traffic | Self::StorageLow | Self::PoolLow)
    }

    /// The rule where nobody made another: two sweeps in a row for what comes and goes.
    pub fn default_rule(self) -> Rule {
        let share = Rule { warning: 0.9, critical: 0.95, clear: 0.85, sustain_s: 60, clear_sustain_s: 60 };
        let so = Rule { warning: 0.5, critical: 0.5, clear: 0.5, ..share };
        match self {
            Self::Cpu | Self::Memory | Self::Disk | Self::StorageLow | Self::PoolLow => share,
            Self::Traffic => Rule { critical: 1.0, sustain_s: 0, clear_sustain_s: 0, ..share },
            Self::Down | Self::HostUnreachable | Self::Unknown => so,
            // A sweep may see one that is just being put away.
            Self::UnknownGuest => Rule { clear_sustain_s: 0, ..so },
            Self::OperationStuck | Self::DatabaseRestored => Rule { sustain_s: 0, clear_sustain_s: 0, ..so },
            // A mail server may restart.
            Self::MailHeld => Rule { sustain_s: 300, clear_sustain_s: 0, ..so },
        }
    }

    /// What to tell a person when it is over, with this figure.
    pub fn over(self, value: f64) -> String {
        match self {
            Self::Down => "The server is up again".to_owned(),
            Self::HostUnreachable => "The host answers again".to_owned(),
            Self::OperationStuck => "The operation is not stuck any more".to_owned(),
            Self::MailHeld => "Mails are sent again".to_owned(),
            Self::Unknown => "It is over".to_owned(),
            Self::UnknownGuest => "No guest on the host is unknown any more".to_owned(),
            Self::DatabaseRestored => "It is a day since the database was restored".to_owned(),
            _ => self.message(value),
        }
    }

    /// What to tell a person, with this figure.
    pub fn message(self, value: f64) -> String {
        let percent = value * 100.0;
        match self {
            Self::Cpu => format!("CPU usage is at {percent:.0}%"),
            Self::Memory => format!("Memory usage is at {percent:.0}%"),
            Self::Disk => format!("Disk usage is at {percent:.0}%"),
            Self::Traffic => format!("Traffic is at {percent:.0}% of the month's quota"),
            Self::Down => "The server is down".to_owned(),
            Self::HostUnreachable => "The host can't be reached".to_owned(),
            Self::StorageLow => format!("{percent:.0}% of the storage that guests are on is in use"),
            Self::PoolLow => format!("{percent:.0}% of the pool's addresses are in use or rest"),
            Self::OperationStuck => "An operation is stuck and waits for a person".to_owned(),
            Self::MailHeld => "Mails wait: the mail server is away or takes none from us".to_owned(),
            Self::Unknown => "This is an alert of a newer version".to_owned(),
            Self::UnknownGuest => {
                "The host has guests of ours that no server goes with: adopt or delete them".to_owned()
            }
            Self::DatabaseRestored => {
                "The database was restored to an older state; what was under way waits for a person".to_owned()
            }
        }
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Above the threshold.
    Warning,
    /// Nearly nothing is left, or nothing works.
    Critical,
}

impl Level {
    /// Every level.
    pub const ALL: [Self; 2] = [Self::Warning, Self::Critical];

    /// Its name, as it is stored and shown.
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
