//! Reads, waits for and retries operations.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::model::{ListOperations, OperationState, OperationView};
use super::store;
pub use super::store::LogLine;
use super::{OPERATION_CHANGED, Operations};
use crate::auth::Caller;
use crate::core::Core;
use crate::db;
use crate::error::{Code, Error, Result};
use crate::idempotency::Once;
use crate::ids::AccountId;
use crate::keyring::SealCounts;
use crate::listing::{Place, Window, list_error};
use crate::secrets::SealedBy;
use crate::subjects::Subject;

/// One operation, without the provider's detail. The caller has checked access to its subject.
pub async fn view(core: &Core, id: Uuid) -> Result<Option<OperationView>> {
    Ok(store::get(&core.db, id).await?.map(|row| row.view(false)))
}

/// Several operations, likewise, in one query.
pub async fn views(core: &Core, ids: &[Uuid]) -> Result<Vec<OperationView>> {
    if ids.is_empty() {
        return Ok(vec![]);
    }
    Ok(store::by_ids(&core.db, ids).await?.into_iter().map(|row| row.view(false)).collect())
}

/// The operation that holds a subject now, likewise.
pub async fn active(core: &Core, subject: &Subject) -> Result<Option<OperationView>> {
    Ok(store::active(&core.db, subject).await?.map(|row| row.view(false)))
}

/// The operations that hold these subjects of one kind, by the subjects' ids; where there is none, the one that waits.
/// The caller has access to the subjects.
pub async fn current(
    db: impl PgExecutor<'_>,
    caller: &Caller,
    kind: &str,
    ids: &[String],
) -> sqlx::Result<HashMap<String, OperationView>> {
    let mut current: HashMap<String, OperationView> = HashMap::new();
    for row in store::current(db, kind, ids).await? {
        if row.state != OperationState::Waiting || !current.contains_key(&row.subject_id) {
            current.insert(row.subject_id.clone(), row.view(caller.sees_everything()));
        }
    }
    Ok(current)
}

/// A part of a subject's operations, newest first, and the total count. The caller has access to the subject.
pub async fn of_subject(
    core: &Core,
    caller: &Caller,
    subject: &Subject,
    after: Option<Place<Uuid>>,
    window: Window,
) -> Result<(Vec<OperationView>, i64)> {
    let query = ListOperations { subject: Some(subject.to_string()), after, ..ListOperations::default() };
    listed(core, caller, None, None, &query, window).await
}

/// The operations that the caller may see, newest first, or those in the window, and the total number of matches.
pub async fn list(
    core: &Core,
    caller: &Caller,
    query: &ListOperations,
    window: Window,
) -> Result<(Vec<OperationView>, i64)> {
    if (query.lane.is_some() || query.account_id.is_some()) && !caller.sees_everything() {
        return Err(Error::new(Code::Forbidden, "Only the provider can filter by lane and account."));
    }
    let only: Option<Vec<String>> =
        caller.scopes.subjects().map(|subjects| subjects.iter().map(ToString::to_string).collect());
    listed(core, caller, caller.only_account(), only.as_deref(), query, window).await
}

async fn listed(
    core: &Core,
    caller: &Caller,
    whose: Option<AccountId>,
    only: Option<&[String]>,
    query: &ListOperations,
    window: Window,
) -> Result<(Vec<OperationView>, i64)> {
    window.check()?;
    let _turn = core.turns.take(caller.account).await?;
    let (rows, total) = store::list(&core.db, whose, only, query, window).await.map_err(list_error)?;
    Ok((rows.into_iter().map(|row| row.view(caller.sees_everything())).collect(), total))
}

/// Gives a subject's operations to the account that owns it now.
pub async fn hand_over(tx: &mut PgConnection, subject: &Subject, to: AccountId) -> Result<()> {
    Ok(store::hand_over(tx, subject, to).await?)
}

/// The last thousand lines of an operation's log, for the provider.
pub async fn log(core: &Core, id: Uuid) -> Result<Vec<LogLine>> {
    store::get(&core.db, id).await?.ok_or_else(|| Error::not_found("operation"))?;
    Ok(store::log_lines(&core.db, id).await?)
}

/// Stuck operations, oldest first, and the total count.
pub async fn stuck(core: &Core, window: Window) -> Result<(Vec<OperationView>, i64)> {
    let rows = store::stuck(&core.db, window.limit, window.offset).await?;
    Ok((rows.into_iter().map(|row| row.view(true)).collect(), store::count_stuck(&core.db).await?))
}

/// Resumes a stuck operation where it stopped, after the provider has fixed what blocked it.
pub async fn retry(operations: &Operations, once: &Once, id: Uuid) -> Result<OperationView> {
    let core = &operations.core;
    once.run(core, async |tx| {
        let deadline = Duration::from_secs(core.config.operation_deadline_seconds.into());
        let (kind, step, place) = store::current_step(tx, id).await?.ok_or_else(|| Error::not_found("operation"))?;
        // If another version had its steps in other places, the retry confirms that it may continue at the one of the
        // same name.
        let here = operations.workflow(&kind).and_then(|w| w.steps().iter().position(|name| *name == step));
        let place = here.and_then(|index| i32::try_from(index).ok()).unwrap_or(place);
        let taken_up = store::resume(tx, id, place, deadline, core.engine.undo_deadline).await?;
        let row = store::get(&mut *tx, id).await?.ok_or_else(|| Error::not_found("operation"))?;
        if !taken_up {
            return Err(Error::new(Code::Conflict, "Only a stuck operation can be retried."));
        }
        store::log(tx, id, "info", "", "retried by the provider").await?;
        Ok(row.view(true))
    })
    .await
}

/// Ends a stuck operation as it is: nothing more is done, and nothing is undone.
pub async fn abandon(operations: &Operations, once: &Once, id: Uuid) -> Result<OperationView> {
    let core = &operations.core;
    once.run(core, async |tx| {
        let unknown = || Error::not_found("operation");
        let subject = store::get(&mut *tx, id).await?.ok_or_else(unknown)?.subject();
        // The subject before its operation, as everywhere.
        core.subjects().kind(&subject.kind)?.abandoned(tx, &subject.id).await?;
        if !store::abandon(tx, id).await? {
            return Err(Error::new(Code::Conflict, "Only a stuck operation can be abandoned."));
        }
        store::log(tx, id, "info", "", "abandoned by the provider").await?;
        let row = store::get(&mut *tx, id).await?.ok_or_else(unknown)?;
        Ok(row.view(true))
    })
    .await
}

/// Marks everything in progress as stuck: the database was restored to an older state, from the time `to`.
pub async fn mark_all_stuck(tx: &mut PgConnection, to: Option<DateTime<Utc>>) -> Result<u64> {
    let to =
        to.map_or_else(|| "of an unknown time".to_owned(), |at| format!("of {}", at.format("%Y-%m-%d %H:%M:%S UTC")));
    let message = "The provider's database was restored from a backup while this was in progress. It waits until the \
                   provider has checked what was done.";
    let detail = format!(
        "The database was restored to its state {to}. It does not know what was done since then, by this operation or \
         others. Check the guest; then retry the operation (innkeeper operation retry) or abandon it (innkeeper \
         operation abandon)."
    );
    Ok(store::mark_all_stuck(tx, message, &detail).await?)
}

/// State of an operation after a short wait for it.
#[derive(Debug)]
pub struct WaitedOperation {
    /// The operation as the API shows it.
    pub view: OperationView,
    /// The host's id of its latest task.
    pub host_task: Option<String>,
}

/// Waits until `enough` returns true, or until `at_most` has passed, and returns the operation's state at that time.
pub async fn wait(
    core: &Core,
    id: Uuid,
    at_most: Duration,
    enough: impl Fn(&WaitedOperation) -> bool,
) -> Result<WaitedOperation> {
    let mut events = core.events.subscribe();
    let until = tokio::time::Instant::now() + at_most;
    loop {
        let row = store::get(&core.db, id).await?.ok_or_else(|| Error::not_found("operation"))?;
        let progress = WaitedOperation { host_task: row.host_task.clone(), view: row.view(false) };
        if enough(&progress) {
            return Ok(progress);
        }
        let changed = async { while events.next_of(&OPERATION_CHANGED).await.is_some_and(|changed| changed != id) {} };
        // The poll is for a process that can't receive events at the moment.
        let poll = tokio::time::sleep(Duration::from_millis(500));
        tokio::select! {
            () = changed => {}
            () = poll => {}
            () = tokio::time::sleep_until(until) => return Ok(progress),
        }
    }
}

/// How long an operation that this version does not know is left to other processes.
const STRANDED: Duration = Duration::from_mins(10);

/// Marks operations stuck that no process claims because this version does not know their kind or data: a newer version
/// started them. They hold their subjects.
pub async fn mark_unknown_stuck(operations: &Operations) -> Result<()> {
    let core = &operations.core;
    let mut tx = db::begin(&core.db).await?;
    let detail = "no process of a version that knows this kind of operation has claimed it for ten minutes: start the \
                  version that started it, then retry";
    let message = "No one is working on this; the provider has been notified.";
    let known = operations.known();
    let stranded =
        store::mark_unknown_stuck(&mut tx, &known, STRANDED, Code::Internal.as_str(), message, detail).await?;
    for (id, _) in &stranded {
        store::log(&mut tx, *id, "error", "", detail).await?;
    }
    tx.commit().await?;
    for (id, kind) in stranded {
        metrics::counter!("innkeeper_operations_total", "kind" => kind.clone(), "state" => "stuck").increment(1);
        tracing::error!(operation = %id, kind, detail, "operation is stuck; manual intervention is required");
    }
    Ok(())
}

/// Reseals secrets in operations' data that an old key sealed, using the master key. Operations that a worker is
/// running are left alone: it would write the old data back.
pub async fn reseal(operations: &Operations, change: bool) -> Result<SealCounts> {
    let core = &operations.core;
    let mut count = SealCounts::default();
    for id in store::unfinished_ids(&core.db).await? {
        let mut tx = db::begin(&core.db).await?;
        let Some((kind, mut data, leased)) = store::data(&mut tx, id).await? else { continue };
        let Some(workflow) = operations.workflow(&kind) else { continue };
        // What this version can't read it can't reseal either; such an operation is stuck, or belongs to a newer
        // version.
        let Ok(secrets) = workflow.reseal(&core.sealer, &mut data) else { continue };
        let done = change && !leased && secrets.iter().any(|by| matches!(by, SealedBy::Old(_)));
        if done {
            store::set_data(&mut tx, id, &data).await?;
        }
        tx.commit().await?;
        for by in &secrets {
            count.add(by, done);
        }
    }
    Ok(count)
}

/// Adds a lane whose state may change while no process runs, as a host's does: after such a time its operations wait
/// until [`lane_checked`] is called for it. A lane that was not added is never waited for, so this belongs into the
/// transaction that adds the host.
pub async fn add_lane(db: impl PgExecutor<'_>, lane: &str) -> Result<()> {
    Ok(store::add_lane(db, lane).await?)
}

/// Removes such a lane.
pub async fn remove_lane(db: impl PgExecutor<'_>, lane: &str) -> Result<()> {
    Ok(store::remove_lane(db, lane).await?)
}

/// Records that a lane's state is known as of `at`.
pub async fn lane_checked(db: impl PgExecutor<'_>, lane: &str, at: DateTime<Utc>) -> Result<()> {
    Ok(store::lane_checked(db, lane, at).await?)
}

/// Deletes log lines of operations that ended over a year ago.
pub async fn purge(core: &Core) -> Result<()> {
    Ok(store::purge_log(&core.db).await?)
}
