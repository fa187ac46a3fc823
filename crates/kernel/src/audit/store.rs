//! SQL for the audit log.

use sqlx::PgPool;
use uuid::Uuid;

use super::model::{AuditEntry, ListEntries, RefusedWrites};
use super::service::{EntryOutcome, NewEntry, OpenEntry};
use crate::ids::{AccountId, UserId};
use crate::listing::{COUNTED, SortOrder, Window};
use crate::operations::model::OperationState;
use crate::subjects::{CONTRACT_KIND, Subject};

type Result<T> = sqlx::Result<T>;

pub(super) async fn begin(db: &PgPool, role: &str, deed: &NewEntry<'_>) -> Result<OpenEntry> {
    sqlx::query_as!(
        OpenEntry,
        "insert into audit_open (id, user_id, role, token_id, address, request_id, action, subject, subject_id, about,
                                 account_id)
         values ($1, $2, $3, $4, $5::text::inet, $6, $7, $8, $9, $10, $11) returning id",
        Uuid::now_v7(),
        deed.caller.as_ref().map(|caller| caller.opened_by.unwrap_or(caller.user).0),
        role,
        deed.caller.as_ref().map(|caller| caller.token),
        deed.address.to_string(),
        deed.request_id,
        deed.action,
        deed.subject,
        deed.subject_id,
        deed.about.as_ref().map(ToString::to_string),
        deed.caller.as_ref().map(|caller| caller.account.0)
    )
    .fetch_one(db)
    .await
}

pub(super) async fn begin_command(db: &PgPool, action: &str, subject: &str) -> Result<OpenEntry> {
    sqlx::query_as!(
        OpenEntry,
        "insert into audit_open (id, role, action, subject) values ($1, 'cli', $2, $3) returning id",
        Uuid::now_v7(),
        action,
        subject
    )
    .fetch_one(db)
    .await
}

/// Stores an entry permanently, with its end.
pub(super) async fn end(db: &PgPool, begun: OpenEntry, end: &EntryOutcome) -> Result<()> {
    sqlx::query!(
        "with o as (delete from audit_open where id = $1 returning *)
         insert into audit (id, at, user_id, role, token_id, address, request_id, action, subject, subject_id, about,
                            account_id, operation_id, status, code, ended_at, reason)
         select id, at, user_id, role, token_id, address, request_id, action, subject, coalesce(subject_id, $4),
                coalesce(about, $5), coalesce($6, account_id), $7, $2, $3, clock_timestamp(), $8
         from o",
        begun.id,
        end.status.and_then(|status| i16::try_from(status).ok()),
        end.code.map(crate::error::Code::as_str),
        end.subject_id,
        end.about.as_ref().map(ToString::to_string),
        end.account.map(|id| id.0),
        end.operation,
        end.reason
    )
    .execute(db)
    .await
    .map(drop)
}

/// Counts a refused write, and stores its entry if it is among the first `kept` of the account in this hour.
pub(super) async fn refused(db: &PgPool, begun: OpenEntry, end: &EntryOutcome, kept: i64) -> Result<()> {
    sqlx::query!(
        "with o as (delete from audit_open where id = $1 returning *),
              counted as (
                  insert into audit_refused as r (hour, user_id, account_id, count, last_at)
                  select date_trunc('hour', at, 'UTC'), coalesce(user_id, 0), coalesce($6::bigint, account_id, 0), 1,
                         clock_timestamp()
                  from o
                  on conflict (hour, user_id, account_id)
                      do update set count = r.count + 1, last_at = greatest(r.last_at, excluded.last_at)
                  returning count)
         insert into audit (id, at, user_id, role, token_id, address, request_id, action, subject, subject_id, about,
                            account_id, operation_id, status, code, ended_at, reason)
         select id, at, user_id, role, token_id, address, request_id, action, subject, coalesce(subject_id, $4),
                coalesce(about, $5), coalesce($6, account_id), $7, $2, $3, clock_timestamp(), $9
         from o, counted where counted.count <= $8",
        begun.id,
        end.status.and_then(|status| i16::try_from(status).ok()),
        end.code.map(crate::error::Code::as_str),
        end.subject_id,
        end.about.as_ref().map(ToString::to_string),
        end.account.map(|id| id.0),
        end.operation,
        kept,
        end.reason
    )
    .execute(db)
    .await
    .map(drop)
}

/// Filtered entries, with the total count up to a limit; if `mine` is set, only those of this account, and what the
/// provider and its `reseller` did about what it has `owned`.
pub(super) async fn list(
    db: &PgPool,
    mine: Option<AccountId>,
    reseller: Option<AccountId>,
    is_reseller: bool,
    owned: &[String],
    query: &ListEntries,
    window: Window,
) -> Result<(Vec<AuditEntry>, i64)> {
    let mut tx = crate::db::begin_list_query(db).await?;
    macro_rules! entries {
        ($run:ident, $query:ident, ($($of:tt)*), $what:literal, $rest:literal $(, $more:expr)*) => {
            sqlx::$query!(
                $($of)*
                "select " + $what + r#" from audit_entries a left join operations o on o.id = a.operation_id
                   where ($1::bigint is null or a.account_id = $1
                          or (a.about = any($12) and (a.role in ('provider', 'cli') or a.account_id = $14)))
                     and (num_nonnulls($2::bigint, $3::uuid, $8::text) = 0 or $1::bigint is null or a.role = 'nobody'
                          or (a.account_id = $1 and a.role <> 'provider' and (a.role <> 'reseller' or $15)))
                     and ($13::text is null or a.about = $13)
                     and ($2::bigint is null or a.user_id = $2) and ($3::uuid is null or a.token_id = $3)
                     and ($4::text is null or a.about = $4) and ($5::text is null or a.action = $5)
                     and ($6::text is null or a.subject = $6) and ($7::text is null or a.subject_id = $7)
                     and ($8::text is null or a.request_id = $8) and ($9::text is null or a.code = $9)
                     and ($10::timestamptz is null or a.at >= $10) and ($11::timestamptz is null or a.at < $11)"#
                   + $rest,
                mine.map(|id| id.0), query.user_id.map(|id| id.0), query.token_id,
                query.server_id.map(|id| Subject::new(CONTRACT_KIND, id).to_string()),
                query.action, query.subject, query.subject_id, query.request_id, query.code, query.from, query.to,
                owned, query.about, reseller.map(|id| id.0), is_reseller
                $(, $more)*
            )
            .$run(&mut *tx)
            .await?
        };
    }
    let rows = entries!(
        fetch_all,
        query_as,
        (AuditEntry,),
        r#"a.id as "id!", a.at as "at!", a.user_id as "user_id: UserId", a.role as "role!", a.token_id,
           host(a.address) as address, a.request_id, a.action as "action!", a.subject, a.subject_id, a.about,
           case when a.about like 'server:%' then split_part(a.about, ':', 2)::bigint end as server_id,
           a.account_id as "account_id: AccountId", a.reason, a.status, a.code, a.ended_at, a.operation_id,
           o.state as "operation_state?: OperationState", o.error_code as "operation_code?""#,
        r#" and ($19::timestamptz is null
                 or case when $16 then (a.at, a.id) > ($19, $20) else (a.at, a.id) < ($19, $20) end)
            order by case when $16 then a.at end, case when not $16 then a.at end desc,
                     case when $16 then a.id end, case when not $16 then a.id end desc
            limit $17 offset $18"#,
        query.order == Some(SortOrder::Asc),
        window.limit,
        window.offset,
        query.after.map(|place| place.at),
        query.after.map(|place| place.id)
    );
    let total =
        entries!(fetch_one, query_scalar, (), r#"count(*) as "n!" from (select 1"#, " limit $16) counted", COUNTED);
    Ok((rows, total))
}

/// Creates the partitions for this month and the next ones.
pub(super) async fn create_partitions(db: &PgPool) -> Result<()> {
    sqlx::query!("select audit_room()").fetch_one(db).await.map(drop)
}

/// Number of refused writes by hour, newest first; only those about one account if `mine` is set.
pub(super) async fn refusals(
    db: &PgPool,
    mine: Option<AccountId>,
    window: Window,
) -> Result<(Vec<RefusedWrites>, i64)> {
    let mut tx = crate::db::begin_list_query(db).await?;
    let rows = sqlx::query_as!(
        RefusedWrites,
        r#"select hour, nullif(user_id, 0) as "user_id: UserId", nullif(account_id, 0) as "account_id: AccountId",
                  count, last_at
           from audit_refused where $1::bigint is null or account_id = $1
           order by hour desc, user_id, account_id limit $2 offset $3"#,
        mine.map(|id| id.0),
        window.limit,
        window.offset
    )
    .fetch_all(&mut *tx)
    .await?;
    let total = sqlx::query_scalar!(
        r#"select count(*) as "n!" from (
               select 1 from audit_refused where $1::bigint is null or account_id = $1 limit $2) counted"#,
        mine.map(|id| id.0),
        COUNTED
    )
    .fetch_one(&mut *tx)
    .await?;
    Ok((rows, total))
}

/// Stores entries whose processes died, and deletes expired ones.
pub(super) async fn upkeep(db: &PgPool, days: i32) -> Result<()> {
    sqlx::query!(
        "with o as (delete from audit_open where at < now() - interval '1 hour' returning *)
         insert into audit (id, at, user_id, role, token_id, address, request_id, action, subject, subject_id, about,
                            account_id, reason)
         select id, at, user_id, role, token_id, address, request_id, action, subject, subject_id, about, account_id,
                reason
         from o"
    )
    .execute(db)
    .await?;
    sqlx::query!("delete from audit_refused where hour < aged_to() - make_interval(days => $1)", days)
        .execute(db)
        .await?;
    sqlx::query!("select audit_upkeep($1)", days).fetch_one(db).await.map(drop)
}
