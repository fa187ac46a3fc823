//! Limits the live-view sessions that have not signed in yet. Each uses memory from its first request on, and is
//! dropped after [`LIFE`] without a token.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time that a session has to sign in.
pub(super) const LIFE: Duration = Duration::from_secs(10);
/// After this time a session is certainly gone.
const GONE: Duration = Duration::from_secs(12);
/// Most sessions that have not signed in; each uses about 10 KiB.
const MOST: usize = 2_000;
/// Most of them per address.
const MOST_OF_ONE: usize = 100;

/// Recent sessions that have not signed in.
#[derive(Debug, Default)]
pub(super) struct PendingSessions(Mutex<PendingByNetwork>);

#[derive(Debug, Default)]
struct PendingByNetwork {
    all: VecDeque<(Instant, String)>,
    of: HashMap<String, usize>,
}

impl PendingSessions {
    /// Registers a new session; false if there are too many.
    pub(super) fn enter(&self, network: &str) -> bool {
        self.enter_at(network, Instant::now())
    }

    fn enter_at(&self, network: &str, now: Instant) -> bool {
        let mut strangers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((_, gone)) = strangers.all.pop_front_if(|(at, _)| now.saturating_duration_since(*at) >= GONE) {
            strangers.forget(&gone);
        }
        if strangers.all.len() >= MOST || strangers.of.get(network).is_some_and(|n| *n >= MOST_OF_ONE) {
            return false;
        }
        strangers.all.push_back((now, network.to_owned()));
        *strangers.of.entry(network.to_owned()).or_default() += 1;
        true
    }

    /// A session of this network has signed in.
    pub(super) fn signed_in(&self, network: &str) {
        let mut strangers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = strangers.all.iter().position(|(_, of)| of == network) {
            strangers.all.remove(n);
            strangers.forget(network);
        }
    }
}

impl PendingByNetwork {
    fn forget(&mut self, network: &str) {
        if let Some(count) = self.of.get_mut(network) {
            *count -= 1;
            if *count == 0 {
                self.of.remove(network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_can_t_keep_the_others_out() {
        let gate = PendingSessions::default();
        let entered = (0..MOST * 2).filter(|_| gate.enter("192.0.2.1")).count();
        assert_eq!(entered, MOST_OF_ONE);
        assert!(gate.enter("192.0.2.2"));
    }

    #[test]
    fn who_signs_in_makes_room_and_so_does_who_is_gone() {
        let (gate, now) = (PendingSessions::default(), Instant::now());
        for n in 0..MOST {
            assert!(gate.enter_at(&(n / MOST_OF_ONE).to_string(), now));
        }
        assert!(!gate.enter_at("another", now));
        gate.signed_in("3");
        assert!(gate.enter_at("another", now));
        assert!(!gate.enter_at("another", now + GONE / 2));
        assert!(gate.enter_at("another", now + GONE));
        let strangers = gate.0.lock().unwrap();
        assert_eq!((strangers.all.len(), strangers.of.len()), (1, 1));
    }
}
