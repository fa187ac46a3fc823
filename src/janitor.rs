//! Forgets what has ended long ago, in every feature, and sees to it that no wrong clock makes it long ago.
//!
//! Ages count up to a horizon (`aged_to()` in the database). It follows the database's clock, but no faster than twice
//! the time that has passed by this process's own measure, which no setting of a clock changes; and it stands still
//! while the two clocks disagree.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tokio::time::Instant;

use crate::core::Core;
use crate::error::Result;
use crate::feature::Feature;

const EVERY: Duration = Duration::from_mins(10);
/// How far clocks may be apart, and jump, before it is said.
const TOLERATED: Duration = Duration::from_mins(5);

/// Works until shutdown.
pub(crate) async fn run(core: &Core, features: &[Arc<dyn Feature>]) {
    let mut tick = tokio::time::interval(EVERY);
    let mut clock = Clock::default();
    loop {
        tokio::select! {
            () = core.shutdown.cancelled() => return,
            _ = tick.tick() => {}
        }
        core.metrics.run_upkeep();
        let upkeep = features.iter().map(|feature| (feature.name(), feature.upkeep()));
        report("the clock", clock.follow(&core.db).await);
        for (name, upkeep) in upkeep {
            report(name, upkeep.await);
        }
    }
}

fn report(what: &str, done: Result<()>) {
    if let Err(error) = done {
        tracing::warn!(of = what, %error, "what has ended could not be forgotten; trying again later");
    }
}

/// What the database's clock showed at the last look.
#[derive(Debug, Default)]
struct Clock {
    last: Option<(Instant, Looked)>,
}

#[derive(Debug)]
struct Looked {
    now: DateTime<Utc>,
    horizon: DateTime<Utc>,
}

impl Clock {
    /// Moves the horizon on, as far as time has passed since the last look.
    async fn follow(&mut self, db: &PgPool) -> Result<()> {
        let at = Instant::now();
        let mut looked =
            sqlx::query_as!(Looked, r#"select now() as "now!", horizon from upkeep"#).fetch_one(db).await?;
        let apart = apart(looked.now, Utc::now());
        if apart > TOLERATED {
            tracing::error!(
                seconds = apart.as_secs(),
                "the database's clock and this machine's disagree: set them right; until then nothing grows old"
            );
        } else if let Some((before, last)) = &self.last {
            let passed = at - *before;
            let moved = (looked.now - last.now).to_std().unwrap_or_default();
            if moved > passed + TOLERATED {
                tracing::error!(
                    seconds = moved.saturating_sub(passed).as_secs(),
                    "the clocks have moved further than time has: they were set. What is kept for a time grows old slowly \
                     until it fits again. If they are wrong, set them right"
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
            tracing::info!(
                seconds = behind.as_secs(),
                "no process ran for so long; what is kept for a time catches up"
            );
        }
        self.last = Some((at, looked));
        Ok(())
    }
}

fn apart(one: DateTime<Utc>, other: DateTime<Utc>) -> Duration {
    (one - other).abs().to_std().unwrap_or_default()
}
