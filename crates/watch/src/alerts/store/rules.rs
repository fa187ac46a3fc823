//! The SQL of alert rules and mutes.

use chrono::{DateTime, Utc};
use monitor::alerts::{AlertRule, Kind, QuietPeriod};
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor};

use super::Result;
use crate::alerts::model::AlertKind;
use crate::alerts::rules::{RuleSet, RuleSettings, RuleTarget};
use crate::ids::{HostId, ServerId, TariffId, UserId};

struct RuleRow {
    tariff_id: Option<TariffId>,
    server_id: Option<ServerId>,
    kind: AlertKind,
    enabled: bool,
    warning: f64,
    critical: f64,
    clear: f64,
    sustain_s: i32,
    clear_sustain_s: i32,
    quiet: Option<Json<QuietPeriod>>,
}

impl From<RuleRow> for ((RuleTarget, Kind), RuleSettings) {
    fn from(r: RuleRow) -> Self {
        let whose = match (r.server_id, r.tariff_id) {
            (Some(server), _) => RuleTarget::Server(server),
            (None, Some(tariff)) => RuleTarget::Tariff(tariff),
            (None, None) => RuleTarget::Everything,
        };
        let rule = AlertRule {
            warning: r.warning,
            critical: r.critical,
            clear: r.clear,
            sustain_s: r.sustain_s.unsigned_abs(),
            clear_sustain_s: r.clear_sustain_s.unsigned_abs(),
        };
        ((whose, r.kind.0), RuleSettings { enabled: r.enabled, rule, quiet: r.quiet.map(|q| q.0) })
    }
}

macro_rules! rules {
    ($db:expr, $condition:literal $(, $parameter:expr)*) => {
        sqlx::query_as!(
            RuleRow,
            r#"select tariff_id as "tariff_id: TariffId", server_id as "server_id: ServerId", kind as "kind: AlertKind",
                      enabled, warning, critical, clear, sustain_s, clear_sustain_s, quiet as "quiet: Json<QuietPeriod>"
               from alert_rules where (tariff_id is null and server_id is null) or "# + $condition
            $(, $parameter)*
        )
        .fetch_all($db)
        .await
        .map(|rows| rows.into_iter().filter(|row| row.kind.0 != Kind::Unknown).map(Into::into).collect())
    };
}

/// All rules that may apply to the servers of a host.
pub(in crate::alerts) async fn rules_of_host(db: impl PgExecutor<'_>, host: HostId) -> Result<RuleSet> {
    rules!(
        db,
        "server_id in (select id from servers where host_id = $1 and deleted_at is null)
         or tariff_id in (select tariff_id from servers where host_id = $1 and deleted_at is null)",
        host.0
    )
}

/// All rules that may apply to these servers and tariffs.
pub(in crate::alerts) async fn rules_of(db: impl PgExecutor<'_>, servers: &[i64], tariffs: &[i64]) -> Result<RuleSet> {
    rules!(db, "server_id = any($1) or tariff_id = any($2)", servers, tariffs)
}

fn scope(whose: RuleTarget) -> (Option<i64>, Option<i64>) {
    match whose {
        RuleTarget::Everything => (None, None),
        RuleTarget::Tariff(id) => (Some(id.0), None),
        RuleTarget::Server(id) => (None, Some(id.0)),
    }
}

/// Creates or replaces a rule.
pub(in crate::alerts) async fn put_rule(
    db: impl PgExecutor<'_>,
    whose: RuleTarget,
    kind: Kind,
    settings: &RuleSettings,
) -> Result<()> {
    let ((tariff, server), rule) = (scope(whose), settings.rule);
    let seconds = |s: u32| i32::try_from(s).unwrap_or(i32::MAX);
    sqlx::query!(
        "insert into alert_rules (tariff_id, server_id, kind, enabled, warning, critical, clear, sustain_s,
                                  clear_sustain_s, quiet)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         on conflict (kind, coalesce(server_id, 0), coalesce(tariff_id, 0)) do update
         set enabled = excluded.enabled, warning = excluded.warning, critical = excluded.critical,
             clear = excluded.clear, sustain_s = excluded.sustain_s, clear_sustain_s = excluded.clear_sustain_s,
             quiet = excluded.quiet, updated_at = now()",
        tariff,
        server,
        kind.as_str(),
        settings.enabled,
        rule.warning,
        rule.critical,
        rule.clear,
        seconds(rule.sustain_s),
        seconds(rule.clear_sustain_s),
        settings.quiet.map(Json) as Option<Json<QuietPeriod>>
    )
    .execute(db)
    .await
    .map(drop)
}

/// Deletes a rule; false if there was none.
pub(in crate::alerts) async fn delete_rule(db: impl PgExecutor<'_>, whose: RuleTarget, kind: Kind) -> Result<bool> {
    let (tariff, server) = scope(whose);
    let done = sqlx::query!(
        "delete from alert_rules
         where kind = $1 and tariff_id is not distinct from $2 and server_id is not distinct from $3",
        kind.as_str(),
        tariff,
        server
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// An active mute.
#[derive(Debug)]
pub(in crate::alerts) struct MuteRow {
    pub server_id: Option<ServerId>,
    pub kind: Option<AlertKind>,
    pub until: DateTime<Utc>,
}

/// The active mutes of a server and those that are not bound to a server.
pub(in crate::alerts) async fn mutes(db: impl PgExecutor<'_>, server: Option<ServerId>) -> Result<Vec<MuteRow>> {
    sqlx::query_as!(
        MuteRow,
        r#"select server_id as "server_id: ServerId", kind as "kind: AlertKind", until from alert_mutes
           where until > now() and (server_id is null or server_id = $1)"#,
        server.map(|id| id.0)
    )
    .fetch_all(db)
    .await
}

pub(in crate::alerts) async fn mute(
    db: &mut PgConnection,
    server: Option<ServerId>,
    kind: Option<Kind>,
    until: DateTime<Utc>,
    user: UserId,
) -> Result<()> {
    sqlx::query!(
        "insert into alert_mutes (server_id, kind, until, user_id) values ($1, $2, $3, $4)
         on conflict (coalesce(server_id, 0), coalesce(kind, '')) do update
         set until = excluded.until, user_id = excluded.user_id, created_at = now()",
        server.map(|id| id.0),
        kind.map(Kind::as_str),
        until,
        user.0
    )
    .execute(db)
    .await
    .map(drop)
}

/// Ends a server's mutes, or those of a kind without a server; false if there were none.
pub(in crate::alerts) async fn unmute(
    db: impl PgExecutor<'_>,
    server: Option<ServerId>,
    kind: Option<Kind>,
) -> Result<bool> {
    let done = sqlx::query!(
        "delete from alert_mutes where server_id is not distinct from $1 and ($2::text is null or kind = $2)",
        server.map(|id| id.0),
        kind.map(Kind::as_str)
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Deletes expired mutes.
pub(in crate::alerts) async fn purge_mutes(db: impl PgExecutor<'_>) -> Result<()> {
    sqlx::query!("delete from alert_mutes where until <= now()").execute(db).await.map(drop)
}
