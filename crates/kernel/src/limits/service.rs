//! Business logic for rate limits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::store;
use crate::auth::ClientAddress;
use crate::core::Core;
use crate::error::{Code, Error, Result};
use crate::ids::AccountId;

/// A minute's allowance is taken in this many shares, with one query each. What a process takes and does not use is
/// lost until the minute is over, so shares are small.
const SHARES: u64 = 20;
/// Maximum number of counters in memory; only an attacker with many addresses can reach it.
const SIZE: usize = 100_000;
/// How long no queries are made after the database was unreachable: otherwise every request would wait for it.
const AWAY: Duration = Duration::from_secs(5);
/// Limit of a /48, as a multiple of one address's.
const WIDE: u64 = 8;

/// The requests that are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LimitKey {
    /// Of a session or an API token.
    Token(Uuid),
    /// Of an account, with all its tokens.
    Account(AccountId),
    /// From an address, without a valid token.
    Address(String),
    /// Invalid tokens and tickets from an address.
    Guess(String),
    /// From a /48, without a valid token, in this process: anyone with a /48 has 65,536 networks to be counted by.
    Wide(String),
    /// Of a class, from an address, in this process.
    Local(&'static str, String),
    /// Of a class with this many requests per minute.
    Class(&'static str, u64, Box<Self>),
    /// Long polling on the live view from an address, in this process.
    Polling(String),
    /// New connections to the live view from an address, in this process.
    Handshake(String),
}

/// What the requests to a route are counted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateClass {
    /// With most others: by token and account or, without a valid token, by address, in all processes together.
    Shared,
    /// With those of this class, by account or, without a valid token, by address, in all processes together.
    Own {
        /// Its name, which no other dialect has.
        class: &'static str,
        /// How many there may be.
        per_minute: u64,
    },
    /// With those of this class, by address, in this process: for what costs no query. Responses don't report it.
    Local(&'static str),
}

/// A client's allowance.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// Whether this request is within the limit.
    pub fine: bool,
    /// Requests per minute.
    pub limit: u64,
    /// Remaining requests, as far as this process knows.
    pub remaining: u64,
    /// Time until the next minute begins.
    pub reset: Duration,
}

/// The shares of this process.
#[derive(Debug, Default)]
pub struct RateLimits {
    shares: Mutex<HashMap<LimitKey, Arc<tokio::sync::Mutex<QuotaShare>>>>,
    /// Until when no queries are made because the database was unreachable.
    away_until: Mutex<Option<Instant>>,
}

/// This process's share of a client's current minute.
#[derive(Debug)]
struct QuotaShare {
    left: u64,
    /// What no process has taken, as far as this one knows.
    rest: u64,
    until: Instant,
}

impl QuotaShare {
    fn one(&mut self, limit: u64, now: Instant) -> Allowance {
        let fine = self.left > 0;
        self.left = self.left.saturating_sub(1);
        Allowance {
            fine,
            limit,
            remaining: self.left + self.rest,
            reset: whole_seconds(self.until.saturating_duration_since(now)),
        }
    }
}

impl RateLimits {
    /// Counts one request in this process only, without a query.
    pub fn count_locally(&self, core: &Core, who: &LimitKey) -> Allowance {
        let limit = who.limit(core);
        let share = self.share(who);
        let now = Instant::now();
        // Held only for moments, and never while waiting.
        let Ok(mut share) = share.try_lock() else {
            return Allowance { fine: true, limit, remaining: 0, reset: Duration::from_secs(1) };
        };
        if share.until <= now {
            *share = QuotaShare { left: limit, rest: 0, until: now + Duration::from_mins(1) };
        }
        share.one(limit, now)
    }

    fn is_database_skipped(&self) -> bool {
        self.away_until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| until > Instant::now())
    }

    /// Counts one request without a valid token: first in this process, for the whole network.
    pub(super) async fn count_unauthenticated(&self, core: &Core, address: ClientAddress, who: LimitKey) -> Allowance {
        if let Some(wide) = address.wide() {
            let all = self.count_locally(core, &LimitKey::Wide(wide));
            if !all.fine {
                return all;
            }
        }
        self.count(core, who).await
    }

    /// Counts one request.
    pub(super) async fn count(&self, core: &Core, who: LimitKey) -> Allowance {
        let limit = who.limit(core);
        let share = self.share(&who);
        // Held during the query, so that parallel requests of one client don't take a share each.
        let mut share = share.lock().await;
        let now = Instant::now();
        let over = share.until <= now;
        if over || (share.left == 0 && share.rest > 0) {
            let want = (limit / SHARES).max(1);
            let taken = match self.is_database_skipped() {
                true => None,
                false => match store::take(&core.db, &who.key(), want).await {
                    Ok(taken) => Some(taken),
                    Err(error) => {
                        tracing::warn!(%error, "cannot count requests against their rate limits");
                        *self.away_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + AWAY);
                        None
                    }
                },
            };
            (share.left, share.rest, share.until) = match taken {
                Some((taken, left)) => {
                    (want.saturating_sub(taken.saturating_sub(limit)), limit.saturating_sub(taken), now + left)
                }
                // A failure to count must not block anyone.
                None => (want, 0, Instant::now() + Duration::from_secs(1)),
            };
        }
        share.one(limit, now)
    }

    /// Counts a token or ticket before it is looked up, which is work, and refuses an address that has sent too many
    /// invalid ones. [`Self::uncount_lookup`] takes a valid one back: however many are looked up concurrently, no more
    /// than the limit can be invalid.
    pub async fn guess(&self, core: &Core, address: ClientAddress) -> Result<()> {
        let mut allowance = self.count(core, LimitKey::Guess(address.network())).await;
        if let Some(wide) = address.wide().filter(|_| allowance.fine) {
            allowance = self.count_locally(core, &LimitKey::Wide(wide));
        }
        if allowance.fine {
            return Ok(());
        }
        let words = "Too many invalid tokens came from this address; try again in a minute.";
        Err(Error { retry_after: Some(allowance.reset), ..Error::new(Code::RateLimited, words) })
    }

    /// Takes back a guess that turned out to be valid.
    pub async fn uncount_lookup(&self, address: ClientAddress) {
        let mut given_back = vec![LimitKey::Guess(address.network())];
        given_back.extend(address.wide().map(LimitKey::Wide));
        for who in given_back {
            let share = self.share(&who);
            share.lock().await.left += 1;
        }
    }

    fn share(&self, who: &LimitKey) -> Arc<tokio::sync::Mutex<QuotaShare>> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(who) {
            return Arc::clone(share);
        }
        let now = Instant::now();
        if shares.len() >= SIZE {
            shares.retain(|_, share| share.try_lock().map_or(true, |share| share.until > now));
            // Drops every other address, as anyone may have many of them: a dropped one gets one extra share.
            if shares.len() >= SIZE {
                let mut one = false;
                shares.retain(|who, _| {
                    one = !one;
                    one || matches!(who, LimitKey::Token(_) | LimitKey::Account(_))
                });
            }
        }
        let share = Arc::new(tokio::sync::Mutex::new(QuotaShare { left: 0, rest: 0, until: now }));
        shares.insert(who.clone(), Arc::clone(&share));
        share
    }

    /// Drops minutes that are over.
    fn forget(&self) {
        let now = Instant::now();
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.retain(|_, share| share.try_lock().map_or(true, |share| share.until > now));
    }
}

/// Rounded up, so that a client that waits this long is not too early.
fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

impl LimitKey {
    /// The same within a class that has counters of its own.
    pub(super) fn in_class(self, class: RateClass) -> Self {
        match class {
            RateClass::Own { class, per_minute } => Self::Class(class, per_minute, Box::new(self)),
            RateClass::Shared | RateClass::Local(_) => self,
        }
    }

    fn limit(&self, core: &Core) -> u64 {
        let (token, address) = (core.config.rate_limit_token.into(), core.config.rate_limit_address.into());
        match self {
            Self::Token(_) | Self::Polling(_) => token,
            Self::Account(_) => core.config.rate_limit_account.into(),
            Self::Address(_) | Self::Guess(_) | Self::Local(..) | Self::Handshake(_) => address,
            Self::Wide(_) => address * WIDE,
            Self::Class(_, per_minute, _) => *per_minute,
        }
    }

    fn key(&self) -> String {
        match self {
            Self::Token(id) => format!("token:{id}"),
            Self::Account(id) => format!("account:{id}"),
            Self::Address(network) => format!("address:{network}"),
            Self::Guess(network) => format!("guess:{network}"),
            Self::Wide(network) => format!("wide:{network}"),
            Self::Local(class, network) => format!("local:{class}:{network}"),
            Self::Class(class, _, who) => format!("class:{class}:{}", who.key()),
            Self::Polling(network) => format!("polling:{network}"),
            Self::Handshake(network) => format!("handshake:{network}"),
        }
    }
}

/// Drops minutes that are over, here and in the database.
pub(super) async fn purge(core: &Core) -> Result<()> {
    core.limits.forget();
    Ok(store::purge(&core.db).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_addresses_make_it_forget_some_of_them_and_no_token() {
        let limits = RateLimits::default();
        let token = LimitKey::Token(Uuid::nil());
        let minute = Instant::now() + Duration::from_mins(1);
        let present = |who: &LimitKey| limits.share(who).try_lock().unwrap().until = minute;
        present(&token);
        for n in 0..SIZE {
            present(&LimitKey::Address(n.to_string()));
        }
        let shares = limits.shares.lock().unwrap();
        assert!(shares.contains_key(&token));
        assert!((SIZE / 3..=SIZE).contains(&shares.len()), "{}", shares.len());
    }
}
