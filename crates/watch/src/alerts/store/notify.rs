//! The SQL of notifications.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::Result;
use crate::alerts::model::{AlertEnd, AlertKind, AlertLevel};
use crate::ids::{AlertId, ServerId, TariffId, UserId};

/// An incident whose beginning or end has to be notified.
#[derive(Debug)]
pub(in crate::alerts) struct PendingNotification {
    pub id: AlertId,
    pub kind: AlertKind,
    /// The level now or, if it has ended, the one that was notified.
    pub level: AlertLevel,
    pub value: f64,
    pub raised_at: DateTime<Utc>,
    /// Set if the incident has ended after its beginning was notified.
    pub resolved_at: Option<DateTime<Utc>>,
    pub ended: Option<AlertEnd>,
    /// Name of the subject.
    pub name: String,
    /// Why the operation failed, in the host's words.
    pub detail: Option<String>,
    pub server_id: Option<ServerId>,
    pub tariff_id: Option<TariffId>,
    /// Owner of the server; `None` if it concerns the provider.
    pub owner: Option<UserId>,
    pub owner_email: Option<String>,
    /// Number of servers affected along with a host, and of their owners.
    pub servers: i64,
    pub customers: i64,
    /// Muted, or the address is unconfirmed, or the owner was notified of the same a moment ago.
    pub muted: bool,
    /// Seconds since its last change.
    pub age: f64,
}

/// Whether there is anything to notify; of warnings only these kinds. This is the one query that runs all the time.
pub(in crate::alerts) async fn has_pending(tx: &mut PgConnection, warnings: &[String]) -> Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (
               select from alerts a
               where ((resolved_at is null and acknowledged_at is null
                       and (told_at is null or (told_level = 'warning' and level = 'critical'))
                       and (level = 'critical' or kind = any($1)))
                      or (told_at is not null and resolved_at is not null and end_told_at is null))
                 and (a.resolved_at is not null or a.server_id is null
                      or exists (select from servers s join accounts c on c.id = s.account_id
                                     join users u on u.id = c.owner_id
                                 where s.id = a.server_id and u.alert_mails <> 'none'))
                 and (level = 'critical' or told_at is not null
                      or exists (select from servers s join accounts c on c.id = s.account_id
                                     join users u on u.id = c.owner_id
                                 where s.id = a.server_id and u.alert_mails = 'all')
                      or (a.server_id is null
                          and exists (
                              select from users where staff_role = 'admin' and alert_mails = 'all')))) as "any!""#,
        warnings
    )
    .fetch_one(tx)
    .await
}

/// Pending notifications after this id, oldest first, at most `most`.
pub(in crate::alerts) async fn pending(
    tx: &mut PgConnection,
    warnings: &[String],
    after: AlertId,
    most: i64,
    floor: f64,
) -> Result<Vec<PendingNotification>> {
    sqlx::query_as!(
        PendingNotification,
        r#"select a.id as "id: AlertId", a.kind as "kind: AlertKind",
                  case when a.resolved_at is null then a.level else a.told_level end as "level!: AlertLevel",
                  a.value, a.raised_at, a.resolved_at,
                  a.ended as "ended: AlertEnd",
                  coalesce(s.name, p.name, o.kind, h.name,
                           case a.subject when 'mail' then 'outgoing mail' when 'installation' then 'the database' end,
                           '') as "name!",
                  o.error_detail as "detail?",
                  a.server_id as "server_id: ServerId", s.tariff_id as "tariff_id?: TariffId",
                  u.id as "owner?: UserId",
                  case when u.disabled_at is null then u.email end as "owner_email?",
                  coalesce(w.servers, 0) as "servers!", coalesce(w.customers, 0) as "customers!",
                  exists (select from alert_mutes m where m.until > now()
                          and (m.server_id is null or m.server_id = a.server_id)
                          and (m.kind is null or m.kind = a.kind))
                      or (u.id is not null and u.confirmed_at is null)
                      -- Told of late: whatever a rule says, nobody is mailed every minute.
                      or (a.told_at is null and a.server_id is not null
                          and exists (select from alerts b where b.server_id = a.server_id and b.kind = a.kind
                                      and b.told_at > now() - make_interval(secs => $3)
                                      and (b.told_level = 'critical' or a.level = 'warning'))) as "muted!",
                  extract(epoch from clock_timestamp() - a.changed_at)::float8 as "age!"
           from alerts a
           left join servers s on s.id = a.server_id
           left join accounts c on c.id = s.account_id
           left join users u on u.id = c.owner_id
           left join hosts h on h.id = a.host_id
           left join address_pools p on p.id = a.pool_id
           left join operations o on o.id = a.operation_id
           left join lateral (
               select count(*) as servers, count(distinct v.account_id) as customers
               from alerts b join servers v on v.id = b.server_id
               where a.kind = 'host_unreachable' and a.server_id is null and b.kind = a.kind and b.host_id = a.host_id
                 and b.raised_at = a.raised_at
           ) w on a.kind = 'host_unreachable' and a.server_id is null
           where a.id > $1
             and ((a.resolved_at is null and a.acknowledged_at is null
                   and (a.told_at is null or (a.told_level = 'warning' and a.level = 'critical'))
                   and (a.level = 'critical' or a.kind = any($4)))
                  or (a.told_at is not null and a.resolved_at is not null and a.end_told_at is null))
             -- The end of what was mailed is mailed to everybody.
             and (a.resolved_at is not null or u.id is null or u.alert_mails <> 'none')
             and (a.level = 'critical' or a.told_at is not null or u.alert_mails = 'all'
                  or (a.server_id is null
                      and exists (select from users where staff_role = 'admin' and alert_mails = 'all')))
           order by a.id limit $2"#,
        after.0,
        most,
        floor,
        warnings
    )
    .fetch_all(tx)
    .await
}

/// A user with the provider role.
#[derive(Debug)]
pub(in crate::alerts) struct ProviderRecipient {
    pub id: UserId,
    pub email: String,
    /// Whether they want warnings too.
    pub warnings: bool,
}

pub(in crate::alerts) async fn provider_recipients(tx: &mut PgConnection) -> Result<Vec<ProviderRecipient>> {
    sqlx::query_as!(
        ProviderRecipient,
        r#"select id as "id: UserId", email, alert_mails = 'all' as "warnings!" from users
           where staff_role = 'admin' and disabled_at is null and confirmed_at is not null order by id"#
    )
    .fetch_all(tx)
    .await
}

/// Records which incidents' beginnings were notified, which of them as critical, and which ends. An incident that has
/// ended or become critical since it was read stays pending for that.
pub(in crate::alerts) async fn mark_notified(
    tx: &mut PgConnection,
    alerts: &[i64],
    critical: &[i64],
    ended: &[i64],
) -> Result<()> {
    sqlx::query!(
        "update alerts set told_at = coalesce(told_at, now()), end_told_at = case when id = any($3) then now() end,
                told_level = case when id = any($2) then 'critical' else 'warning' end
         where id in (select id from alerts where id = any($1) order by id for no key update)",
        alerts,
        critical,
        ended
    )
    .execute(tx)
    .await
    .map(drop)
}
