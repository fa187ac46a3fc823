//! The SQL for listing, acknowledging and deleting incidents.

use chrono::{DateTime, Utc};
use kernel::core::Core;
use kernel::error;
use kernel::http::owned::{Ownable, Ownership};
use kernel::listing::{COUNTED, SortOrder, Window};
use kernel::subjects::Subject;
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::Result;
use crate::alerts::model::{AlertEnd, AlertKind, AlertLevel, AlertView, ListAlerts, LiveAlert, Sort, message};
use crate::ids::{AccountId, AlertId, HostId, PoolId, ServerId, UserId};

/// Which alerts the caller may see.
#[derive(Debug, Default)]
pub(in crate::alerts) struct IncidentOwner<'a> {
    /// Only this account's servers; everything if `None`.
    pub account: Option<AccountId>,
    /// Only these servers: those that the token's scopes allow.
    pub only: Option<&'a [i64]>,
}

/// An incident with its subject.
#[derive(Debug, Clone)]
pub(in crate::alerts) struct IncidentRow {
    pub id: AlertId,
    kind: AlertKind,
    level: AlertLevel,
    value: f64,
    name: String,
    /// Why the operation failed, in the host's words.
    detail: Option<String>,
    subject: String,
    server_id: Option<ServerId>,
    host_id: Option<HostId>,
    pool_id: Option<PoolId>,
    operation_id: Option<Uuid>,
    raised_at: DateTime<Utc>,
    resolved_at: Option<DateTime<Utc>>,
    ended: Option<AlertEnd>,
    acknowledged_at: Option<DateTime<Utc>>,
    acknowledged_by: Option<UserId>,
    muted_until: Option<DateTime<Utc>>,
    told_at: Option<DateTime<Utc>>,
}

impl IncidentRow {
    pub(in crate::alerts) fn is_over(&self) -> bool {
        self.resolved_at.is_some()
    }

    /// As this customer sees it, or a provider if `None`.
    pub(in crate::alerts) fn view(self, customer: Option<UserId>) -> AlertView {
        let over = self.ended == Some(AlertEnd::Recovered);
        let kind = self.kind.0;
        AlertView {
            id: self.id,
            r#type: self.kind,
            level: self.level,
            message: if over { kind.over(self.value) } else { message(kind, self.value, self.detail.as_deref()) },
            value: self.value,
            name: self.name,
            subject: self.subject,
            server_id: self.server_id,
            host_id: self.host_id.filter(|_| customer.is_none()),
            pool_id: self.pool_id,
            operation_id: self.operation_id,
            raised_at: self.raised_at,
            resolved_at: self.resolved_at,
            ended: self.ended,
            acknowledged_at: self.acknowledged_at,
            acknowledged_by: self.acknowledged_by.filter(|by| customer.is_none_or(|me| me == *by)),
            muted_until: self.muted_until,
            mailed_at: self.told_at,
        }
    }
}

impl Ownable for IncidentRow {
    const NAME: &'static str = "alert";

    type Id = AlertId;

    async fn find(core: &Core, id: AlertId) -> error::Result<Option<Self>> {
        Ok(incident(&core.db, id).await?)
    }

    /// Alerts about what is no subject, such as hosts, are the provider's.
    fn ownership(&self, core: &Core) -> Ownership {
        let named: Option<Subject> = self.subject.parse().ok();
        let known = named.and_then(|subject| core.subjects().subject(&subject.kind, &subject.id));
        known.map_or(Ownership::Provider, Ownership::About)
    }
}

macro_rules! alerts {
    (@ $run:ident, $query:ident, ($($of:tt)*), $db:expr, $what:literal, ($($rest:literal),+) $(, $parameter:expr)*) => {
        sqlx::$query!(
            $($of)*
            "select " + $what + r#" from alerts a
               left join servers s on s.id = a.server_id
               left join hosts h on h.id = a.host_id
               left join address_pools p on p.id = a.pool_id
               left join operations o on o.id = a.operation_id "# $(+ $rest)+
            $(, $parameter)*
        )
        .$run($db)
        .await
    };
    (rows $run:ident, $db:expr, ($($rest:literal),+) $(, $parameter:expr)*) => {
        alerts!(
            @ $run, query_as, (IncidentRow,), $db,
            r#"a.id as "id: AlertId", a.kind as "kind: AlertKind", a.level as "level: AlertLevel", a.value,
               coalesce(s.name, p.name, o.kind, h.name,
                        case a.subject when 'mail' then 'outgoing mail' when 'installation' then 'the database' end,
                        '') as "name!",
               o.error_detail as "detail?", a.subject,
               a.server_id as "server_id: ServerId", a.host_id as "host_id: HostId", a.pool_id as "pool_id: PoolId",
               a.operation_id, a.raised_at, a.resolved_at, a.ended as "ended: AlertEnd", a.acknowledged_at,
               a.acknowledged_by as "acknowledged_by: UserId", a.told_at,
               (select max(m.until) from alert_mutes m where m.until > now()
                and (m.server_id is null or m.server_id = a.server_id) and (m.kind is null or m.kind = a.kind))
                   as muted_until"#,
            ($($rest),+) $(, $parameter)*
        )
    };
    (filtered ($($way:tt)*), $rest:literal, $whose:expr, $query:expr $(, $more:expr)*) => {
        alerts!(
            $($way)*,
            (r#"where ($1::bigint is null or s.account_id = $1) and ($2::bigint[] is null or a.server_id = any($2))
                  and ($3::bool is null or (a.resolved_at is null) = $3) and ($4::text is null or a.kind = $4)
                  and ($5::text is null or a.level = $5) and ($6::bigint is null or a.server_id = $6)
                  and ($7::bigint is null or a.host_id = $7)
                  and ($8::bool is null or (a.acknowledged_at is not null) = $8)
                  and ($9::text is null or a.subject = $9)"#, $rest),
            $whose.account.map(|id| id.0), $whose.only as Option<&[i64]>, $query.open,
            $query.kind.map(|k| k.0.as_str()), $query.level.map(|l| l.0.as_str()), $query.server_id.map(|id| id.0),
            $query.host_id.map(|id| id.0), $query.acknowledged, $query.subject $(, $more)*
        )
    };
}

/// Incidents by a filter, with the total count.
pub(in crate::alerts) async fn list(
    db: &PgPool,
    whose: &IncidentOwner<'_>,
    query: &ListAlerts,
    window: Window,
) -> Result<(Vec<IncidentRow>, i64)> {
    let mut tx = kernel::db::begin_list_query(db).await?;
    let rows = alerts!(
        filtered (rows fetch_all, &mut *tx),
        r#" and ($14::timestamptz is null
                 or case when $11 then (a.raised_at, a.id) > ($14, $15) else (a.raised_at, a.id) < ($14, $15) end)
            order by case when $10 then case a.level when 'critical' then 1 else 0 end
                                        * case when $11 then 1 else -1 end end,
                     case when $11 then a.raised_at end, case when not $11 then a.raised_at end desc,
                     case when $11 then a.id end, case when not $11 then a.id end desc
            limit $12 offset $13"#,
        whose,
        query,
        query.sort == Some(Sort::Level),
        query.order == Some(SortOrder::Asc),
        window.limit,
        window.offset,
        query.after.map(|place| place.at),
        query.after.map(|place| place.id.0)
    )?;
    let total = alerts!(
        filtered (@ fetch_one, query_scalar, (), &mut *tx, r#"count(*) as "n!" from (select 1"#),
        " limit $10) counted",
        whose,
        query,
        COUNTED
    )?;
    Ok((rows, total))
}

pub(in crate::alerts) async fn incident(db: impl PgExecutor<'_>, id: AlertId) -> Result<Option<IncidentRow>> {
    alerts!(rows fetch_optional, db, ("where a.id = $1"), id.0)
}

/// Acknowledges an incident. The first acknowledgement stays.
pub(in crate::alerts) async fn acknowledge(tx: &mut PgConnection, id: AlertId, user: UserId) -> Result<()> {
    sqlx::query!(
        "update alerts set acknowledged_at = now(), acknowledged_by = $2
         where id = $1 and acknowledged_at is null and resolved_at is null",
        id.0,
        user.0
    )
    .execute(tx)
    .await
    .map(drop)
}

/// The open incidents of these servers, oldest first.
pub(in crate::alerts) async fn open(db: &PgPool, servers: &[i64]) -> Result<Vec<(ServerId, LiveAlert)>> {
    let rows = sqlx::query!(
        r#"select server_id as "server!: ServerId", id as "id: AlertId", kind as "kind: AlertKind",
                  level as "level: AlertLevel", value, raised_at, acknowledged_at is not null as "acknowledged!"
           from alerts where server_id = any($1) and resolved_at is null order by id"#,
        servers
    )
    .fetch_all(db)
    .await?;
    let live = |kind: AlertKind, level, value, id, raised_at, acknowledged| LiveAlert {
        r#type: kind,
        message: kind.0.message(value),
        level,
        id,
        raised_at,
        acknowledged,
    };
    Ok(rows
        .into_iter()
        .map(|r| (r.server, live(r.kind, r.level, r.value, r.id, r.raised_at, r.acknowledged)))
        .collect())
}

/// How many open incidents these servers have.
pub(in crate::alerts) async fn count_open(db: &mut PgConnection, servers: &[i64]) -> Result<Vec<(ServerId, i64)>> {
    let rows = sqlx::query!(
        r#"select server_id as "server!: ServerId", count(*) as "open!" from alerts
           where server_id = any($1) and resolved_at is null group by server_id"#,
        servers
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|r| (r.server, r.open)).collect())
}

/// Deletes incidents that ended over a year ago.
pub(in crate::alerts) async fn purge(db: &PgPool) -> Result<()> {
    sqlx::query!("delete from alerts where resolved_at < aged_to() - interval '1 year'").execute(db).await.map(drop)
}
