//! The last hour of servers that are watched, kept between looks: a chart grows by a point with each sweep, and reading
//! all of it anew for everybody each time would be most of the work.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;

use super::store::{self, PointRow, ServerRow};
use crate::ids::ServerId;

/// How much of the past a chart shows.
const WINDOW: TimeDelta = TimeDelta::hours(1);
/// There is one point in so many seconds at most, the latest, so that a fast sweep does not make long charts.
pub(super) const STEP: i64 = 15;

/// The charts of some servers, for one reader that looks again and again.
#[derive(Debug, Default)]
pub struct Charts(HashMap<ServerId, VecDeque<PointRow>>);

impl Charts {
    /// Forgets all but these: nobody watches the others any more.
    pub fn keep(&mut self, servers: &[ServerId]) {
        if self.0.len() > servers.len() {
            let servers: HashSet<_> = servers.iter().collect();
            self.0.retain(|id, _| servers.contains(id));
        }
    }

    /// Forgets all: what happened may have been missed.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// A server's points, oldest first. The first may be from before the hour, to compare the second with.
    pub(super) fn of(&self, server: ServerId) -> impl Iterator<Item = &PointRow> {
        self.0.get(&server).into_iter().flatten()
    }

    /// Brings the charts of these servers up to date: by their latest samples where those follow what is known, else
    /// with one look for all the others. `gap` is more than there is between two sweeps.
    pub(super) async fn update(&mut self, db: &PgPool, servers: &[ServerRow], gap: Duration) -> sqlx::Result<()> {
        let begin = begin();
        let gap = TimeDelta::from_std(gap).unwrap_or(WINDOW);
        let others: Vec<_> = servers.iter().filter(|s| !self.follow(s, begin, gap)).map(|s| s.id).collect();
        if others.is_empty() {
            return Ok(());
        }
        let points = store::points(db, &others).await?;
        self.0.extend(others.into_iter().map(|id| (id, VecDeque::new())));
        for point in points {
            self.0.entry(point.server_id).or_default().push_back(point);
        }
        Ok(())
    }

    /// Takes a server's latest sample in; false where points between it and what is known may be missing.
    fn follow(&mut self, server: &ServerRow, begin: DateTime<Utc>, gap: TimeDelta) -> bool {
        let Some(points) = self.0.get_mut(&server.id) else { return false };
        let Some(sample) = &server.sample else { return true };
        let point = sample.point(server.id);
        match points.back().map(|last| last.taken_at) {
            None if point.taken_at > begin => return false,
            Some(last) if point.taken_at < last || point.taken_at - last > gap => return false,
            Some(last) if point.taken_at > last => {
                if last.timestamp().div_euclid(STEP) == point.taken_at.timestamp().div_euclid(STEP) {
                    points.pop_back();
                }
                points.push_back(point);
            }
            _ => {}
        }
        while points.get(1).is_some_and(|second| second.taken_at <= begin) {
            points.pop_front();
        }
        true
    }
}

/// When a chart that is shown now begins.
pub(super) fn begin() -> DateTime<Utc> {
    Utc::now() - WINDOW
}

#[cfg(test)]
mod tests {
    use super::super::store::SampleRow;
    use super::*;

    fn server(taken_at: DateTime<Utc>, net_in: i64) -> ServerRow {
        let sample = SampleRow { taken_at, net_in: Some(net_in), power: "running".into(), ..SampleRow::default() };
        let (status, sample) = ("running".into(), Some(sample));
        ServerRow { id: ServerId(1), guest_number: 1, status, memory_mib: 1, disk_gib: 1, sample }
    }

    #[test]
    fn samples_are_taken_in_until_one_may_be_missing() {
        // The begin of a step, so that it is known which samples share one.
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let at = |seconds| now + TimeDelta::seconds(seconds);
        let (begin, gap) = (at(-3600), TimeDelta::seconds(60));
        let mut charts = Charts::default();
        let nets = |charts: &Charts| charts.of(ServerId(1)).filter_map(|p| p.net_in).collect::<Vec<_>>();
        assert!(!charts.follow(&server(at(0), 1), begin, gap), "nothing is known of it");
        charts.0.insert(ServerId(1), VecDeque::new());
        assert!(!charts.follow(&server(at(0), 1), begin, gap), "it has a chart now");
        assert!(charts.follow(&server(at(-7200), 1), begin, gap), "what it had is long gone");
        charts.0.insert(
            ServerId(1),
            [-4000, -3700, -3500].map(|s| server(at(s), s).sample.unwrap().point(ServerId(1))).into(),
        );
        assert!(!charts.follow(&server(at(-3400), 2), begin, gap), "a sweep was missed");
        for (second, net) in [(-3500, 9), (-3450, 2), (-3440, 3), (-3430, 4)] {
            assert!(charts.follow(&server(at(second), net), begin, gap), "{second}");
        }
        assert_eq!(nets(&charts), [-3700, -3500, 3, 4], "one before the hour, and one of each step");
        charts.keep(&[ServerId(1)]);
        assert_eq!(nets(&charts).len(), 4);
        charts.keep(&[]);
        assert!(nets(&charts).is_empty());
    }
}
