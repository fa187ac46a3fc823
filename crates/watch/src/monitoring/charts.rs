//! Caches the last hour of watched servers between reads: each sweep adds one point to a chart, and reading whole
//! charts from the database for everybody each time would be most of the work.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;

use super::store::{self, PointRow, ServerRow};
use crate::ids::ServerId;

/// Period that a chart covers.
const WINDOW: TimeDelta = TimeDelta::hours(1);
/// At most one point per `STEP` seconds, the latest, so that fast sweeps don't make long charts.
pub(super) const STEP: i64 = 15;

/// The charts of some servers, cached for a reader that polls them repeatedly.
#[derive(Debug)]
pub struct Charts {
    /// More than the time between two sweeps.
    gap: TimeDelta,
    points: HashMap<ServerId, VecDeque<PointRow>>,
}

impl Charts {
    /// None yet. Between two samples that are further apart than `gap`, others may have been missed.
    pub(super) fn new(gap: Duration) -> Self {
        Self { gap: TimeDelta::from_std(gap).unwrap_or(WINDOW), points: HashMap::new() }
    }

    /// Drops all charts but these: the others are no longer watched.
    pub fn keep(&mut self, servers: &[ServerId]) {
        if self.points.len() > servers.len() {
            let servers: HashSet<_> = servers.iter().collect();
            self.points.retain(|id, _| servers.contains(id));
        }
    }

    /// Drops everything, since updates may have been missed.
    pub fn clear(&mut self) {
        self.points.clear();
    }

    /// A server's points, oldest first. The first may be older than the hour: rates need a predecessor.
    pub(super) fn of(&self, server: ServerId) -> impl Iterator<Item = &PointRow> {
        self.points.get(&server).into_iter().flatten()
    }

    /// Updates the charts of these servers: by appending their latest samples if nothing is missing in between, else by
    /// one query for all the others.
    pub(super) async fn update(&mut self, db: &PgPool, servers: &[ServerRow]) -> sqlx::Result<()> {
        let (begin, gap) = (begin(), self.gap);
        let others: Vec<_> = servers.iter().filter(|s| !self.follow(s, begin, gap)).map(|s| s.id).collect();
        if others.is_empty() {
            return Ok(());
        }
        let points = store::points(db, &others).await?;
        self.points.extend(others.into_iter().map(|id| (id, VecDeque::new())));
        for point in points {
            self.points.entry(point.server_id).or_default().push_back(point);
        }
        Ok(())
    }

    /// Appends a server's latest sample; false if points in between may be missing.
    fn follow(&mut self, server: &ServerRow, begin: DateTime<Utc>, gap: TimeDelta) -> bool {
        let Some(points) = self.points.get_mut(&server.id) else { return false };
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

/// Start of a chart shown now.
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
        // Start of a step, so that it is clear which samples share one.
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let at = |seconds| now + TimeDelta::seconds(seconds);
        let (begin, gap) = (at(-3600), TimeDelta::seconds(60));
        let mut charts = Charts::new(Duration::ZERO);
        let nets = |charts: &Charts| charts.of(ServerId(1)).filter_map(|p| p.net_in).collect::<Vec<_>>();
        assert!(!charts.follow(&server(at(0), 1), begin, gap), "it is not cached");
        charts.points.insert(ServerId(1), VecDeque::new());
        assert!(!charts.follow(&server(at(0), 1), begin, gap), "its chart is still empty");
        assert!(charts.follow(&server(at(-7200), 1), begin, gap), "its old points have expired");
        charts.points.insert(
            ServerId(1),
            [-4000, -3700, -3500].map(|s| server(at(s), s).sample.unwrap().point(ServerId(1))).into(),
        );
        assert!(!charts.follow(&server(at(-3400), 2), begin, gap), "a sweep was missed");
        for (second, net) in [(-3500, 9), (-3450, 2), (-3440, 3), (-3430, 4)] {
            assert!(charts.follow(&server(at(second), net), begin, gap), "{second}");
        }
        assert_eq!(nets(&charts), [-3700, -3500, 3, 4], "one before the hour, then one per step");
        charts.keep(&[ServerId(1)]);
        assert_eq!(nets(&charts).len(), 4);
        charts.keep(&[]);
        assert!(nets(&charts).is_empty());
    }
}
