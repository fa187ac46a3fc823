//! The SQL of operations. The database's clock is the only one: workers' clocks may differ.

mod held;

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::postgres::types::PgInterval;
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::model::{OperationError, OperationView, State};
use crate::http::page::COUNTED;
use crate::ids::{ServerId, UserId};

pub(super) use held::{abandon, hold_all};

type Result<T> = sqlx::Result<T>;

/// A claimed operation.
#[derive(Debug, Clone)]
pub(super) struct Claimed {
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

/// What a worker writes after a step.
#[derive(Debug)]
pub(super) struct Save<'a> {
    pub state: State,
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
    /// Give the lease back, to be claimed again after this long.
    pub release: Option<Duration>,
    /// A new deadline from now.
    pub deadline: Option<Duration>,
    /// Whether watchers can see a difference.
    pub visible: bool,
}

fn interval(duration: Duration) -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX) }
}

/// An operation to be, as a row.
#[derive(Debug)]
pub(super) struct NewRow {
    pub id: Uuid,
    pub server: ServerId,
    pub kind: &'static str,
    pub step: &'static str,
    pub data: Value,
    /// The version of the workflow's data.
    pub version: i32,
    pub user: Option<UserId>,
    pub deadline: Duration,
}

/// Puts an operation in; false where another holds the server, or waits for it.
pub(super) async fn insert(tx: &mut PgConnection, new: &NewRow) -> Result<bool> {
    let row = sqlx::query!(
        "with new as (
             insert into operations (id, server_id, kind, state, step, data, user_id, deadline, data_version)
             select $1, $2, $3, 'queued', $4, $5, $6, now() + $7, $8
             where not exists (select from operations where server_id = $2 and state = 'waiting')
             on conflict (server_id) where state in ('queued', 'running', 'undoing', 'stuck') do nothing
             returning id)
         select pg_notify('operation_due', ''), pg_notify('operation_changed', id::text) from new",
        new.id,
        new.server.0,
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

/// Puts an operation in behind the one that holds its server; false where another waits already. `why` is for people.
pub(super) async fn insert_waiting(tx: &mut PgConnection, new: &NewRow, why: &str) -> Result<bool> {
    // Due at once, since nobody but us may know by the time of our commit that the one at work has ended.
    let row = sqlx::query!(
        "with new as (
             insert into operations (id, server_id, kind, state, step, data, user_id, deadline, data_version, error_code,
                                     error_message)
             values ($1, $2, $3, 'waiting', $4, $5, $6, now() + $7, $8, 'LOCKED', $9)
             on conflict (server_id) where state = 'waiting' do nothing
             returning id)
         select pg_notify('operation_due', ''), pg_notify('operation_changed', id::text) from new",
        new.id,
        new.server.0,
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

/// An operation in the way of another.
#[derive(Debug)]
pub(super) struct InTheWay {
    pub id: Uuid,
    pub kind: String,
    pub state: State,
}

/// What keeps a server from other operations: the one that holds it, or the one that is to hold it next.
pub(super) async fn holder(db: &mut PgConnection, server: ServerId) -> Result<Option<InTheWay>> {
    sqlx::query_as!(
        InTheWay,
        r#"select id, kind, state as "state: State" from operations
           where server_id = $1 and state in ('queued', 'running', 'undoing', 'stuck', 'waiting')
           order by state = 'waiting' limit 1"#,
        server.0
    )
    .fetch_optional(db)
    .await
}

/// The workflows of a process: their kinds, and the newest version of each one's data that it knows.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub kinds: Vec<String>,
    pub versions: Vec<i32>,
}

/// The operation that waits for its turn on a server.
pub(super) async fn waiting(db: &mut PgConnection, server: ServerId) -> Result<Option<InTheWay>> {
    sqlx::query_as!(
        InTheWay,
        r#"select id, kind, state as "state: State" from operations where server_id = $1 and state = 'waiting'"#,
        server.0
    )
    .fetch_optional(db)
    .await
}

/// Ends an operation that waits, since another takes its place; false where its turn has come.
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

/// Has operations that wait take their turn where nothing holds their server any more; their time begins now.
pub(super) async fn next_turns(db: &PgPool) -> Result<()> {
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
pub(super) struct Shares {
    /// More than it has now.
    pub free: i64,
    /// Of any one host: one that hangs must not hold every hand.
    pub host: i64,
    /// Of any one account on a host: neither must its guests.
    pub account: i64,
}

/// Claims operations of what is `known` that are due and that nobody holds, so that this worker holds no more than its
/// shares. Accounts take turns: first those with the fewest at work on a host, then the oldest. What is due, or held, for
/// hours from now was noted when the clock was wrong.
/// None from a database that is not the one `beats` are of, or is behind them; and none from before a time in which nobody
/// was alive whose host was not swept since (`restores`).
pub(super) async fn claim(
    db: &PgPool,
    owner: Uuid,
    lease: Duration,
    known: &Known,
    shares: Shares,
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
                             and (i.silent_to is null or o.created_at > i.silent_to
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
pub(super) async fn next_due(db: &PgPool, known: &Known) -> Result<Option<f64>> {
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
pub(super) async fn renew(db: &PgPool, id: Uuid, fence: i64, lease: Duration) -> Result<bool> {
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

/// Locks the row for a step's own transaction; false when the fencing token is not the latest.
pub(super) async fn hold(tx: &mut PgConnection, id: Uuid, fence: i64) -> Result<bool> {
    let row = sqlx::query_scalar!("select id from operations where id = $1 and fence = $2 for update", id, fence)
        .fetch_optional(tx)
        .await?;
    Ok(row.is_some())
}

/// Writes what a step came to; false when the fencing token is not the latest, and then nothing is written.
pub(super) async fn save(tx: &mut PgConnection, id: Uuid, fence: i64, save: &Save<'_>) -> Result<bool> {
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
    if save.state == State::Stuck {
        tell_waiting(tx, id).await?;
    }
    if save.visible {
        changed(tx, id).await?;
    }
    Ok(true)
}

/// What waits behind an operation that has become stuck waits for a person, and says so.
async fn tell_waiting(tx: &mut PgConnection, stuck: Uuid) -> Result<()> {
    sqlx::query!(
        "with told as (
             update operations o set error_message = $2, updated_at = now() from operations h
             where h.id = $1 and o.server_id = h.server_id and o.state = 'waiting' returning o.id)
         select pg_notify('operation_changed', id::text) from told",
        stuck,
        BEHIND_STUCK
    )
    .fetch_all(tx)
    .await
    .map(drop)
}

/// What waits for the end of an operation that is stuck says this.
pub(super) const BEHIND_STUCK: &str =
    "It waits for another operation on this server, which is stuck: the provider must look at that one first.";

async fn changed(tx: &mut PgConnection, id: Uuid) -> Result<()> {
    sqlx::query!("select pg_notify('operation_changed', $1)", id.to_string()).execute(tx).await.map(drop)
}

fn text(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(text)) => text,
        _ => String::new(),
    }
}

/// Gives a lease back at once, for any process to go on.
pub(super) async fn release(db: &PgPool, id: Uuid, fence: i64) -> Result<()> {
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

/// A row as the API needs it.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub id: Uuid,
    pub server_id: ServerId,
    pub kind: String,
    pub state: State,
    pub progress: i16,
    pub step: String,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    pub error_detail: Option<String>,
    pub host_task: Option<String>,
    pub created_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub ended_at: Option<DateTime<Utc>>,
}

impl Row {
    /// For people; the host's own words only where `detail` says so.
    pub(super) fn view(self, detail: bool) -> OperationView {
        OperationView {
            id: self.id,
            server_id: self.server_id,
            kind: self.kind,
            state: self.state,
            progress: u8::try_from(self.progress).unwrap_or(0),
            step: self.step,
            error: self.error_code.map(|code| OperationError {
                code,
                message: self.error_message.unwrap_or_default(),
                detail: self.error_detail.filter(|_| detail),
            }),
            created_at: self.created_at,
            started_at: self.started_at,
            ended_at: self.ended_at,
        }
    }
}

pub(super) async fn get(db: impl PgExecutor<'_>, id: Uuid) -> Result<Option<Row>> {
    sqlx::query_as!(
        Row,
        r#"select id, server_id as "server_id: ServerId", kind, state as "state: State", progress, step, error_code,
                  error_message, error_detail, host_task, created_at, started_at, ended_at
           from operations where id = $1"#,
        id
    )
    .fetch_optional(db)
    .await
}

/// These operations, in any order.
pub(super) async fn some(db: &PgPool, ids: &[Uuid]) -> Result<Vec<Row>> {
    sqlx::query_as!(
        Row,
        r#"select id, server_id as "server_id: ServerId", kind, state as "state: State", progress, step, error_code,
                  error_message, error_detail, host_task, created_at, started_at, ended_at
           from operations where id = any($1)"#,
        ids
    )
    .fetch_all(db)
    .await
}

/// A server's operations, newest first.
pub(super) async fn of_server(db: &PgPool, server: ServerId, limit: i64, offset: i64) -> Result<Vec<Row>> {
    sqlx::query_as!(
        Row,
        r#"select id, server_id as "server_id: ServerId", kind, state as "state: State", progress, step, error_code,
                  error_message, error_detail, host_task, created_at, started_at, ended_at
           from operations where server_id = $1 order by created_at desc, id desc limit $2 offset $3"#,
        server.0,
        limit,
        offset
    )
    .fetch_all(db)
    .await
}

pub(super) async fn count_of_server(db: &PgPool, server: ServerId) -> Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "n!" from (select 1 from operations where server_id = $1 limit $2) counted"#,
        server.0,
        COUNTED
    )
    .fetch_one(db)
    .await
}

/// The operation that holds a server now.
pub(super) async fn active(db: &PgPool, server: ServerId) -> Result<Option<Row>> {
    sqlx::query_as!(
        Row,
        r#"select id, server_id as "server_id: ServerId", kind, state as "state: State", progress, step, error_code,
                  error_message, error_detail, host_task, created_at, started_at, ended_at
           from operations where server_id = $1 and state in ('queued', 'running', 'undoing', 'stuck')"#,
        server.0
    )
    .fetch_optional(db)
    .await
}

/// Operations that wait for a person, oldest first.
pub(super) async fn stuck(db: &PgPool, limit: i64, offset: i64) -> Result<Vec<Row>> {
    sqlx::query_as!(
        Row,
        r#"select id, server_id as "server_id: ServerId", kind, state as "state: State", progress, step, error_code,
                  error_message, error_detail, host_task, created_at, started_at, ended_at
           from operations where state = 'stuck' order by created_at, id limit $1 offset $2"#,
        limit,
        offset
    )
    .fetch_all(db)
    .await
}

pub(super) async fn count_stuck(db: &PgPool) -> Result<i64> {
    sqlx::query_scalar!(r#"select count(*) as "n!" from operations where state = 'stuck'"#).fetch_one(db).await
}

/// A line of an operation's log.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// When.
    pub at: DateTime<Utc>,
    /// `info`, `warn` or `error`.
    pub level: String,
    /// At which step.
    pub step: String,
    /// What happened.
    pub message: String,
}

/// The last of what an operation said: that says how it ended, or why it does not.
pub(super) async fn log_lines(db: &PgPool, id: Uuid) -> Result<Vec<LogLine>> {
    sqlx::query_as!(
        LogLine,
        r#"select at as "at!", level as "level!", step as "step!", message as "message!"
           from (select * from operation_log where operation_id = $1 order by id desc limit 1000) latest order by id"#,
        id
    )
    .fetch_all(db)
    .await
}

/// The kind of an operation, and its step by name and by place.
pub(super) async fn place(tx: &mut PgConnection, id: Uuid) -> Result<Option<(String, String, i32)>> {
    let row = sqlx::query!("select kind, step, step_index from operations where id = $1 for update", id)
        .fetch_optional(tx)
        .await?;
    Ok(row.map(|r| (r.kind, r.step, r.step_index)))
}

/// Takes a stuck operation up again at the step in this place; false when it is not stuck.
pub(super) async fn unstick(
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

/// Gives operations that nobody has taken for `since` to a person where they are none of what is `known`; says which.
pub(super) async fn strand(
    tx: &mut PgConnection,
    known: &Known,
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

/// The ids of operations that are not over, and so may hold secrets.
pub(super) async fn open_ids(db: &PgPool) -> Result<Vec<Uuid>> {
    sqlx::query_scalar!("select id from operations where state not in ('succeeded', 'failed') order by id")
        .fetch_all(db)
        .await
}

/// An operation's kind and data, locked, and whether somebody is at work with them.
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

/// Puts the same data, sealed with another key, in an operation that is locked and at rest.
pub(super) async fn set_data(tx: &mut PgConnection, id: Uuid, data: &Value) -> Result<()> {
    sqlx::query!("update operations set data = $2 where id = $1", id, data).execute(tx).await.map(drop)
}

/// Forgets what operations said a year ago. That they were there stays: it is their servers' history.
pub(super) async fn purge_log(db: &PgPool) -> Result<()> {
    sqlx::query!(
        "delete from operation_log where at < aged_to() - interval '1 year'
             and operation_id in (select id from operations where ended_at < aged_to() - interval '1 year')"
    )
    .execute(db)
    .await
    .map(drop)
}
