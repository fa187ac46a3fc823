//! Which figures someone should hear about.

use serde::Serialize;

/// How much of what a guest has is in use, as shares from 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Of its cores.
    pub cpu: f64,
    /// Of its memory.
    pub memory: f64,
    /// Of its root disk.
    pub disk: f64,
}

/// Shares above which to speak up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Of processor time.
    pub cpu: f64,
    /// Of memory.
    pub memory: f64,
    /// Of the root disk.
    pub disk: f64,
    /// Of anything: it is not a warning any more.
    pub critical: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { cpu: 0.9, memory: 0.9, disk: 0.9, critical: 0.95 }
    }
}

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Processor time.
    Cpu,
    /// Memory.
    Memory,
    /// The root disk.
    Disk,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Above the threshold.
    Warning,
    /// Nearly nothing is left.
    Critical,
}

/// One figure that is too high.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alert {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// For a person: "CPU usage is at 95%".
    pub message: String,
    /// How bad it is.
    pub level: Level,
}

/// The alerts that this usage gives rise to: at most one of each kind, none at a threshold exactly.
pub fn evaluate(usage: Usage, thresholds: &Thresholds) -> Vec<Alert> {
    let figures = [
        (Kind::Cpu, "CPU", usage.cpu, thresholds.cpu),
        (Kind::Memory, "Memory", usage.memory, thresholds.memory),
        (Kind::Disk, "Disk", usage.disk, thresholds.disk),
    ];
    figures
        .into_iter()
        .filter(|(_, _, share, threshold)| share > threshold)
        .map(|(kind, name, share, _)| Alert {
            kind,
            message: format!("{name} usage is at {:.0}%", share * 100.0),
            level: if share > thresholds.critical { Level::Critical } else { Level::Warning },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(cpu: f64, memory: f64, disk: f64) -> Vec<Alert> {
        evaluate(Usage { cpu, memory, disk }, &Thresholds::default())
    }

    #[test]
    fn nothing_to_say_up_to_the_threshold() {
        assert_eq!(at(0.9, 0.5, 0.0), []);
        assert_eq!(at(f64::NAN, 0.0, 0.0), []);
    }

    #[test]
    fn the_words_and_levels_of_the_contract() {
        let alerts = at(0.95, 0.2, 0.0);
        assert_eq!(
            serde_json::to_value(&alerts).unwrap(),
            serde_json::json!([{ "type": "cpu", "message": "CPU usage is at 95%", "level": "warning" }])
        );
        let alerts = at(0.0, 0.97, 0.91);
        assert_eq!(alerts.len(), 2);
        assert_eq!((alerts[0].kind, alerts[0].level), (Kind::Memory, Level::Critical));
        assert_eq!((alerts[1].kind, alerts[1].level), (Kind::Disk, Level::Warning));
        assert_eq!(alerts[1].message, "Disk usage is at 91%");
    }

    #[test]
    fn more_usage_never_says_less() {
        let mut last = None;
        for percent in 0..=100 {
            let level = at(f64::from(percent) / 100.0, 0.0, 0.0).first().map(|a| a.level);
            assert!(level >= last, "at {percent}%");
            last = level;
        }
        assert_eq!(last, Some(Level::Critical));
    }
}
