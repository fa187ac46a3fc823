//! The SQL of whose turn it is: claims, leases, and what waits.

use std::time::Duration;

use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use super::{Result, interval};
use crate::ids::ServerId;

/// A claimed operation.
#[derive(Debug, Clone)]
pub(in crate::operations) struct Claimed {
    pub id: Uuid,
    pub server: ServerId,
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

/// The workflows of a process: their kinds, and the newest version of each one's data that it knows.
#[derive(Debug, Clone)]
pub(in crate::operations) struct KnownWorkflows {
    pub kinds: Vec<String>,
    pub versions: Vec<i32>,
}

/// Has operations that wait take their turn where nothing holds their server any more; their time begins now.
pub(in crate::operations) async fn queue_waiting(db: &PgPool) -> Result<()> {
    let done = sqlx::query!(
        "with next as (
             update operations o set state = 'queued', error_code = null, error_message = null, run_at = now(),
                 deadline = now() + (o.deadline - o.created_at), updated_at = now()
             where o.state = 'waiting' and not exists (
                 select from operations h
                 where h.server_id = o.server_id and h.state in ('queued', 'running', 'undoing', 'stuck'))
             returning o.id)
         select pg_notify('operation_changed', id::text) from next"
    )
    .fetch_all(db)
    .await;
    match done {
        // Somebody was faster with a server that was free for a moment: its turn comes after that.
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(()),
        done => done.map(drop),
    }
}

/// How many operations a worker may hold.
#[derive(Debug, Clone, Copy)]
pub(in crate::operations) struct SlotLimits {
    /// More than it has now.
    pub free: i64,
    /// Of any one host: one that hangs must not hold every hand.
    pub host: i64,
    /// Of any one account on a host: neither must its guests.
    pub account: i64,
}

/// Claims operations of what is `known` that are due and that nobody holds, so that this worker holds no more than its
/// shares. Accounts take turns: first those with the fewest at work on a host, then the oldest. What is due, or held, for
/// hours from now was noted when the clock was wrong; one that should have ended hours ago was, too, or nobody was there
/// to work on it: its time begins anew.
/// None from a database that is not the one `beats` are of, or is behind them; and none from before a time in which nobody
/// was alive whose host was not swept since (`restores`).
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
               select s.host_id, s.user_id, count(*) as n from operations o join servers s on s.id = o.server_id
               where o.lease_owner = $1 and o.lease_until >= now() and o.state in ('queued', 'running', 'undoing')
               group by s.host_id, s.user_id),
           on_host as (select host_id, sum(n)::bigint as n from held group by host_id),
           candidates as (
               select o.id, o.run_at, s.host_id, coalesce(on_host.n, 0) as on_host,
                      row_number() over (partition by s.host_id, s.user_id order by o.run_at) + coalesce(held.n, 0)
                          as of_account
               from operations o join servers s on s.id = o.server_id
               left join held on held.host_id = s.host_id and held.user_id = s.user_id
               left join on_host on on_host.host_id = s.host_id
               where o.state in ('queued', 'running', 'undoing')
                 and exists (select from unnest($3::text[], $7::integer[]) as known (kind, version)
                             where known.kind = o.kind and o.data_version <= known.version)
                 and (o.run_at <= now() or o.run_at > now() + interval '2 hours')
                 and (o.lease_until is null or o.lease_until < now() or o.lease_until > now() + interval '2 hours' + $2)
                 and exists (select from installation i where i.id = $8 and i.beats >= $9
                             and (i.silent_to is null or i.silent_to > now() + interval '2 hours'
                                  or o.created_at > i.silent_to
                                  or exists (select from hosts h
                                             where h.id = s.host_id and h.guests_known_at > i.silent_to)))),
           fair as (
               select id, run_at, of_account,
                      row_number() over (partition by host_id order by of_account, run_at) + on_host as of_host
               from candidates where of_account <= $6),
           due as (
               select o.id from operations o
               where o.id in (select id from fair where of_host <= $5 order by of_account, run_at limit $4)
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
           returning o.id, o.server_id as "server: ServerId", o.kind, o.undoing, o.step_index, o.step, o.data, o.attempts,
               o.progress, o.error_code, o.error_message, o.error_detail, o.host_task, o.fence,
               extract(epoch from o.deadline - now())::float8 as "seconds_left!""#,
        owner,
        interval(lease),
        &known.kinds,
        shares.free,
        shares.host,
        shares.account,
        &known.versions,
        beats.0,
        beats.1
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

/// Prolongs a lease; false when somebody else has claimed the operation since. One that was given back with what was
/// saved stays given back: whoever saved it may not have heard of that yet, and is not to be disturbed.
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

/// Gives a lease back at once, for any process to go on.
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
