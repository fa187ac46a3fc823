//! The named locks of this crate. `kernel::locks` has the order in which locks are taken.

use kernel::locks::Lock;

use crate::ids::HostId;

/// Evaluating alerts that no sweep covers: one process does so for all.
pub const PATROL: Lock = Lock::named("alerts", "patrol");
/// Notifying users of alerts: one process does so for all.
pub const NOTIFY: Lock = Lock::named("alerts", "tell");

/// Evaluating the alerts of a host's sweep.
pub fn alerts(host: HostId) -> Lock {
    Lock::of("alerts", host.0)
}

/// Metering the traffic of a host's servers.
pub fn traffic(host: HostId) -> Lock {
    Lock::of("traffic", host.0)
}

#[cfg(test)]
mod tests {
    use compute::locks::{CONSOLES, PLACEMENT};

    use super::*;

    #[test]
    fn no_two_locks_are_the_same() {
        let mut locks = [1, 2].map(HostId).map(|host| [alerts(host), traffic(host)]).concat();
        locks.extend([PLACEMENT, CONSOLES, PATROL, NOTIFY]);
        let all = locks.len();
        locks.sort_unstable();
        locks.dedup();
        assert_eq!(locks.len(), all);
    }
}
