//! Quiet hours: times of day in which no notifications are sent.

use chrono::{DateTime, NaiveTime, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

/// A daily time range in a time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuietPeriod {
    /// Start of the range.
    pub from: NaiveTime,
    /// End of the range (exclusive); earlier than `from` if the range spans midnight.
    pub to: NaiveTime,
    /// Time zone.
    pub zone: Tz,
}

impl QuietPeriod {
    /// Whether this moment falls into the quiet hours.
    pub fn covers(&self, at: DateTime<Utc>) -> bool {
        let time = at.with_timezone(&self.zone).time();
        if self.from <= self.to { self.from <= time && time < self.to } else { self.from <= time || time < self.to }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet(from: u32, to: u32) -> QuietPeriod {
        let time = |hour| NaiveTime::from_hms_opt(hour, 0, 0).unwrap();
        QuietPeriod { from: time(from), to: time(to), zone: chrono_tz::Europe::Berlin }
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn hours_are_those_of_the_place_in_winter_and_in_summer() {
        let night = quiet(22, 7);
        for (moment, is) in [
            ("2026-01-10T20:59:59Z", false),
            ("2026-01-10T21:00:00Z", true),
            ("2026-01-11T05:59:59Z", true),
            ("2026-01-11T06:00:00Z", false),
            ("2026-07-10T20:00:00Z", true),
            ("2026-07-11T05:00:00Z", false),
        ] {
            assert_eq!(night.covers(at(moment)), is, "{moment}");
        }
        let noon = quiet(12, 13);
        assert!(noon.covers(at("2026-01-10T11:30:00Z")) && !noon.covers(at("2026-01-10T12:00:00Z")));
        assert!(!quiet(5, 5).covers(at("2026-01-10T04:00:00Z")), "no hours at all");
    }
}
