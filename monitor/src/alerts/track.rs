//! The state machine of one alert on one subject: samples in, events out. It has no clock and no storage: its state
//! between two samples is a [`AlertTrack`] that the caller keeps, so a restart changes nothing.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::Level;

/// Thresholds and durations. `clear <= warning <= critical`; between `clear` and `warning` an alert neither begins nor
/// ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AlertRule {
    /// A value above this is a warning.
    pub warning: f64,
    /// A value above this is critical.
    pub critical: f64,
    /// The alert may end at or below this value.
    pub clear: f64,
    /// Seconds that the value must stay above a threshold.
    pub sustain_s: u32,
    /// Seconds that the value must stay at or below `clear`.
    pub clear_sustain_s: u32,
}

/// A change in the state of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertEvent {
    /// It began.
    Raised(Level),
    /// It stays open at another level. Only an edited rule can lower the level: otherwise it is the highest one so far.
    Became(Level),
    /// It ended.
    Resolved,
}

/// State to keep between two samples; none is needed while everything is quiet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertTrack {
    /// The rule used for the last sample.
    rule: AlertRule,
    /// Time of the last sample.
    seen: DateTime<Utc>,
    state: TrackState,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
enum TrackState {
    /// Above the threshold, but not for long enough yet.
    Pending { since: DateTime<Utc>, critical_since: Option<DateTime<Utc>> },
    /// An alert is open.
    Firing { level: Level, critical_since: Option<DateTime<Utc>>, clear_since: Option<DateTime<Utc>> },
}

impl AlertTrack {
    /// Whether an alert is open.
    pub fn is_firing(&self) -> bool {
        matches!(self.state, TrackState::Firing { .. })
    }
}

/// Judges one sample. A missing value (`None`) neither raises nor clears an alert, and neither does a sample older than
/// the last one. Samples further apart than `gap` say nothing about the time between them, so durations restart from
/// zero. They also do when the rule was edited: an alert that the new rule would not raise ends with the next sample.
pub fn step(
    track: Option<AlertTrack>,
    rule: &AlertRule,
    gap: TimeDelta,
    at: DateTime<Utc>,
    value: Option<f64>,
) -> (Option<AlertTrack>, Option<AlertEvent>) {
    let Some(value) = value.filter(|v| v.is_finite()) else { return (track, None) };
    if track.as_ref().is_some_and(|t| at <= t.seen) {
        return (track, None);
    }
    let edited = track.as_ref().is_some_and(|t| t.rule != *rule);
    let unbroken = track.as_ref().is_some_and(|t| !edited && at - t.seen <= gap);
    // Since when a condition has held, if it holds now.
    let since = |holds: bool, before: Option<DateTime<Utc>>| holds.then(|| before.filter(|_| unbroken).unwrap_or(at));
    let lasts = |since: Option<DateTime<Utc>>, seconds: u32| {
        since.is_some_and(|since| at - since >= TimeDelta::seconds(seconds.into()))
    };
    let (above, critical) = (value > rule.warning, value > rule.critical);

    let (state, event) = match track.map(|t| t.state) {
        None | Some(TrackState::Pending { .. }) if !above => (None, None),
        state @ (None | Some(TrackState::Pending { .. })) => {
            let (before, critical_before) = match state {
                Some(TrackState::Pending { since, critical_since }) => (Some(since), critical_since),
                _ => (None, None),
            };
            let began = since(above, before).unwrap_or(at);
            let critical_since = since(critical, critical_before);
            if lasts(Some(began), rule.sustain_s) {
                let level = if lasts(critical_since, rule.sustain_s) { Level::Critical } else { Level::Warning };
                (Some(TrackState::Firing { level, critical_since, clear_since: None }), Some(AlertEvent::Raised(level)))
            } else {
                (Some(TrackState::Pending { since: began, critical_since }), None)
            }
        }
        Some(TrackState::Firing { .. }) if edited && !above => (None, Some(AlertEvent::Resolved)),
        Some(TrackState::Firing { level: before, critical_since, clear_since }) => {
            let clear_since = since(value <= rule.clear, clear_since);
            if lasts(clear_since, rule.clear_sustain_s) {
                (None, Some(AlertEvent::Resolved))
            } else {
                let critical_since = since(critical, critical_since);
                let level = match lasts(critical_since, rule.sustain_s) {
                    true => Level::Critical,
                    false if edited && !critical => Level::Warning,
                    false => before,
                };
                let event = (level != before).then_some(AlertEvent::Became(level));
                (Some(TrackState::Firing { level, critical_since, clear_since }), event)
            }
        }
    };
    (state.map(|state| AlertTrack { rule: *rule, seen: at, state }), event)
}

#[cfg(test)]
mod tests;
