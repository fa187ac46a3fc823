//! A simulated guest with changing metrics.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Kind of guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestKind {
    /// A container.
    Lxc,
    /// A virtual machine.
    Vm,
}

/// Power state of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Power {
    /// Running.
    Running,
    /// Stopped.
    Stopped,
}

/// Load of a guest: fractions from 0 to 1 around which its metrics vary.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Fraction of its cores.
    pub cpu: f64,
    /// Fraction of its memory.
    pub memory: f64,
    /// Fraction of its disk.
    pub disk: f64,
}

/// A guest of a simulated host.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Guest {
    /// Its number, unique in the fleet.
    pub number: i64,
    /// Its uuid, which serves as Innkeeper's marker.
    pub marker: Uuid,
    /// Container or VM.
    pub kind: GuestKind,
    /// Index of its node on its host.
    pub node: usize,
    /// Number of cores.
    pub cores: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// Disk size in bytes.
    pub disk: u64,
    /// Its power state.
    pub power: Power,
    /// Whether its host lists it.
    pub present: bool,
    /// Load.
    pub load: Load,
    /// Its current metrics.
    #[serde(skip)]
    pub(crate) shown: Shown,
}

/// A guest's metrics as of the last read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown {
    /// When it was started; `None` if stopped.
    pub(crate) started: Option<DateTime<Utc>>,
    /// Current usage.
    pub(crate) share: Load,
    /// Counters since its start: CPU time in nanoseconds, network and disk bytes.
    pub(crate) cpu_ns: u64,
    pub(crate) net_in: u64,
    pub(crate) net_out: u64,
    pub(crate) disk_read: u64,
    pub(crate) disk_write: u64,
}

/// The marker for a seed and a guest number, so that another process can derive it too.
pub fn marker(seed: u64, number: i64) -> Uuid {
    let half = |salt| mix(seed, number.unsigned_abs(), salt);
    uuid::Builder::from_random_bytes(((u128::from(half(1)) << 64) | u128::from(half(2))).to_be_bytes()).into_uuid()
}

/// A deterministic pseudo-random number (the finalizer of `SplitMix64`).
fn mix(seed: u64, number: u64, salt: u64) -> u64 {
    let golden = 0x9E37_79B9_7F4A_7C15_u64;
    let mut z =
        seed.wrapping_mul(golden).wrapping_add(number).wrapping_mul(golden).wrapping_add(salt).wrapping_mul(golden);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A deterministic pseudo-random value between `from` and `to`.
fn between(seed: u64, number: u64, salt: u64, from: f64, to: f64) -> f64 {
    from + (to - from) * (mix(seed, number, salt) >> 11) as f64 / (1_u64 << 53) as f64
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "values that easily fit")]
fn whole(value: f64) -> u64 {
    value as u64
}

impl Guest {
    pub(crate) fn new(seed: u64, number: i64, node: usize, now: DateTime<Utc>) -> Self {
        let n = number.unsigned_abs();
        let size = mix(seed, n, 3) % 4;
        let load = Load {
            cpu: between(seed, n, 4, 0.02, 0.4),
            memory: between(seed, n, 5, 0.2, 0.7),
            disk: between(seed, n, 6, 0.1, 0.6),
        };
        let mut guest = Self {
            number,
            marker: marker(seed, number),
            kind: if number % 4 == 3 { GuestKind::Vm } else { GuestKind::Lxc },
            node,
            cores: 1 << size,
            memory: (512 * MIB) << size,
            disk: (10 * GIB) << size,
            power: Power::Running,
            present: true,
            load,
            shown: Shown { started: None, share: load, cpu_ns: 0, net_in: 0, net_out: 0, disk_read: 0, disk_write: 0 },
        };
        // As if it had been running for up to 30 days.
        let age = Duration::from_secs(mix(seed, n, 7) % (30 * 86_400));
        guest.shown.started = Some(now - age);
        guest.advance(seed, 0, now, age);
        guest
    }

    /// Advances the metrics by the time since the last read.
    pub(crate) fn advance(&mut self, seed: u64, look: u64, now: DateTime<Utc>, since: Duration) {
        let n = self.number.unsigned_abs();
        let near = |share: f64, salt| (share + between(seed, n, 16 + 4 * look + salt, -0.01, 0.01)).clamp(0.0, 1.0);
        let shown = &mut self.shown;
        shown.share = Load { disk: near(self.load.disk, 0), cpu: 0.0, memory: 0.0 };
        if self.power == Power::Stopped {
            *shown = Shown { started: None, cpu_ns: 0, net_in: 0, net_out: 0, disk_read: 0, disk_write: 0, ..*shown };
            return;
        }
        // Just started: the time before does not count.
        let seconds = if shown.started.is_some() { since.as_secs_f64() } else { 0.0 };
        shown.started.get_or_insert(now);
        shown.share = Load { cpu: near(self.load.cpu, 1), memory: near(self.load.memory, 2), ..shown.share };
        let busy = shown.share.cpu * f64::from(self.cores) * seconds;
        shown.cpu_ns += whole(busy * 1e9);
        shown.net_in += whole(busy * 200_000.0);
        shown.net_out += whole(busy * 350_000.0);
        shown.disk_read += whole(busy * 40_000.0);
        shown.disk_write += whole(busy * 90_000.0);
    }

    pub(crate) fn is_running(&self) -> bool {
        self.power == Power::Running
    }

    /// Seconds since its last start.
    pub(crate) fn uptime(&self, now: DateTime<Utc>) -> u64 {
        self.shown.started.map_or(0, |at| u64::try_from((now - at).num_seconds()).unwrap_or(0))
    }

    pub(crate) fn memory_used(&self) -> u64 {
        whole(self.memory as f64 * self.shown.share.memory)
    }

    pub(crate) fn disk_used(&self) -> u64 {
        whole(self.disk as f64 * self.shown.share.disk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_guest() {
        let now = Utc::now();
        let (one, same, other) = (Guest::new(7, 100, 0, now), Guest::new(7, 100, 0, now), Guest::new(8, 100, 0, now));
        assert_eq!((one.marker, one.cores, one.shown.net_in), (same.marker, same.cores, same.shown.net_in));
        assert_eq!(one.marker, marker(7, 100));
        assert!(one.marker != other.marker && one.marker != marker(7, 101));
    }

    #[test]
    fn figures_move_and_counters_grow_from_each_start() {
        let now = Utc::now();
        let mut guest = Guest::new(1, 100, 0, now);
        let before = guest.shown;
        guest.advance(1, 1, now, Duration::from_secs(30));
        assert!(guest.shown.share != before.share && guest.shown.net_in > before.net_in);
        assert!((guest.shown.share.cpu - guest.load.cpu).abs() <= 0.01);
        guest.power = Power::Stopped;
        guest.advance(1, 2, now, Duration::from_secs(30));
        assert_eq!((guest.shown.net_in, guest.uptime(now)), (0, 0));
        guest.power = Power::Running;
        guest.load.cpu = 0.95;
        guest.advance(1, 3, now, Duration::from_secs(30));
        assert_eq!(guest.shown.cpu_ns, 0);
        guest.advance(1, 4, now, Duration::from_secs(10));
        assert!(guest.shown.share.cpu > 0.93 && guest.shown.cpu_ns > 9 * 10_u64.pow(9) * u64::from(guest.cores));
    }
}
