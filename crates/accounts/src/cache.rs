//! Recently seen tokens with their callers, so that a busy client does not cost a database query per request.
//!
//! Revocation still takes effect at once. Anything that takes rights away empties the cache: in the process that does
//! it, before the response is sent; in every other process as soon as the database notifies it, which happens for each
//! such change (`auth_changed`). A process that isn't listening to the database caches nothing. And since a connection
//! can be dead without anyone noticing, nothing is cached for longer than `AccountSettings::token_life`.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kernel::auth::Caller;
use kernel::events::{Event, Listener};
use kernel::ids::AccountId;

use super::topics::AUTH_CHANGED;

/// The maximum number of cached tokens. Only valid ones are cached, so no one can fill it by guessing.
const SIZE: usize = 10_000;

/// A token's hash, and the account that it was shown for, if one was named.
pub(super) type CacheKey = ([u8; 32], Option<AccountId>);

/// Live tokens.
#[derive(Debug)]
pub(super) struct TokenCache {
    life: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Whether this process receives notifications of revocations elsewhere.
    heard: bool,
    /// How often the cache was emptied: a row read before that must not be cached after it.
    emptied: u64,
    tokens: HashMap<CacheKey, (Caller, Instant)>,
}

/// Result of a lookup in the cache.
#[derive(Debug)]
pub(super) enum CacheLookup {
    /// The token's caller.
    Yes(Caller),
    /// Not cached. Take this before the database query, and store the result with it.
    No(CacheGeneration),
}

/// Marks when a database read began.
#[derive(Debug, Clone, Copy)]
pub(super) struct CacheGeneration(u64);

impl TokenCache {
    /// Caches each token for at most `life`.
    pub(crate) fn new(life: Duration) -> Self {
        Self { life, inner: Mutex::default() }
    }

    pub(super) fn get(&self, key: &CacheKey) -> CacheLookup {
        let inner = self.lock();
        match inner.tokens.get(key) {
            Some((caller, until)) if *until > Instant::now() => CacheLookup::Yes(caller.clone()),
            _ => CacheLookup::No(CacheGeneration(inner.emptied)),
        }
    }

    /// Caches a live token that expires in `left`. Does nothing if anything was revoked since `reading`.
    pub(super) fn put(&self, reading: CacheGeneration, key: CacheKey, caller: &Caller, left: Option<Duration>) {
        let now = Instant::now();
        let mut inner = self.lock();
        if !inner.heard || inner.emptied != reading.0 {
            return;
        }
        if inner.tokens.len() >= SIZE {
            inner.tokens.retain(|_, (_, until)| *until > now);
            if inner.tokens.len() >= SIZE {
                inner.tokens.clear();
            }
        }
        inner.tokens.insert(key, (caller.clone(), now + left.unwrap_or(self.life).min(self.life)));
    }

    /// Rights were taken away. Whose does not matter: it is rare, and a query costs little.
    pub(crate) fn empty(&self) {
        let mut inner = self.lock();
        inner.emptied += 1;
        inner.tokens.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener for TokenCache {
    /// While notifications don't arrive, cached tokens must not be trusted; afterwards, some may have been missed.
    fn heard(&self, heard: bool) {
        let mut inner = self.lock();
        inner.heard = heard;
        inner.emptied += 1;
        inner.tokens.clear();
    }

    /// One that can't be read may be a revocation, too.
    fn event(&self, event: &Event) {
        if AUTH_CHANGED.is(event) {
            self.empty();
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use kernel::auth::{MemberRole, Scopes};
    use kernel::ids::UserId;

    fn caller() -> Caller {
        Caller {
            user: UserId(1),
            staff: None,
            account: AccountId(1),
            role: MemberRole::Owner,
            is_reseller: false,
            reseller: None,
            from_above: false,
            token_account: None,
            suspended: None,
            token: Uuid::nil(),
            session: None,
            opened_by: None,
            scopes: Scopes::All,
        }
    }

    fn key(hash: u8) -> CacheKey {
        ([hash; 32], None)
    }

    fn reading(cache: &TokenCache, hash: u8) -> Option<CacheGeneration> {
        match cache.get(&key(hash)) {
            CacheLookup::Yes(_) => None,
            CacheLookup::No(reading) => Some(reading),
        }
    }

    fn hearing() -> TokenCache {
        let cache = TokenCache::new(Duration::from_secs(5));
        cache.heard(true);
        cache
    }

    #[test]
    fn what_was_put_in_is_found_until_rights_are_taken_away() {
        let cache = hearing();
        cache.put(reading(&cache, 1).unwrap(), key(1), &caller(), None);
        assert!(reading(&cache, 1).is_none() && reading(&cache, 2).is_some());
        assert!(
            matches!(cache.get(&([1; 32], Some(AccountId(7)))), CacheLookup::No(_)),
            "another account, other rights"
        );
        cache.empty();
        assert!(reading(&cache, 1).is_some());
    }

    #[test]
    fn what_was_read_before_a_revocation_is_not_remembered_after_it() {
        let cache = hearing();
        let before = reading(&cache, 1).unwrap();
        cache.empty();
        cache.put(before, key(1), &caller(), None);
        assert!(reading(&cache, 1).is_some());
    }

    #[test]
    fn a_process_that_hears_nothing_remembers_nothing() {
        let cache = TokenCache::new(Duration::from_secs(5));
        cache.put(reading(&cache, 1).unwrap(), key(1), &caller(), None);
        assert!(reading(&cache, 1).is_some());
        cache.heard(true);
        cache.put(reading(&cache, 1).unwrap(), key(1), &caller(), None);
        assert!(reading(&cache, 1).is_none());
        cache.heard(false);
        assert!(reading(&cache, 1).is_some());
    }

    #[test]
    fn a_token_that_ends_is_forgotten_with_its_end() {
        let cache = hearing();
        cache.put(reading(&cache, 1).unwrap(), key(1), &caller(), Some(Duration::ZERO));
        assert!(reading(&cache, 1).is_some());
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let cache = hearing();
        for n in 0..=SIZE {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&n.to_be_bytes());
            let CacheLookup::No(reading) = cache.get(&(hash, None)) else { unreachable!() };
            cache.put(reading, (hash, None), &caller(), None);
        }
        assert!(cache.lock().tokens.len() <= SIZE);
    }
}
