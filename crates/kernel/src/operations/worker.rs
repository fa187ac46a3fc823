//! The worker pool of a process: claims due operations, never more than it has free slots.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio_util::task::TaskTracker;

use super::store::{self, SlotLimits};
use super::{OPERATION_DUE, Operations, run};
use crate::restores;

/// The poll behind the notifications: a lost one costs at most this much.
const POLL: Duration = Duration::from_secs(5);

/// Works until shutdown, then waits for the running operations to reach their next boundary.
pub(super) async fn work(operations: &Arc<Operations>) {
    let core = &operations.core;
    if !restores::service::wait_for_first_check(core).await {
        return;
    }
    let hands = Arc::new(Semaphore::new(core.engine.workers));
    let freed = Arc::new(Notify::new());
    let running = TaskTracker::new();
    let known = operations.known();
    let mut events = core.events.subscribe();
    while !core.shutdown.is_cancelled() {
        let wait = match claim(operations, &hands, &freed, &running, &known).await {
            Ok(wait) => wait,
            Err(error) => {
                tracing::warn!(%error, "cannot claim operations; retrying");
                Duration::from_secs(1)
            }
        };
        tokio::select! {
            () = core.shutdown.cancelled() => {}
            () = freed.notified() => {}
            () = tokio::time::sleep(wait) => {}
            _ = events.next_of(&OPERATION_DUE) => {}
        }
    }
    running.close();
    running.wait().await;
}

/// Claims as many operations as there are free slots, and returns when to check again.
async fn claim(
    operations: &Arc<Operations>,
    hands: &Arc<Semaphore>,
    freed: &Arc<Notify>,
    running: &TaskTracker,
    known: &store::KnownWorkflows,
) -> sqlx::Result<Duration> {
    let core = &operations.core;
    let free = hands.available_permits();
    if free == 0 {
        // `freed` wakes us.
        return Ok(POLL);
    }
    let Some(beats) = core.heart.known() else { return Ok(POLL) };
    store::queue_waiting(&core.lease_db).await?;
    let share = |n: usize| i64::try_from(n.max(1)).unwrap_or(i64::MAX);
    let of_lane = share(core.engine.workers * 3 / 4);
    let shares = SlotLimits {
        free: share(free),
        lane: of_lane,
        account: share(core.engine.workers * 3 / 8),
        account_in_all: of_lane,
    };
    let claimed = store::claim(&core.lease_db, core.engine.owner, core.engine.lease, known, shares, beats).await?;
    let idle = claimed.is_empty();
    for operation in claimed {
        let Ok(hand) = Arc::clone(hands).try_acquire_owned() else { break };
        let (operations, freed) = (Arc::clone(operations), Arc::clone(freed));
        running.spawn(async move {
            run::run(&operations, operation).await;
            drop(hand);
            freed.notify_one();
        });
    }
    let next = store::next_due(&core.lease_db, known).await?;
    // A due operation that was not claimed waits for others of its lane or account to finish: `freed` wakes us.
    let least = if idle && next.is_some_and(|seconds| seconds <= 0.0) { 0.25 } else { 0.005 };
    Ok(next.map_or(POLL, |seconds| Duration::from_secs_f64(seconds.clamp(least, POLL.as_secs_f64()))))
}
