//! Aggregates samples, and chooses the resolution that a chart is drawn from.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use kernel::core::Core;
use kernel::error::{Error, Result};

use super::model::{Metrics, ServerTraffic, ShowMetrics};
use super::store::{self, ChartSpans, Resolution};
use super::traffic;
use crate::ids::ServerId;

/// How long raw samples are kept.
const RAW: TimeDelta = TimeDelta::hours(48);
/// How long 5-minute steps are kept.
const FINE: TimeDelta = TimeDelta::days(30);
/// Longer than hourly steps are kept: nothing older exists.
const COARSE: TimeDelta = TimeDelta::days(800);
/// Most points in one chart.
const MOST_POINTS: i64 = 2_000;
/// Points to aim for if no step is requested.
const POINTS: i64 = 120;
/// Delay before a step is aggregated: samples taken at its end are stored up to a sweep's time-out later.
const SETTLED: TimeDelta = TimeDelta::minutes(2);
/// Longest span to aggregate in one transaction, by level.
const AT_ONCE: [(Resolution, TimeDelta); 2] =
    [(Resolution::Fine, TimeDelta::minutes(30)), (Resolution::Coarse, TimeDelta::hours(6))];

/// Aggregates samples and maintains partitions until shutdown. Any number of processes may run this.
pub async fn keep(core: &Core) {
    let mut tick = tokio::time::interval(Duration::from_mins(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut upkept: Option<tokio::time::Instant> = None;
    loop {
        tokio::select! {
            () = core.shutdown.cancelled() => return,
            _ = tick.tick() => {}
        }
        if upkept.is_none_or(|at| at.elapsed() > Duration::from_mins(30)) {
            match maintain_partitions(core).await {
                Ok(()) => upkept = Some(tokio::time::Instant::now()),
                Err(error) => tracing::warn!(%error, "history partitions could not be maintained; retrying"),
            }
        }
        if let Err(error) = aggregate(core).await {
            tracing::warn!(%error, "samples could not be aggregated; retrying");
        }
    }
}

/// Creates partitions for the coming days, drops expired ones, and deletes expired traffic.
pub async fn maintain_partitions(core: &Core) -> Result<()> {
    store::upkeep(&core.db).await?;
    Ok(traffic::purge(&core.db).await?)
}

/// Creates the partitions for samples taken at this moment.
pub async fn create_partitions_at(core: &Core, moment: DateTime<Utc>) -> Result<()> {
    Ok(store::create_partitions(&core.db, moment).await?)
}

/// Aggregates everything that has settled, unless another process is doing so.
pub async fn aggregate(core: &Core) -> Result<()> {
    for (level, at_once) in AT_ONCE {
        while !core.shutdown.is_cancelled() && store::aggregate(&core.db, level, SETTLED, at_once).await? {}
    }
    Ok(())
}

/// The metrics of a server over a period.
pub async fn metrics(core: &Core, server: ServerId, query: &ShowMetrics) -> Result<Metrics> {
    let now = Utc::now();
    let near = |at: DateTime<Utc>| at.clamp(now - COARSE, now + TimeDelta::hours(1));
    let to = near(query.to.unwrap_or(now));
    let from = near(query.from.unwrap_or(to - TimeDelta::hours(1)));
    if from >= to {
        return Err(Error::field("from", "Must be before `to` and not in the future."));
    }
    let seconds = (to - from).num_seconds().max(1);
    // Round up.
    let least = (seconds + MOST_POINTS - 1) / MOST_POINTS;
    let wished = query.step.unwrap_or_else(|| (seconds / POINTS).max(1));
    if wished < least {
        return Err(Error::field("step", format!("Gives more than {MOST_POINTS} points: use at least {least}.")));
    }
    let finest = finest(now - from);
    let step = wished.max(finest.seconds());
    let progress = store::progress(&core.db).await?;
    let points = store::points(&core.db, server, spans(from, to, step, finest, progress), step).await?;
    Ok(Metrics { server_id: server, from, to, step, points })
}

/// A server's traffic by month.
pub async fn traffic(core: &Core, server: ServerId) -> Result<ServerTraffic> {
    let (quota, months) = (traffic::quota(&core.db, server).await?, traffic::months(&core.db, server).await?);
    Ok(ServerTraffic { server_id: server, quota, months })
}

/// The finest level that is kept for this age.
fn finest(age: TimeDelta) -> Resolution {
    match age {
        age if age <= RAW => Resolution::Raw,
        age if age <= FINE => Resolution::Fine,
        _ => Resolution::Coarse,
    }
}

/// Picks the level for each part of a chart: the coarsest one that is fine enough for the step, then finer ones for the
/// latest part that it has not aggregated yet.
fn spans(
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    step: i64,
    finest: Resolution,
    [fine, coarse]: [DateTime<Utc>; 2],
) -> ChartSpans {
    let use_coarse = step >= Resolution::Coarse.seconds() || finest == Resolution::Coarse;
    let use_fine = step >= Resolution::Fine.seconds() || finest != Resolution::Raw;
    let coarse_to = if use_coarse { coarse.clamp(from, to) } else { from };
    let fine_to = if use_fine { fine.clamp(coarse_to, to) } else { coarse_to };
    ChartSpans { from, coarse_to, fine_to, to }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_is_drawn_from_the_coarsest_level_that_will_do() {
        let now = Utc::now();
        let ago = |hours: i64| now - TimeDelta::hours(hours);
        let drawn = |from, step, finest| spans(from, now, step, finest, [ago(1), ago(2)]);
        // Raw samples: the last hours in 30 s steps.
        let raw = drawn(ago(3), 30, Resolution::Raw);
        assert_eq!((raw.coarse_to, raw.fine_to, raw.to), (ago(3), ago(3), now));
        // Five-minute steps, as far as they are aggregated.
        let fine = drawn(ago(30), 300, Resolution::Raw);
        assert_eq!((fine.coarse_to, fine.fine_to), (ago(30), ago(1)));
        let coarse = drawn(ago(24 * 300), 86_400, Resolution::Coarse);
        assert_eq!((coarse.coarse_to, coarse.fine_to), (ago(2), ago(1)));
        // Everything from raw samples before any aggregation, or everything after it.
        let late = spans(ago(1), now, 3600, Resolution::Raw, [ago(5), ago(6)]);
        assert_eq!((late.coarse_to, late.fine_to), (ago(1), ago(1)));
        let early = spans(ago(9), ago(8), 3600, Resolution::Raw, [ago(1), ago(2)]);
        assert_eq!((early.coarse_to, early.fine_to), (ago(8), ago(8)));
    }

    #[test]
    fn older_history_is_coarser() {
        assert_eq!(finest(TimeDelta::hours(1)), Resolution::Raw);
        assert_eq!(finest(TimeDelta::hours(49)), Resolution::Fine);
        assert_eq!(finest(TimeDelta::days(31)), Resolution::Coarse);
    }
}
