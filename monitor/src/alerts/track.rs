//! One alert of one subject: from its samples to what there is to say. No clock, no storage: what is remembered between
//! two samples is a [`Track`], which whoever calls keeps, so that a restart changes nothing.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::Level;

/// When to speak up. `clear <= warning <= critical`; between `clear` and `warning` an alert neither begins nor ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Above it, it is a warning.
    pub warning: f64,
    /// Above it, it is critical.
    pub critical: f64,
    /// At it or below, the alert may end.
    pub clear: f64,
    /// Seconds that a figure must have been too high.
    pub sustain_s: u32,
    /// Seconds that it must have been low enough again.
    pub clear_sustain_s: u32,
}

/// What became of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It began.
    Raised(Level),
    /// It goes on, at another level. It gets less bad only by an edited rule: while it lasts, its level is the highest
    /// that it had.
    Became(Level),
    /// It ended.
    Resolved,
}

/// What must be remembered between two samples; nothing is, where all is quiet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Track {
    /// The rule that it was last judged by.
    rule: Rule,
    /// The sample that it was last judged by.
    seen: DateTime<Utc>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
enum State {
    /// Too high, and not yet for long enough.
    Pending { since: DateTime<Utc>, critical_since: Option<DateTime<Utc>> },
    /// An alert is open.
    Firing { level: Level, critical_since: Option<DateTime<Utc>>, clear_since: Option<DateTime<Utc>> },
}

impl Track {
    /// Whether an alert is open.
    pub fn is_firing(&self) -> bool {
        matches!(self.state, State::Firing { .. })
    }
}

/// Judges one sample. A missing one (`None`) neither raises nor clears, nor does one from before the last. Samples
/// further apart than `gap` say nothing about the time between them: how long something lasts is counted anew. An
/// edited rule judges anew as well: what it would not raise ends with the next sample.
pub fn step(
    track: Option<Track>,
    rule: &Rule,
    gap: TimeDelta,
    at: DateTime<Utc>,
    value: Option<f64>,
) -> (Option<Track>, Option<Event>) {
    let Some(value) = value.filter(|v| v.is_finite()) else { return (track, None) };
    if track.as_ref().is_some_and(|t| at <= t.seen) {
        return (track, None);
    }
    let edited = track.as_ref().is_some_and(|t| t.rule != *rule);
    let unbroken = track.as_ref().is_some_and(|t| !edited && at - t.seen <= gap);
    // Since when something holds, where it holds now.
    let since = |holds: bool, before: Option<DateTime<Utc>>| holds.then(|| before.filter(|_| unbroken).unwrap_or(at));
    let lasts = |since: Option<DateTime<Utc>>, seconds: u32| {
        since.is_some_and(|since| at - since >= TimeDelta::seconds(seconds.into()))
    };
    let (above, critical) = (value > rule.warning, value > rule.critical);

    let (state, event) = match track.map(|t| t.state) {
        None | Some(State::Pending { .. }) if !above => (None, None),
        state @ (None | Some(State::Pending { .. })) => {
            let (before, critical_before) = match state {
                Some(State::Pending { since, critical_since }) => (Some(since), critical_since),
                _ => (None, None),
            };
            let began = since(above, before).unwrap_or(at);
            let critical_since = since(critical, critical_before);
            if lasts(Some(began), rule.sustain_s) {
                let level = if lasts(critical_since, rule.sustain_s) { Level::Critical } else { Level::Warning };
                (Some(State::Firing { level, critical_since, clear_since: None }), Some(Event::Raised(level)))
            } else {
                (Some(State::Pending { since: began, critical_since }), None)
            }
        }
        Some(State::Firing { .. }) if edited && !above => (None, Some(Event::Resolved)),
        Some(State::Firing { level: before, critical_since, clear_since }) => {
            let clear_since = since(value <= rule.clear, clear_since);
            if lasts(clear_since, rule.clear_sustain_s) {
                (None, Some(Event::Resolved))
            } else {
                let critical_since = since(critical, critical_since);
                let level = match lasts(critical_since, rule.sustain_s) {
                    true => Level::Critical,
                    false if edited && !critical => Level::Warning,
                    false => before,
                };
                let event = (level != before).then_some(Event::Became(level));
                (Some(State::Firing { level, critical_since, clear_since }), event)
            }
        }
    };
    (state.map(|state| Track { rule: *rule, seen: at, state }), event)
}

#[cfg(test)]
mod tests;
