//! SQL for operations. Only the database's clock counts: workers' clocks may differ.

mod claim;
mod held;
mod lanes;
mod views;

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use sqlx::postgres::types::PgInterval;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::model::OperationState;
use crate::ids::{AccountId, UserId};
use crate::subjects::Subject;

pub(super) use claim::{Claimed, KnownWorkflows, SlotLimits, claim, next_due, queue_waiting, release, renew};
pub(super) use held::{abandon, mark_all_stuck};
pub(super) use lanes::{add_lane, lane_checked, remove_lane, set_lane};
pub use views::LogLine;
pub(super) use views::{OperationRow, active, by_ids, count_stuck, current, get, hand_over, list, log_lines, stuck};

type Result<T> = sqlx::Result<T>;

/// What a worker saves after a step.
#[derive(Debug)]
pub(super) struct StepUpdate<'a> {
    pub state: OperationState,
    pub undoing: bool,
    pub step_index: i32,
    pub step: &'a str,
    pub data: &'a Value,
    /// The version of the workflow's data.
    pub version: i32,
    pub attempts: i32,
    pub progress: i16,
    pub error: Option<(&'a str, &'a str, Option<&'a str>)>,
    pub host_task: Option<&'a str>,
    /// Releases the lease, to be claimed again after this long.
    pub release: Option<Duration>,
    /// A new deadline from now.
    pub deadline: Option<Duration>,
    /// Whether watchers can see a difference.
    pub visible: bool,
}

fn interval(duration: Duration) -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX) }
}

/// A new operation, as a row.
#[derive(Debug)]
pub(super) struct NewRow {
    pub id: Uuid,
    pub subject: Subject,
    pub lane: String,
    pub account: Option<AccountId>,
    pub kind: &'static str,
    pub step: &'static str,
    pub data: Value,
    /// The version of the workflow's data.
    pub version: i32,
    pub user: Option<UserId>,
    pub deadline: Duration,
}

/// Inserts an operation; false if another one holds the subject, or waits for it.
pub(super) async fn insert(tx: &mut PgConnection, new: &NewRow) -> Result<bool> {
    let row = sqlx::query!(
        "with new as (
             insert into operations (id, subject_kind, subject_id, lane, account_id, kind, state, step, data, user_id,
                                     deadline, data_version)
             select $1, $2, $3, $4, $5, $6, 'queued', $7, $8, $9, now() + $10, $11
             where not exists (
                 select from operations where subject_kind = $2 and subject_id = $3 and state = 'waiting')
             on conflict (subject_kind, subject_id) where state in ('queued', 'running', 'undoing', 'stuck') do nothing
             returning id)
         select pg_notify('operation_due', ''), pg_notify('operation_changed', id::text) from new",
        new.id,
        new.subject.kind,
        new.subject.id,
        new.lane,
        new.account.map(|id| id.0),
        new.kind,
        new.step,
        new.data,
        new.user.map(|u| u.0),
        interval(new.deadline),
        new.version
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.is_some())
}

/// Inserts an operation that waits for the one holding its subject; false if another already waits. `why` is for users.
pub(super) async fn insert_waiting(tx: &mut PgConnection, new: &NewRow, why: &str) -> Result<bool> {
    // Due at once: if the running operation ends before we commit, no one else knows that this one is next.
    let row = sqlx::query!(
        "with new as (
             insert into operations (id, subject_kind, subject_id, lane, account_id, kind, state, step, data, user_id,
                                     deadline, data_version, error_code, error_message)
             values ($1, $2, $3, $4, $5, $6, 'waiting', $7, $8, $9, now() + $10, $11, 'LOCKED', $12)
             on conflict (subject_kind, subject_id) where state = 'waiting' do nothing
             returning id)
         select pg_notify('operation_due', ''), pg_notify('operation_changed', id::text) from new",
        new.id,
        new.subject.kind,
        new.subject.id,
        new.lane,
        new.account.map(|id| id.0),
        new.kind,
        new.step,
        new.data,
        new.user.map(|u| u.0),
        interval(new.deadline),
        new.version,
        why
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.is_some())
}

/// An operation that blocks another one.
#[derive(Debug)]
pub(super) struct BlockingOperation {
    pub id: Uuid,
    pub kind: String,
    pub state: OperationState,
}

/// The operation that blocks a subject: the one that holds it, or the one that will hold it next.
pub(super) async fn blocking(db: &mut PgConnection, subject: &Subject) -> Result<Option<BlockingOperation>> {
    sqlx::query_as!(
        BlockingOperation,
        r#"select id, kind, state as "state: OperationState" from operations
           where subject_kind = $1 and subject_id = $2
             and state in ('queued', 'running', 'undoing', 'stuck', 'waiting')
           order by state = 'waiting' limit 1"#,
        subject.kind,
        subject.id
    )
    .fetch_optional(db)
    .await
}

/// The operation that is waiting for a subject.
pub(super) async fn waiting(db: &mut PgConnection, subject: &Subject) -> Result<Option<BlockingOperation>> {
    sqlx::query_as!(
        BlockingOperation,
        r#"select id, kind, state as "state: OperationState" from operations
           where subject_kind = $1 and subject_id = $2 and state = 'waiting'"#,
        subject.kind,
        subject.id
    )
    .fetch_optional(db)
    .await
}

/// Ends a waiting operation because another one replaces it; false if it no longer waits.
pub(super) async fn replace(tx: &mut PgConnection, id: Uuid, why: &str) -> Result<bool> {
    let done = sqlx::query!(
        "update operations set state = 'failed', data = 'null', error_code = 'CONFLICT', error_message = $2,
             ended_at = now(), updated_at = now()
         where id = $1 and state = 'waiting'",
        id,
        why
    )
    .execute(&mut *tx)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    changed(tx, id).await?;
    Ok(true)
}

/// Locks the row for a step's own transaction; false if the fencing token is stale.
pub(super) async fn hold(tx: &mut PgConnection, id: Uuid, fence: i64) -> Result<bool> {
    let row = sqlx::query_scalar!("select id from operations where id = $1 and fence = $2 for update", id, fence)
        .fetch_optional(tx)
        .await?;
    Ok(row.is_some())
}

/// Saves the outcome of a step; false if the fencing token is stale, and then nothing is written.
pub(super) async fn save(tx: &mut PgConnection, id: Uuid, fence: i64, save: &StepUpdate<'_>) -> Result<bool> {
    let (code, message, detail) = save.error.map_or((None, None, None), |(c, m, d)| (Some(c), Some(m), d));
    let state = text(&save.state);
    let done = sqlx::query!(
        "update operations set
             state = $3, undoing = $4, step_index = $5, step = $6, data = $7, attempts = $8,
             progress = greatest(progress, $9), error_code = $10, error_message = $11, error_detail = $12,
             host_task = $13,
             deadline = coalesce(now() + $14::interval, deadline),
             lease_owner = case when $15::interval is null then lease_owner end,
             lease_until = case when $15::interval is null then lease_until end,
             run_at = coalesce(now() + $15::interval, run_at),
             ended_at = case when $3 in ('succeeded', 'failed') then now() end,
             data_version = $16,
             updated_at = now()
         where id = $1 and fence = $2",
        id,
        fence,
        state,
        save.undoing,
        save.step_index,
        save.step,
        save.data,
        save.attempts,
        save.progress,
        code,
        message,
        detail,
        save.host_task,
        save.deadline.map(interval),
        save.release.map(interval),
        save.version
    )
    .execute(&mut *tx)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    if save.state == OperationState::Stuck {
        mark_waiting_blocked(tx, id).await?;
    }
    if save.visible {
        changed(tx, id).await?;
    }
    Ok(true)
}

/// An operation that waits behind one that has become stuck depends on the provider, and its message says so.
async fn mark_waiting_blocked(tx: &mut PgConnection, stuck: Uuid) -> Result<()> {
    sqlx::query!(
        "with told as (
             update operations o set error_message = $2, updated_at = now() from operations h
             where h.id = $1 and o.subject_kind = h.subject_kind and o.subject_id = h.subject_id
               and o.state = 'waiting' returning o.id)
         select pg_notify('operation_changed', id::text) from told",
        stuck,
        BEHIND_STUCK
    )
    .fetch_all(tx)
    .await
    .map(drop)
}

/// Message of an operation that waits behind a stuck one.
pub(super) const BEHIND_STUCK: &str =
    "Waiting for another operation, which is stuck: the provider must resolve that one first.";

async fn changed(tx: &mut PgConnection, id: Uuid) -> Result<()> {
    sqlx::query!("select pg_notify('operation_changed', $1)", id.to_string()).execute(tx).await.map(drop)
}

fn text(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(text)) => text,
        _ => String::new(),
    }
}

/// Adds a line to the operation's log.
pub(super) async fn log(tx: &mut PgConnection, id: Uuid, level: &str, step: &str, message: &str) -> Result<()> {
    sqlx::query!(
        "insert into operation_log (operation_id, level, step, message) values ($1, $2, $3, $4)",
        id,
        level,
        step,
        message
    )
    .execute(tx)
    .await
    .map(drop)
}

/// An operation's kind, and its step by name and by index.
pub(super) async fn current_step(tx: &mut PgConnection, id: Uuid) -> Result<Option<(String, String, i32)>> {
    let row = sqlx::query!("select kind, step, step_index from operations where id = $1 for update", id)
        .fetch_optional(tx)
        .await?;
    Ok(row.map(|r| (r.kind, r.step, r.step_index)))
}

/// Resumes a stuck operation at the step with this index; false if it is not stuck.
pub(super) async fn resume(
    tx: &mut PgConnection,
    id: Uuid,
    step_index: i32,
    forward: Duration,
    back: Duration,
) -> Result<bool> {
    let done = sqlx::query!(
        "update operations set state = case when undoing then 'undoing' else 'running' end, attempts = 0,
             run_at = now(), lease_owner = null, lease_until = null, updated_at = now(), step_index = $4,
             deadline = now() + case when undoing then $3::interval else $2::interval end
         where id = $1 and state = 'stuck'",
        id,
        interval(forward),
        interval(back),
        step_index
    )
    .execute(&mut *tx)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query!("select pg_notify('operation_due', '')").execute(&mut *tx).await?;
    changed(tx, id).await?;
    Ok(true)
}

/// Marks operations stuck that no one has claimed for `since` and that are not among the `known`; returns them.
pub(super) async fn mark_unknown_stuck(
    tx: &mut PgConnection,
    known: &KnownWorkflows,
    since: Duration,
    code: &str,
    message: &str,
    detail: &str,
) -> Result<Vec<(Uuid, String)>> {
    let rows = sqlx::query!(
        r#"with stranded as (
               update operations o set state = 'stuck', error_code = $4, error_message = coalesce(o.error_message, $5),
                   error_detail = $6, updated_at = now()
               where o.state in ('queued', 'running', 'undoing') and o.run_at < now() - $3::interval
                 and (o.lease_until is null or o.lease_until < now() - $3::interval)
                 and not exists (select from unnest($1::text[], $2::integer[]) as known (kind, version)
                                 where known.kind = o.kind and o.data_version <= known.version)
               returning o.id, o.kind)
           select id, kind, pg_notify('operation_changed', id::text)::text as told from stranded"#,
        &known.kinds,
        &known.versions,
        interval(since),
        code,
        message,
        detail
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|r| (r.id, r.kind)).collect())
}

/// The ids of operations that have not ended, and so may hold secrets.
pub(super) async fn unfinished_ids(db: &PgPool) -> Result<Vec<Uuid>> {
    sqlx::query_scalar!("select id from operations where state not in ('succeeded', 'failed') order by id")
        .fetch_all(db)
        .await
}

/// An operation's kind and data, locked, and whether a worker is running it.
pub(super) async fn data(tx: &mut PgConnection, id: Uuid) -> Result<Option<(String, Value, bool)>> {
    let row = sqlx::query!(
        r#"select kind, data, coalesce(lease_until > now(), false) as "leased!" from operations
           where id = $1 and state not in ('succeeded', 'failed') for update"#,
        id
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|r| (r.kind, r.data, r.leased)))
}

/// Stores the same data, sealed with another key, in an operation that is locked and not being run.
pub(super) async fn set_data(tx: &mut PgConnection, id: Uuid, data: &Value) -> Result<()> {
    sqlx::query!("update operations set data = $2 where id = $1", id, data).execute(tx).await.map(drop)
}

/// Deletes log lines of operations that ended over a year ago. The operations stay: they are their subjects' history.
pub(super) async fn purge_log(db: &PgPool) -> Result<()> {
    sqlx::query!(
        "delete from operation_log where at < aged_to() - interval '1 year'
             and operation_id in (select id from operations where ended_at < aged_to() - interval '1 year')"
    )
    .execute(db)
    .await
    .map(drop)
}
