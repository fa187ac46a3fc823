//! The SQL of operations as they are looked at.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::{Result, text};
use crate::core::Core;
use crate::error;
use crate::http::owned::{Ownable, Ownership};
use crate::ids::AccountId;
use crate::listing::{COUNTED, Window};
use crate::operations::model::{ListOperations, OperationError, OperationState, OperationView};
use crate::subjects::{CONTRACT_KIND, Subject};

/// A row as the API needs it.
#[derive(Debug, Clone)]
pub(in crate::operations) struct OperationRow {
    pub id: Uuid,
    pub number: i64,
    pub subject_kind: String,
    pub subject_id: String,
    pub kind: String,
    pub state: OperationState,
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

impl OperationRow {
    /// What it is about.
    pub(in crate::operations) fn subject(&self) -> Subject {
        Subject { kind: self.subject_kind.clone(), id: self.subject_id.clone() }
    }

    /// For people; the host's own words only where `detail` says so.
    pub(in crate::operations) fn view(self, detail: bool) -> OperationView {
        let subject = Subject { kind: self.subject_kind, id: self.subject_id };
        OperationView {
            id: self.id,
            number: self.number,
            server_id: subject.number(CONTRACT_KIND),
            subject,
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

impl Ownable for OperationRow {
    const NAME: &'static str = "operation";

    type Id = Uuid;

    async fn find(core: &Core, id: Uuid) -> error::Result<Option<Self>> {
        Ok(get(&core.db, id).await?)
    }

    fn ownership(&self, _: &Core) -> Ownership {
        Ownership::About(self.subject())
    }
}

pub(in crate::operations) async fn get(db: impl PgExecutor<'_>, id: Uuid) -> Result<Option<OperationRow>> {
    sqlx::query_as!(
        OperationRow,
        r#"select id, number, subject_kind, subject_id, kind, state as "state: OperationState", progress, step,
                  error_code, error_message, error_detail, host_task, created_at, started_at, ended_at
           from operations where id = $1"#,
        id
    )
    .fetch_optional(db)
    .await
}

/// These operations, in any order.
pub(in crate::operations) async fn by_ids(db: &PgPool, ids: &[Uuid]) -> Result<Vec<OperationRow>> {
    sqlx::query_as!(
        OperationRow,
        r#"select id, number, subject_kind, subject_id, kind, state as "state: OperationState", progress, step,
                  error_code, error_message, error_detail, host_task, created_at, started_at, ended_at
           from operations where id = any($1)"#,
        ids
    )
    .fetch_all(db)
    .await
}

/// A part of the operations, newest first, and how many there are: of what an account owns, or everybody's, and on
/// these subjects only if there are any.
pub(in crate::operations) async fn list(
    db: &PgPool,
    account: Option<AccountId>,
    only: Option<&[String]>,
    query: &ListOperations,
    window: Window,
) -> Result<(Vec<OperationRow>, i64)> {
    let mut tx = crate::db::begin_list_query(db).await?;
    macro_rules! operations {
        ($run:ident, $query:ident, ($($of:tt)*), $what:literal, $rest:literal $(, $more:expr)*) => {
            sqlx::$query!(
                $($of)*
                "select " + $what + r#" from operations
                 where ($1::bigint is null or account_id = $1)
                   and ($2::text[] is null or subject_kind || ':' || subject_id = any($2))
                   and ($3::text is null or state = $3) and ($4::text is null or kind = $4)
                   and ($5::text is null or (subject_kind = split_part($5, ':', 1)
                                             and subject_id = substr($5, strpos($5, ':') + 1)))
                   and ($6::text is null or lane = $6) and ($7::bigint is null or account_id = $7)
                   and ($8::timestamptz is null or created_at >= $8)
                   and ($9::timestamptz is null or created_at < $9)"# + $rest,
                account.map(|id| id.0), only as _, query.state.map(|state| text(&state)), query.kind, query.subject,
                query.lane, query.account_id.map(|id| id.0), query.from, query.to
                $(, $more)*
            )
            .$run(&mut *tx)
            .await?
        };
    }
    let rows = operations!(
        fetch_all,
        query_as,
        (OperationRow,),
        r#"id, number, subject_kind, subject_id, kind, state as "state: OperationState", progress, step,
           error_code, error_message, error_detail, host_task, created_at, started_at, ended_at"#,
        " and ($12::timestamptz is null or (created_at, id) < ($12, $13))
          order by created_at desc, id desc limit $10 offset $11",
        window.limit,
        window.offset,
        query.after.map(|place| place.at),
        query.after.map(|place| place.id)
    );
    let total =
        operations!(fetch_one, query_scalar, (), r#"count(*) as "n!" from (select 1"#, " limit $10) counted", COUNTED);
    Ok((rows, total))
}

/// Gives a subject's operations to an account.
pub(in crate::operations) async fn hand_over(tx: &mut PgConnection, subject: &Subject, to: AccountId) -> Result<()> {
    sqlx::query!(
        "update operations set account_id = $3 where subject_kind = $1 and subject_id = $2",
        subject.kind,
        subject.id,
        to.0
    )
    .execute(tx)
    .await
    .map(drop)
}

/// The operations that hold these subjects of one kind, and those that wait for them.
pub(in crate::operations) async fn current(
    db: impl PgExecutor<'_>,
    kind: &str,
    ids: &[String],
) -> Result<Vec<OperationRow>> {
    // Each half has an index.
    sqlx::query_as!(
        OperationRow,
        r#"select id as "id!", number as "number!", subject_kind as "subject_kind!", subject_id as "subject_id!",
                  kind as "kind!", state as "state!: OperationState", progress as "progress!", step as "step!",
                  error_code, error_message, error_detail, host_task, created_at as "created_at!", started_at, ended_at
           from (select * from operations where subject_kind = $1 and subject_id = any($2)
                 and state in ('queued', 'running', 'undoing', 'stuck')
                 union all
                 select * from operations where subject_kind = $1 and subject_id = any($2) and state = 'waiting') o"#,
        kind,
        ids
    )
    .fetch_all(db)
    .await
}

/// The operation that holds a subject now.
pub(in crate::operations) async fn active(db: &PgPool, subject: &Subject) -> Result<Option<OperationRow>> {
    sqlx::query_as!(
        OperationRow,
        r#"select id, number, subject_kind, subject_id, kind, state as "state: OperationState", progress, step,
                  error_code, error_message, error_detail, host_task, created_at, started_at, ended_at
           from operations
           where subject_kind = $1 and subject_id = $2 and state in ('queued', 'running', 'undoing', 'stuck')"#,
        subject.kind,
        subject.id
    )
    .fetch_optional(db)
    .await
}

/// Operations that need manual intervention, oldest first.
pub(in crate::operations) async fn stuck(db: &PgPool, limit: i64, offset: i64) -> Result<Vec<OperationRow>> {
    sqlx::query_as!(
        OperationRow,
        r#"select id, number, subject_kind, subject_id, kind, state as "state: OperationState", progress, step,
                  error_code, error_message, error_detail, host_task, created_at, started_at, ended_at
           from operations where state = 'stuck' order by created_at, id limit $1 offset $2"#,
        limit,
        offset
    )
    .fetch_all(db)
    .await
}

pub(in crate::operations) async fn count_stuck(db: &PgPool) -> Result<i64> {
    sqlx::query_scalar!(r#"select count(*) as "n!" from operations where state = 'stuck'"#).fetch_one(db).await
}

/// A line of an operation's log.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// The time of the entry.
    pub at: DateTime<Utc>,
    /// `info`, `warn` or `error`.
    pub level: String,
    /// The step that it is from.
    pub step: String,
    /// What happened.
    pub message: String,
}

/// The last lines of an operation's log, which say how it ended or why it does not.
pub(in crate::operations) async fn log_lines(db: &PgPool, id: Uuid) -> Result<Vec<LogLine>> {
    sqlx::query_as!(
        LogLine,
        r#"select at as "at!", level as "level!", step as "step!", message as "message!"
           from (select * from operation_log where operation_id = $1 order by id desc limit 1000) latest order by id"#,
        id
    )
    .fetch_all(db)
    .await
}
