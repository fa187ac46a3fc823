//! The rules of rate limits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::store;
use crate::app::App;
use crate::error::Result;

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
            Who::Address(_) => app.config.rate_limit_address,
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

    fn share(&self, who: &Who) -> Arc<tokio::sync::Mutex<Share>> {
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(who) {
            return Arc::clone(share);
        }
        let now = Instant::now();
        if shares.len() >= SIZE {
            shares.retain(|_, share| share.try_lock().map_or(true, |share| share.until > now));
            if shares.len() >= SIZE {
                shares.clear();
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
        }
    }
}

/// Forgets minutes that are over.
pub async fn purge(app: &App) -> Result<()> {
    app.limits.forget();
    Ok(store::purge(&app.db).await?)
}
