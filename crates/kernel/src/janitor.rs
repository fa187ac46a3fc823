//! Deletes expired data of every feature, and makes sure that a clock that is off does not make it expire early.
//!
//! Ages are measured against a horizon (`aged_to()` in the database). It follows the database's clock, but at most at
//! twice the speed of this process's monotonic clock, which nobody can set; and it stands still while the clocks of the
//! database and this machine disagree.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tokio::time::Instant;

use crate::core::Core;
use crate::error::Result;
use crate::feature::Feature;

const EVERY: Duration = Duration::from_mins(10);
/// How far clocks may differ, or jump, before it is logged.
const TOLERATED: Duration = Duration::from_mins(5);

/// Runs until shutdown.
pub async fn run(core: &Core, features: &[Arc<dyn Feature>]) {
    let mut tick = tokio::time::interval(EVERY);
    let mut clock = Clock::default();
    loop {
        tokio::select! {
            () = core.shutdown.cancelled() => return,
            _ = tick.tick() => {}
        }
        core.metrics.run_upkeep();
        let upkeep = features.iter().map(|feature| (feature.name(), feature.upkeep()));
        report("the clock", clock.follow(&core.db, Utc::now()).await);
        for (name, upkeep) in upkeep {
            report(name, upkeep.await);
        }
    }
}

fn report(what: &str, done: Result<()>) {
    if let Err(error) = done {
        tracing::warn!(of = what, %error, "cannot delete expired data; retrying later");
    }
}

/// The database's clock at the last check.
#[derive(Debug, Default)]
pub struct Clock {
    last: Option<(Instant, ClockReadings)>,
}

#[derive(Debug)]
struct ClockReadings {
    now: DateTime<Utc>,
    horizon: DateTime<Utc>,
}

impl Clock {
    /// Advances the horizon by the time that has passed since the last check. `here` is this machine's clock.
    pub async fn follow(&mut self, db: &PgPool, here: DateTime<Utc>) -> Result<()> {
        let at = Instant::now();
        let mut looked =
            sqlx::query_as!(ClockReadings, r#"select now() as "now!", horizon from upkeep"#).fetch_one(db).await?;
        let apart = apart(looked.now, here);
        if apart > TOLERATED {
            tracing::error!(
                seconds = apart.as_secs(),
                "the database's clock and this machine's disagree: correct them; until then nothing expires"
            );
        } else if let Some((before, last)) = &self.last {
            let passed = at - *before;
            let moved = (looked.now - last.now).to_std().unwrap_or_default();
            if moved > passed + TOLERATED {
                tracing::error!(
                    seconds = moved.saturating_sub(passed).as_secs(),
                    "the clocks were set forward. Stored data ages slowly until the horizon has caught up. If the \
                     clocks are wrong, correct them"
                );
            }
            let most = last.horizon + passed * 2;
            looked.horizon = sqlx::query_scalar!(
                "update upkeep set horizon = greatest(horizon, least(now(), $1)) returning horizon",
                most
            )
            .fetch_one(db)
            .await?;
        }
        let behind = self::apart(looked.now, looked.horizon);
        if self.last.is_none() && behind > EVERY + TOLERATED {
            tracing::info!(seconds = behind.as_secs(), "no process has run for this long; expiry is catching up");
        }
        self.last = Some((at, looked));
        Ok(())
    }
}

fn apart(one: DateTime<Utc>, other: DateTime<Utc>) -> Duration {
    (one - other).abs().to_std().unwrap_or_default()
}
