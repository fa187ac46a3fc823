//! The properties that alerts must have, checked on random series.

use proptest::prelude::*;

use super::*;

const GAP: TimeDelta = TimeDelta::seconds(120);

/// Seconds since the previous sample, and the value.
type Series = Vec<(u32, Option<f64>)>;

fn rule() -> impl Strategy<Value = AlertRule> {
    (0.1..0.9_f64, 0.0..0.1_f64, 0.0..0.3_f64, 0..200_u32, 0..200_u32).prop_map(
        |(warning, more, less, sustain_s, clear_sustain_s)| AlertRule {
            warning,
            critical: warning + more,
            clear: (warning - less).max(0.0),
            sustain_s,
            clear_sustain_s,
        },
    )
}

/// Values that stay around a level for a while: real load is not white noise.
fn series() -> impl Strategy<Value = Series> {
    let value = prop_oneof![8 => (0.0..1.2_f64).prop_map(Some), 1 => Just(None), 1 => Just(Some(f64::NAN))];
    let dwell = (value, prop::collection::vec(1..150_u32, 1..12));
    prop::collection::vec(dwell, 0..25)
        .prop_map(|runs| runs.into_iter().flat_map(|(v, gaps)| gaps.into_iter().map(move |g| (g, v))).collect())
}

fn start() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000)
}

/// Runs a series through the state machine and returns the events by sample.
fn run(
    rule: &AlertRule,
    series: &Series,
    mut between: impl FnMut(Option<AlertTrack>) -> Option<AlertTrack>,
) -> Vec<Option<AlertEvent>> {
    let (mut track, mut at) = (None, start());
    series
        .iter()
        .map(|(seconds, value)| {
            at += TimeDelta::seconds(i64::from(*seconds));
            let (next, event) = step(between(track.take()), rule, GAP, at, *value);
            track = next;
            event
        })
        .collect()
}

/// The expected events, derived from the whole history for each sample: slow, but without state that could be wrong.
fn oracle(rule: &AlertRule, series: &Series) -> Vec<Option<AlertEvent>> {
    let mut at = start();
    let mut seen: Vec<(DateTime<Utc>, f64)> = vec![];
    let mut open: Option<(usize, Level)> = None;
    let mut said = vec![];
    for (seconds, value) in series {
        at += TimeDelta::seconds(i64::from(*seconds));
        let Some(value) = value.filter(|v| v.is_finite()) else {
            said.push(None);
            continue;
        };
        seen.push((at, value));
        // How long a condition has held without a gap, up to now and not before the sample `from`.
        let held = |from: usize, holds: &dyn Fn(f64) -> bool| {
            let mut since = None;
            for n in (from..seen.len()).rev() {
                if !holds(seen[n].1) || (n + 1 < seen.len() && seen[n + 1].0 - seen[n].0 > GAP) {
                    break;
                }
                since = Some(seen[n].0);
            }
            since.map(|since| (at - since).num_seconds())
        };
        let sustained =
            |from, threshold: f64| held(from, &|v| v > threshold).is_some_and(|s| s >= i64::from(rule.sustain_s));
        let event = match open {
            None => {
                let from = said
                    .iter()
                    .rposition(|e| *e == Some(AlertEvent::Resolved))
                    .map_or(0, |n| series[..=n].iter().filter(|(_, v)| v.is_some_and(f64::is_finite)).count());
                sustained(from, rule.warning).then(|| {
                    AlertEvent::Raised(if sustained(from, rule.critical) { Level::Critical } else { Level::Warning })
                })
            }
            Some((from, level)) => {
                if held(from, &|v| v <= rule.clear).is_some_and(|s| s >= i64::from(rule.clear_sustain_s)) {
                    Some(AlertEvent::Resolved)
                } else {
                    (level == Level::Warning && sustained(0, rule.critical))
                        .then_some(AlertEvent::Became(Level::Critical))
                }
            }
        };
        match event {
            Some(AlertEvent::Raised(level)) => open = Some((seen.len() - 1, level)),
            Some(AlertEvent::Became(level)) => open = open.map(|(from, _)| (from, level)),
            Some(AlertEvent::Resolved) => open = None,
            None => {}
        }
        said.push(event);
    }
    said
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn it_says_what_the_whole_history_says(rule in rule(), series in series()) {
        prop_assert_eq!(run(&rule, &series, |t| t), oracle(&rule, &series));
    }

    #[test]
    fn a_restart_at_any_point_changes_nothing(rule in rule(), series in series(), at in any::<prop::sample::Index>()) {
        let stored = |track: Option<AlertTrack>| {
            track.map(|t| serde_json::from_value(serde_json::to_value(t).unwrap()).unwrap())
        };
        let mut n = 0;
        let once = at.index(series.len() + 1);
        let restarted = run(&rule, &series, |track| {
            n += 1;
            if n == once { stored(track) } else { track }
        });
        prop_assert_eq!(&restarted, &run(&rule, &series, |t| t));
        prop_assert_eq!(run(&rule, &series, stored), restarted);
    }

    #[test]
    fn what_is_seen_again_is_not_said_again(rule in rule(), series in series()) {
        let (mut track, mut at) = (None, start());
        let mut told = vec![];
        for (seconds, value) in &series {
            at += TimeDelta::seconds(i64::from(*seconds));
            let (next, event) = step(track, &rule, GAP, at, *value);
            let open = next.clone();
            // Another process judges the same sample, or an older one.
            for back in [0, 1, 30] {
                let late = step(next.clone(), &rule, GAP, at - TimeDelta::seconds(back), Some(0.0));
                if next.as_ref().is_some_and(|t| t.seen == at) {
                    prop_assert_eq!(&late, &(next.clone(), None));
                }
            }
            told.push(event);
            track = open;
        }
        prop_assert_eq!(told, run(&rule, &series, |t| t));
    }

    #[test]
    fn never_twice_and_never_out_of_nothing(rule in rule(), series in series()) {
        let mut open = None;
        for event in run(&rule, &series, |t| t).into_iter().flatten() {
            open = match (open, event) {
                (None, AlertEvent::Raised(level)) => Some(level),
                (Some(Level::Warning), AlertEvent::Became(Level::Critical)) => Some(Level::Critical),
                (Some(_), AlertEvent::Resolved) => None,
                odd => panic!("{odd:?}"),
            };
        }
    }

    #[test]
    fn never_silent_when_sustained(
        rule in rule(), before in series(), gaps in prop::collection::vec(1..=120_u32, 1..40), more in 0.001..0.5_f64
    ) {
        let lasted: u32 = gaps.iter().skip(1).sum();
        let (mut track, mut at) = (None, start());
        for (seconds, value) in before.into_iter().chain(gaps.into_iter().map(|g| (g, Some(rule.warning + more)))) {
            at += TimeDelta::seconds(i64::from(seconds));
            track = step(track, &rule, GAP, at, value).0;
        }
        if lasted >= rule.sustain_s {
            prop_assert!(track.is_some_and(|t| t.is_firing()));
        }
    }

    #[test]
    fn nothing_flaps_between_the_thresholds(
        rule in rule(), before in series(), band in prop::collection::vec((1..300_u32, 0.001..=1.0_f64), 1..60)
    ) {
        prop_assume!(rule.warning - rule.clear > 0.01);
        let (mut track, mut at) = (None, start());
        for (seconds, value) in before {
            at += TimeDelta::seconds(i64::from(seconds));
            track = step(track, &rule, GAP, at, value).0;
        }
        let open = track.as_ref().is_some_and(AlertTrack::is_firing);
        for (seconds, share) in band {
            at += TimeDelta::seconds(i64::from(seconds));
            let value = rule.clear + (rule.warning - rule.clear) * share;
            let (next, event) = step(track, &rule, GAP, at, Some(value.min(rule.warning)));
            prop_assert_eq!(event, None);
            prop_assert_eq!(next.as_ref().is_some_and(AlertTrack::is_firing), open);
            track = next;
        }
    }

    #[test]
    fn an_edited_rule_judges_with_the_next_sample(
        before in rule(), after in rule(), series in series(), value in 0.0..1.2_f64
    ) {
        prop_assume!(before != after);
        let (mut track, mut at) = (None, start());
        for (seconds, value) in series {
            at += TimeDelta::seconds(i64::from(seconds));
            track = step(track, &before, GAP, at, value).0;
        }
        let was_open = track.as_ref().is_some_and(AlertTrack::is_firing);
        let unseen = step(track.clone(), &after, GAP, at + TimeDelta::seconds(1), None);
        prop_assert_eq!(&unseen, &(track.clone(), None));
        let (next, event) = step(track, &after, GAP, at + TimeDelta::seconds(1), Some(value));
        if was_open {
            let ends = value <= after.warning;
            prop_assert_eq!(event == Some(AlertEvent::Resolved), ends);
            prop_assert_eq!(next.is_some_and(|t| t.is_firing()), !ends);
        } else if after.sustain_s > 0 {
            prop_assert_eq!(event, None);
        }
    }
}

#[test]
fn a_lone_spike_and_a_lone_dip_say_nothing() {
    let rule = super::super::Kind::Cpu.default_rule();
    let every_30_s = |values: &[f64]| run(&rule, &values.iter().map(|v| (30, Some(*v))).collect(), |t| t);
    assert_eq!(every_30_s(&[0.1, 1.0, 1.0, 0.1, 1.0]), [None; 5]);
    let said = every_30_s(&[0.93, 0.93, 0.93, 0.97, 0.99, 0.99, 0.1, 0.97, 0.1, 0.1, 0.1]);
    assert_eq!(
        said.into_iter().enumerate().filter_map(|(n, e)| e.map(|e| (n, e))).collect::<Vec<_>>(),
        [(2, AlertEvent::Raised(Level::Warning)), (5, AlertEvent::Became(Level::Critical)), (10, AlertEvent::Resolved)]
    );
    // A value exactly at a threshold raises nothing.
    assert_eq!(every_30_s(&[0.9; 9]), [None; 9]);
}
