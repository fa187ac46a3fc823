//! The rules of rate limits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::store;
use crate::app::App;
use crate::error::{Code, Error, Result};
use crate::http::ClientAddress;

/// A minute's allowance is taken in so many shares: one question to the database for each. What a process took and does
/// not use is lost until the minute is over, so shares are small.
const SHARES: u64 = 20;
/// The most that is remembered; only what an attacker with many addresses does can come near it.
const SIZE: usize = 100_000;

/// Whose requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Who {
    /// A login's or an API token's.
    Token(Uuid),
    /// Those of an address that show no good token.
    Address(String),
    /// Tokens and tickets that an address showed and that were none.
    Guess(String),
}

/// What one may do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    /// Whether this request is within it.
    pub fine: bool,
    /// Requests a minute.
    pub limit: u64,
    /// How many are left, as far as this process knows.
    pub remaining: u64,
    /// Until the next minute begins.
    pub reset: Duration,
}

/// This process' shares.
#[derive(Debug, Default)]
pub struct Limits(Mutex<HashMap<Who, Arc<tokio::sync::Mutex<Share>>>>);

/// What this process took of someone's present minute and has left.
#[derive(Debug)]
struct Share {
    left: u64,
    /// What nobody has taken, as far as we know.
    rest: u64,
    until: Instant,
}

impl Limits {
    /// Counts one request.
    pub(super) async fn count(&self, app: &App, who: Who) -> Allowance {
        let limit = u64::from(match who {
            Who::Token(_) => app.config.rate_limit_token,
            Who::Address(_) | Who::Guess(_) => app.config.rate_limit_address,
        });
        let share = self.share(&who);
        // Held while the database is asked, so that parallel requests of one client don't take a share each.
        let mut share = share.lock().await;
        let now = Instant::now();
        let over = share.until <= now;
        if over || (share.left == 0 && share.rest > 0) {
            let want = (limit / SHARES).max(1);
            match store::take(&app.db, &who.key(), want).await {
                Ok((taken, left)) => {
                    share.left = want.saturating_sub(taken.saturating_sub(limit));
                    share.rest = limit.saturating_sub(taken);
                    share.until = now + left;
                }
                // Nobody is shut out because we can't count.
                Err(error) => {
                    tracing::warn!(%error, "requests can't be counted");
                    (share.left, share.rest, share.until) = (want, 0, now + Duration::from_secs(1));
                }
            }
        }
        let fine = share.left > 0;
        share.left = share.left.saturating_sub(1);
        Allowance {
            fine,
            limit,
            remaining: share.left + share.rest,
            reset: whole_seconds(share.until.saturating_duration_since(now)),
        }
    }

    /// Refuses an address that has shown too many tokens and tickets that were none: looking up the next one is work
    /// that it gets no more of this minute. Asks nobody.
    pub(crate) fn may_guess(&self, address: ClientAddress) -> Result<()> {
        let shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(share) = shares.get(&Who::Guess(address.network())) else { return Ok(()) };
        let Ok(share) = share.try_lock() else { return Ok(()) };
        let reset = share.until.saturating_duration_since(Instant::now());
        if share.left > 0 || share.rest > 0 || reset.is_zero() {
            return Ok(());
        }
        let words = "Too many tokens that are none came from this address; try again in a minute.";
        Err(Error { retry_after: Some(whole_seconds(reset)), ..Error::new(Code::RateLimited, words) })
    }

    /// Counts a token or ticket that was none.
    pub(crate) async fn guessed(&self, app: &App, address: ClientAddress) {
        self.count(app, Who::Guess(address.network())).await;
    }

    fn share(&self, who: &Who) -> Arc<tokio::sync::Mutex<Share>> {
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(who) {
            return Arc::clone(share);
        }
        let now = Instant::now();
        if shares.len() >= SIZE {
            shares.retain(|_, share| share.try_lock().map_or(true, |share| share.until > now));
            // Of addresses, of which anybody may have many, every other one: whoever is forgotten gets a share more.
            if shares.len() >= SIZE {
                let mut one = false;
                shares.retain(|who, _| {
                    one = !one;
                    one || matches!(who, Who::Token(_))
                });
            }
        }
        let share = Arc::new(tokio::sync::Mutex::new(Share { left: 0, rest: 0, until: now }));
        shares.insert(who.clone(), Arc::clone(&share));
        share
    }

    /// Forgets minutes that are over.
    fn forget(&self) {
        let now = Instant::now();
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shares.retain(|_, share| share.try_lock().map_or(true, |share| share.until > now));
    }
}

/// Rounded up: whoever waits that long is not too early.
fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

impl Who {
    fn key(&self) -> String {
        match self {
            Self::Token(id) => format!("token:{id}"),
            Self::Address(network) => format!("address:{network}"),
            Self::Guess(network) => format!("guess:{network}"),
        }
    }
}

/// Forgets minutes that are over.
pub async fn purge(app: &App) -> Result<()> {
    app.limits.forget();
    Ok(store::purge(&app.db).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_addresses_make_it_forget_some_of_them_and_no_token() {
        let limits = Limits::default();
        let token = Who::Token(Uuid::nil());
        let minute = Instant::now() + Duration::from_mins(1);
        let present = |who: &Who| limits.share(who).try_lock().unwrap().until = minute;
        present(&token);
        for n in 0..SIZE {
            present(&Who::Address(n.to_string()));
        }
        let shares = limits.0.lock().unwrap();
        assert!(shares.contains_key(&token));
        assert!((SIZE / 3..=SIZE).contains(&shares.len()), "{}", shares.len());
    }
}
