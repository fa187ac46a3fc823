//! The SQL of whose turn it is: claims, leases, and what waits.

use std::time::Duration;

use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use super::{Result, interval};
use crate::subjects::Subject;

/// A claimed operation.
#[derive(Debug, Clone)]
pub(in crate::operations) struct Claimed {
    pub id: Uuid,
    pub subject_kind: String,
    pub subject_id: String,
    pub kind: String,
    pub undoing: bool,
    pub step_index: i32,
    pub step: String,
    pub data: Value,
    pub attempts: i32,
    pub progress: i16,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    pub error_detail: Option<String>,
    pub host_task: Option<String>,
    pub fence: i64,
    /// Seconds until its deadline when it was claimed.
    pub seconds_left: f64,
}

impl Claimed {
    /// What it works on.
    pub(in crate::operations) fn subject(&self) -> Subject {
        Subject { kind: self.subject_kind.clone(), id: self.subject_id.clone() }
    }
}

/// The workflows of a process: their kinds, and the newest version of each one's data that it knows.
#[derive(Debug, Clone)]
pub(in crate::operations) struct KnownWorkflows {
    pub kinds: Vec<String>,
    pub versions: Vec<i32>,
}

/// Queues operations that wait where nothing holds their subject any more; their deadline starts now.
pub(in crate::operations) async fn queue_waiting(db: &PgPool) -> Result<()> {
    let done = sqlx::query!(
        "with next as (
             update operations o set state = 'queued', error_code = null, error_message = null, run_at = now(),
                 deadline = now() + (o.deadline - o.created_at), updated_at = now()
             where o.state = 'waiting' and not exists (
                 select from operations h
                 where h.subject_kind = o.subject_kind and h.subject_id = o.subject_id
                   and h.state in ('queued', 'running', 'undoing', 'stuck'))
             returning o.id)
         select pg_notify('operation_changed', id::text) from next"
    )
    .fetch_all(db)
    .await;
    match done {
        // Another one was enqueued while the subject was free for a moment: its turn comes after that.
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(()),
        done => done.map(drop),
    }
}

/// How many operations a worker may hold.
#[derive(Debug, Clone, Copy)]
pub(in crate::operations) struct SlotLimits {
    /// In addition to those that it has now.
    pub free: i64,
    /// Of any one lane: a host that hangs must not take every slot.
    pub lane: i64,
    /// Of any one account in a lane: neither must its guests.
    pub account: i64,
    /// Of any one account in all lanes together: nor those that it has everywhere. The provider's own are not limited.
    pub account_in_all: i64,
}

/// Claims `known` operations that are due and not held, within this worker's limits. Accounts take turns: first those
/// with the fewest running in a lane, then the oldest. What is due, or held, hours from now was recorded when the clock
/// was wrong. So was a deadline that passed hours ago, unless no process was running: it is extended. Claims nothing
/// from a database that is another one than `beats` was read from, or is behind it; and nothing from before a time in
/// which no process ran, until its lane was checked (`restores`).
pub(in crate::operations) async fn claim(
    db: &PgPool,
    owner: Uuid,
    lease: Duration,
    known: &KnownWorkflows,
    shares: SlotLimits,
    beats: (Uuid, i64),
) -> Result<Vec<Claimed>> {
    sqlx::query_as!(
        Claimed,
        r#"with held as (
               select lane, account_id, count(*) as n from operations
               where lease_owner = $1 and lease_until >= now() and state in ('queued', 'running', 'undoing')
               group by lane, account_id),
           in_lane as (select lane, sum(n)::bigint as n from held group by lane),
           mine as (
               select account_id, sum(n)::bigint as n from held where account_id is not null group by account_id),
           candidates as (
               select o.id, o.run_at, o.lane, o.account_id, coalesce(in_lane.n, 0) as in_lane,
                      coalesce(mine.n, 0) as in_all,
                      row_number() over (partition by o.lane, o.account_id order by o.run_at) + coalesce(held.n, 0)
                          as of_account
               from operations o
               left join held on held.lane = o.lane and held.account_id is not distinct from o.account_id
               left join in_lane on in_lane.lane = o.lane
               left join mine on mine.account_id = o.account_id
               where o.state in ('queued', 'running', 'undoing')
                 and exists (select from unnest($3::text[], $7::integer[]) as known (kind, version)
                             where known.kind = o.kind and o.data_version <= known.version)
                 and (o.run_at <= now() or o.run_at > now() + interval '2 hours')
                 and (o.lease_until is null or o.lease_until < now() or o.lease_until > now() + interval '2 hours' + $2)
                 and exists (select from installation i where i.id = $8 and i.beats >= $9
                             and (i.silent_to is null or i.silent_to > now() + interval '2 hours'
                                  or o.created_at > i.silent_to
                                  or not exists (select from operation_lanes l where l.lane = o.lane
                                                 and (l.checked_at is null or l.checked_at <= i.silent_to))))),
           fair as (
               select id, run_at, account_id, of_account, in_all,
                      row_number() over (partition by lane order by of_account, run_at) + in_lane as of_lane
               from candidates where of_account <= $6 and in_all < $10),
           turns as (
               select id, run_at, account_id, of_account,
                      row_number() over (partition by account_id order by of_account, run_at) + in_all as of_all
               from fair where of_lane <= $5),
           due as (
               select o.id from operations o
               where o.id in (select id from turns where account_id is null or of_all <= $10
                              order by of_account, run_at limit $4)
                 and o.state in ('queued', 'running', 'undoing')
                 and (o.lease_until is null or o.lease_until < now() or o.lease_until > now() + interval '2 hours' + $2)
               for update skip locked)
           update operations o set
               state = case when o.state = 'queued' then 'running' else o.state end,
               started_at = coalesce(o.started_at, now()),
               deadline = case when o.deadline < now() - interval '2 hours' then now() + (o.deadline - o.created_at)
                               else o.deadline end,
               lease_owner = $1, lease_until = now() + $2, fence = o.fence + 1, updated_at = now()
           from due where o.id = due.id
           returning o.id, o.subject_kind, o.subject_id, o.kind, o.undoing, o.step_index, o.step, o.data, o.attempts,
               o.progress, o.error_code, o.error_message, o.error_detail, o.host_task, o.fence,
               extract(epoch from o.deadline - now())::float8 as "seconds_left!""#,
        owner,
        interval(lease),
        &known.kinds,
        shares.free,
        shares.lane,
        shares.account,
        &known.versions,
        beats.0,
        beats.1,
        shares.account_in_all
    )
    .fetch_all(db)
    .await
}

/// Seconds until something is due that nobody holds or whose lease ends, if there is anything.
pub(in crate::operations) async fn next_due(db: &PgPool, known: &KnownWorkflows) -> Result<Option<f64>> {
    sqlx::query_scalar!(
        r#"select extract(epoch from min(greatest(run_at, coalesce(lease_until, run_at))) - now())::float8
           from operations o where state in ('queued', 'running', 'undoing')
             and exists (select from unnest($1::text[], $2::integer[]) as known (kind, version)
                         where known.kind = o.kind and o.data_version <= known.version)"#,
        &known.kinds,
        &known.versions
    )
    .fetch_one(db)
    .await
}

/// Renews a lease; false if another worker has claimed the operation since. One that was released with a save stays
/// released: the worker that saved may not know yet, and must not be interrupted.
pub(in crate::operations) async fn renew(db: &PgPool, id: Uuid, fence: i64, lease: Duration) -> Result<bool> {
    let done = sqlx::query!(
        "update operations set lease_until = case when lease_owner is not null then now() + $3::interval end
         where id = $1 and fence = $2",
        id,
        fence,
        interval(lease)
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Releases a lease at once, so that any process can continue.
pub(in crate::operations) async fn release(db: &PgPool, id: Uuid, fence: i64) -> Result<()> {
    sqlx::query!(
        "with freed as (
             update operations set lease_until = null, lease_owner = null where id = $1 and fence = $2 returning id)
         select pg_notify('operation_due', '') from freed",
        id,
        fence
    )
    .fetch_optional(db)
    .await
    .map(drop)
}
