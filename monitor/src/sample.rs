//! Normalises what a host reports about a guest: a CPU fraction, whatever the host counts, and rates that survive
//! counter resets.

use chrono::{DateTime, Utc};
use hypervisor::{GuestPower, GuestSample};
use uuid::Uuid;

use crate::alerts::GuestUsage;

/// A guest at one moment. Sizes are in bytes; network values are counters since the guest's last start. Unknown values
/// are `None`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The server's uuid.
    pub marker: Uuid,
    /// The node that it is on.
    pub node: String,
    /// Its power state.
    pub power: GuestPower,
    /// Why it is paused, as the host puts it.
    pub reason: Option<String>,
    /// Seconds since its last start; 0 if stopped.
    pub uptime_s: Option<u64>,
    /// CPU usage as a fraction of its cores, 0 to 1.
    pub cpu: Option<f64>,
    /// Memory in use.
    pub memory_used: Option<u64>,
    /// Memory limit.
    pub memory_max: Option<u64>,
    /// Root disk in use.
    pub disk_used: Option<u64>,
    /// Root disk size.
    pub disk_max: Option<u64>,
    /// Bytes received since its last start.
    pub net_in: Option<u64>,
    /// Bytes sent since its last start.
    pub net_out: Option<u64>,
    /// Bytes received per second since the previous sample; `None` if there is none.
    pub net_in_rate: Option<f64>,
    /// Bytes sent per second since the previous sample.
    pub net_out_rate: Option<f64>,
}

/// State to keep of a guest for judging its next sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreviousSample {
    /// When that sample was taken.
    pub taken_at: DateTime<Utc>,
    /// CPU time counter, if the host has one.
    pub cpu_time_ns: Option<u64>,
    /// Counter of received bytes.
    pub net_in: Option<u64>,
    /// Counter of sent bytes.
    pub net_out: Option<u64>,
}

impl Sample {
    /// Normalises what a host reported, given the previous state. Live values of a stopped guest are 0. If the host
    /// currently knows nothing about the guest, all values are unknown: older ones no longer apply.
    pub fn new(guest: &GuestSample, taken_at: DateTime<Utc>, previous: Option<PreviousSample>) -> Self {
        let stopped = guest.power == GuestPower::Stopped;
        let unknown = guest.power == GuestPower::Unknown;
        let net_rate = |counter: fn(&PreviousSample) -> Option<u64>, now: Option<u64>| {
            let previous = previous.filter(|_| !unknown)?;
            let seconds = (taken_at - previous.taken_at).as_seconds_f64();
            match (seconds > 0.0, stopped) {
                (false, _) => None,
                (true, true) => Some(0.0),
                (true, false) => Some(rate(counter(&previous)?, now?, seconds)),
            }
        };
        let live = |figure: Option<u64>| match (stopped, unknown) {
            (true, _) => Some(0),
            (_, true) => None,
            _ => figure,
        };
        let lasting = |figure: Option<u64>| figure.filter(|_| !unknown);
        let cpu = match (stopped, unknown) {
            (true, _) => Some(0.0),
            (_, true) => None,
            _ => cpu_share(guest, taken_at, previous),
        };
        Self {
            marker: guest.marker,
            node: guest.node.clone(),
            power: guest.power,
            reason: guest.reason.clone(),
            uptime_s: live(guest.uptime_s),
            cpu,
            memory_used: live(guest.memory_used),
            memory_max: lasting(guest.memory_max),
            disk_used: lasting(guest.disk_used),
            disk_max: lasting(guest.disk_max),
            net_in: lasting(guest.net_in),
            net_out: lasting(guest.net_out),
            net_in_rate: net_rate(|p| p.net_in, guest.net_in),
            net_out_rate: net_rate(|p| p.net_out, guest.net_out),
        }
    }

    /// Usage of its resources.
    pub fn usage(&self) -> GuestUsage {
        GuestUsage {
            cpu: self.cpu,
            memory: share(self.memory_used, self.memory_max),
            disk: share(self.disk_used, self.disk_max),
        }
    }
}

impl PreviousSample {
    /// The state to keep of this guest.
    pub fn of(guest: &GuestSample, taken_at: DateTime<Utc>) -> Self {
        Self { taken_at, cpu_time_ns: guest.cpu_time_ns, net_in: guest.net_in, net_out: guest.net_out }
    }
}

/// `used / max` as a fraction from 0 to 1, if both are known and `max` is not 0.
pub fn share(used: Option<u64>, max: Option<u64>) -> Option<f64> {
    let max = max.filter(|max| *max > 0)?;
    Some((used? as f64 / max as f64).clamp(0.0, 1.0))
}

/// Growth of a counter. A value lower than before means that the counter was reset to 0 in between.
pub fn increase(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

/// Growth of a counter per second; 0 if no time has passed.
pub fn rate(before: u64, now: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { increase(before, now) as f64 / seconds } else { 0.0 }
}

fn cpu_share(guest: &GuestSample, taken_at: DateTime<Utc>, previous: Option<PreviousSample>) -> Option<f64> {
    if let Some(share) = guest.cpu {
        return share.is_finite().then(|| share.clamp(0.0, 1.0));
    }
    let now = guest.cpu_time_ns?;
    let uptime = guest.uptime_s.unwrap_or(0) as f64;
    let elapsed = |p: &PreviousSample| (taken_at - p.taken_at).as_seconds_f64();
    let before = previous.filter(|p| elapsed(p) > 0.0).and_then(|p| Some((p.cpu_time_ns?, elapsed(&p))));
    let (nanoseconds, seconds) = match before {
        // Uptimes are whole seconds: a guest that started less than a second before the previous sample has not
        // restarted.
        Some((before, elapsed)) if now >= before && uptime + 1.0 >= elapsed => (now - before, elapsed),
        // First sample, or restarted since: use the average since its start.
        _ => (now, uptime),
    };
    let share = nanoseconds as f64 / 1e9 / seconds / f64::from(guest.cores.max(1));
    (seconds > 0.0 && share.is_finite()).then(|| share.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use rand::RngExt;

    fn guest(cpu_time_ns: u64, uptime_s: u64) -> GuestSample {
        GuestSample {
            marker: Uuid::nil(),
            vmid: 100,
            kind: hypervisor::GuestKind::Lxc,
            created_at: None,
            node: "n1".into(),
            power: GuestPower::Running,
            reason: None,
            uptime_s: Some(uptime_s),
            cpu: None,
            cpu_time_ns: Some(cpu_time_ns),
            cores: 2,
            memory_used: Some(256),
            memory_max: Some(1024),
            disk_used: Some(5),
            disk_max: Some(20),
            net_in: Some(0),
            net_out: Some(0),
        }
    }

    fn cpu(before: Option<(u64, i64)>, now: GuestSample) -> Option<f64> {
        let at = Utc::now();
        let previous = before.map(|(ns, seconds)| PreviousSample::of(&guest(ns, 0), at - TimeDelta::seconds(seconds)));
        Sample::new(&now, at, previous).cpu
    }

    #[test]
    #[allow(clippy::float_cmp)]
    fn a_counter_becomes_a_share_of_the_cores() {
        // 15 s of CPU time in 30 s on 2 cores.
        assert_eq!(cpu(Some((10_000_000_000, 30)), guest(25_000_000_000, 3600)), Some(0.25));
        // Nothing to compare with: the average since the start.
        assert_eq!(cpu(None, guest(20_000_000_000, 100)), Some(0.1));
        // Restarted in between, as shown by the counter or by the uptime alone.
        assert_eq!(cpu(Some((90_000_000_000, 30)), guest(2_000_000_000, 10)), Some(0.1));
        assert_eq!(cpu(Some((1_000_000_000, 30)), guest(2_000_000_000, 10)), Some(0.1));
        // Two samples at the same moment.
        assert_eq!(cpu(Some((1, 0)), guest(2, 0)), None);
        // The host's own fraction takes precedence, clamped to a plausible range.
        assert_eq!(cpu(None, GuestSample { cpu: Some(1.7), ..guest(0, 1) }), Some(1.0));
        assert_eq!(cpu(None, GuestSample { cpu: Some(f64::NAN), ..guest(0, 1) }), None);
        assert_eq!(cpu(None, GuestSample { cpu_time_ns: None, ..guest(0, 1) }), None);
    }

    #[test]
    fn whatever_the_counters_do_a_share_is_a_share() {
        let mut rng = rand::rng();
        for _ in 0..20_000 {
            let big = |rng: &mut rand::rngs::ThreadRng| rng.random::<u64>() >> rng.random_range(0..64);
            let before = (rng.random::<bool>()).then(|| (big(&mut rng), rng.random_range(-100..100_000)));
            let mut now = guest(big(&mut rng), big(&mut rng));
            now.cores = rng.random_range(0..128);
            let share = cpu(before, now.clone());
            assert!(share.is_none_or(|s| (0.0..=1.0).contains(&s)), "{share:?} from {before:?} and {now:?}");
        }
    }

    #[test]
    #[allow(clippy::float_cmp)]
    fn counters_that_start_again_give_no_negative_rates() {
        assert_eq!(rate(100, 400, 30.0), 10.0);
        assert_eq!(rate(400, 30, 30.0), 1.0);
        assert_eq!(rate(0, 30, 0.0), 0.0);
        assert_eq!(increase(u64::MAX, 0), 0);
        assert_eq!(share(Some(1), Some(0)), None);
        assert_eq!(share(None, Some(2)), None);
        assert_eq!(share(Some(1), None), None);
        assert_eq!(share(Some(3), Some(2)), Some(1.0));
    }

    #[test]
    fn network_rates_need_a_look_before_and_survive_a_restart() {
        let at = Utc::now();
        let look = |net, seconds, power| {
            let before =
                PreviousSample { net_in: Some(1_000), ..PreviousSample::of(&guest(0, 0), at - TimeDelta::seconds(10)) };
            let now = GuestSample { net_in: Some(net), power, ..guest(0, 100) };
            let sample = Sample::new(&now, at + TimeDelta::seconds(seconds), Some(before));
            (sample.net_in_rate, sample.net_out_rate)
        };
        assert_eq!(look(1_500, 0, GuestPower::Running), (Some(50.0), Some(0.0)));
        assert_eq!(look(500, 0, GuestPower::Running), (Some(50.0), Some(0.0)));
        assert_eq!(look(1_500, 0, GuestPower::Stopped), (Some(0.0), Some(0.0)));
        assert_eq!(look(1_500, -10, GuestPower::Running), (None, None));
        assert_eq!(Sample::new(&guest(0, 100), at, None).net_in_rate, None);
        // Nor if either value is missing.
        let before = PreviousSample::of(&guest(0, 0), at - TimeDelta::seconds(10));
        let silent = GuestSample { net_in: None, ..guest(0, 100) };
        let seen = Sample::new(&silent, at, Some(before));
        assert_eq!((seen.net_in, seen.net_in_rate, seen.net_out_rate), (None, None, Some(0.0)));
        let seen = Sample::new(&guest(0, 100), at, Some(PreviousSample { net_in: None, ..before }));
        assert_eq!((seen.net_in, seen.net_in_rate), (Some(0), None));
    }

    #[test]
    fn a_guest_that_its_host_knows_nothing_of_has_no_figures() {
        let at = Utc::now();
        let before =
            PreviousSample { net_in: Some(1_000), ..PreviousSample::of(&guest(0, 0), at - TimeDelta::seconds(10)) };
        let unknown = GuestSample { power: GuestPower::Unknown, ..guest(0, 0) };
        let sample = Sample::new(&unknown, at, Some(before));
        assert_eq!((sample.net_in, sample.net_in_rate), (None, None));
        assert_eq!((sample.net_in, sample.cpu, sample.memory_used, sample.disk_max), (None, None, None, None));
        assert_eq!((sample.uptime_s, sample.memory_max, sample.disk_used), (None, None, None));
    }

    #[test]
    #[allow(clippy::float_cmp)]
    fn a_stopped_guest_uses_nothing() {
        let sample =
            Sample::new(&GuestSample { power: GuestPower::Stopped, cpu: Some(0.5), ..guest(7, 9) }, Utc::now(), None);
        assert_eq!((sample.uptime_s, sample.memory_used, sample.memory_max), (Some(0), Some(0), Some(1024)));
        assert_eq!((sample.usage().cpu, sample.usage().disk), (Some(0.0), Some(0.25)));
    }
}
