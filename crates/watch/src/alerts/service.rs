//! Listing, acknowledging and muting alerts, and managing their rules.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use compute::{servers, tariffs};
use kernel::auth::Caller;
use kernel::core::Core;
use kernel::db;
use kernel::error::{Code, Error, Result};
use kernel::http::owned::Owned;
use kernel::idempotency::Once;
use kernel::listing::{Window, list_error};
use monitor::alerts::Kind;
use sqlx::PgConnection;

use super::model::{AlertRuleView, AlertView, ListAlerts, LiveAlert, MutedAlerts, SetAlertRule, Sort};
use super::rules::{RuleSet, RuleSettings, RuleTarget};
use super::store::{self, IncidentOwner, IncidentRow, MuteRow};
use crate::ids::{ServerId, TariffId};

/// The alerts that the caller may see: those of their own servers, or all of them for a provider.
pub async fn list(core: &Core, caller: &Caller, query: &ListAlerts, window: Window) -> Result<(Vec<AlertView>, i64)> {
    if query.host_id.is_some() && !caller.sees_everything() {
        return Err(Error::new(Code::Forbidden, "Only providers may filter by host."));
    }
    if query.after.is_some() && query.sort == Some(Sort::Level) {
        return Err(Error::field("after", "Only a list sorted by `raisedAt` can be continued; page this one."));
    }
    let only = servers::subject::only(caller);
    let customer = caller.only_account();
    window.check()?;
    let _turn = core.turns.take(caller.account).await?;
    let whose = IncidentOwner { account: customer, only: only.as_deref() };
    let (rows, total) = store::list(&core.db, &whose, query, window).await.map_err(list_error)?;
    Ok((rows.into_iter().map(|row| seen_by(caller, row)).collect(), total))
}

/// An alert, as the caller may see it.
pub(super) fn seen_by(caller: &Caller, row: IncidentRow) -> AlertView {
    row.view((!caller.sees_everything()).then_some(caller.user))
}

/// Acknowledges an alert: no more mail is sent about it, except that it has ended if its beginning was mailed.
pub(super) async fn acknowledge(core: &Core, once: &Once, access: &Owned<IncidentRow>) -> Result<AlertView> {
    let (caller, id) = (&access.caller, access.thing.id);
    once.run(core, async |tx| {
        store::acknowledge(tx, id, caller.user).await?;
        let row = store::incident(&mut *tx, id).await?.ok_or_else(|| Error::not_found("alert"))?;
        if row.is_over() {
            return Err(Error::new(Code::Conflict, "This alert has ended and can no longer be acknowledged."));
        }
        Ok(seen_by(caller, row))
    })
    .await
}

/// The open alerts of these servers.
pub async fn open(core: &Core, servers: &[ServerId]) -> Result<HashMap<ServerId, Vec<LiveAlert>>> {
    let ids: Vec<i64> = servers.iter().map(|id| id.0).collect();
    let mut open: HashMap<ServerId, Vec<LiveAlert>> = HashMap::new();
    for (server, alert) in store::open(&core.db, &ids).await? {
        open.entry(server).or_default().push(alert);
    }
    Ok(open)
}

/// How many open alerts these servers have; those without any are left out.
pub async fn count_open(db: &mut PgConnection, servers: &[ServerId]) -> sqlx::Result<HashMap<ServerId, i64>> {
    let ids: Vec<i64> = servers.iter().map(|id| id.0).collect();
    Ok(store::count_open(db, &ids).await?.into_iter().collect())
}

/// Scope of a set of rules.
#[derive(Debug, Clone, Copy)]
pub enum RuleQuery {
    /// Everything.
    Everything,
    /// A tariff's servers.
    Tariff(TariffId),
    /// One server, which also inherits its tariff's rules.
    Server(ServerId, TariffId),
}

impl RuleQuery {
    fn ids(self) -> (Option<TariffId>, Option<ServerId>) {
        match self {
            Self::Everything => (None, None),
            Self::Tariff(tariff) => (Some(tariff), None),
            Self::Server(server, tariff) => (Some(tariff), Some(server)),
        }
    }

    /// The scope to store a rule of this type under, or not found if this scope can't have one.
    fn check(self, kind: Kind) -> Result<RuleTarget> {
        let whose = match self {
            Self::Everything => return Ok(RuleTarget::Everything),
            Self::Tariff(tariff) => RuleTarget::Tariff(tariff),
            Self::Server(server, _) => RuleTarget::Server(server),
        };
        if kind.is_of_guest() { Ok(whose) } else { Err(Error::not_found("alert rule")) }
    }
}

/// The scope of a tariff's rules, if the tariff exists.
pub async fn of_tariff(core: &Core, id: TariffId) -> Result<RuleQuery> {
    tariffs::store::tariff(&core.db, id).await?.ok_or_else(|| Error::not_found("tariff"))?;
    Ok(RuleQuery::Tariff(id))
}

/// The effective rules of a scope.
pub async fn rules(core: &Core, of: RuleQuery) -> Result<Vec<AlertRuleView>> {
    rules_on(&mut *core.db.acquire().await?, of).await
}

async fn rules_on(db: &mut PgConnection, of: RuleQuery) -> Result<Vec<AlertRuleView>> {
    let (tariff, server) = of.ids();
    let [tariffs, servers] = [tariff.map(|id| id.0), server.map(|id| id.0)].map(Vec::from_iter);
    let rules = store::rules_of(&mut *db, &servers, &tariffs).await?;
    let mutes = store::mutes(db, server).await?;
    let kinds = Kind::ALL.into_iter().filter(|kind| of.check(*kind).is_ok());
    Ok(kinds.map(|kind| view(&rules, &mutes, of, kind)).collect())
}

fn view(rules: &RuleSet, mutes: &[MuteRow], of: RuleQuery, kind: Kind) -> AlertRuleView {
    let (tariff, server) = of.ids();
    let (scope, RuleSettings { enabled, rule, quiet }) = rules.of(kind, tariff, server);
    let share = |value: f64| kind.has_threshold().then_some(value);
    let holds = |mute: &&MuteRow| {
        mute.server_id.is_none_or(|id| Some(id) == server) && mute.kind.is_none_or(|muted| muted.0 == kind)
    };
    AlertRuleView {
        r#type: super::model::AlertKind(kind),
        scope,
        enabled,
        warning: share(rule.warning),
        critical: share(rule.critical),
        clear: share(rule.clear),
        sustain_seconds: rule.sustain_s,
        clear_sustain_seconds: rule.clear_sustain_s,
        quiet_hours: quiet.map(Into::into),
        muted_until: mutes.iter().filter(holds).map(|mute| mute.until).max(),
    }
}

/// Sets a rule. The next sweep judges every alert by it: an open alert that it would not raise ends then.
pub async fn put_rule(core: &Core, of: RuleQuery, kind: Kind, put: &SetAlertRule) -> Result<AlertRuleView> {
    let whose = of.check(kind)?;
    let mut tx = db::begin(&core.db).await?;
    store::put_rule(&mut *tx, whose, kind, &RuleSettings::asked(kind, put)?).await?;
    let rule = rules_on(&mut tx, of).await?.into_iter().find(|rule| rule.r#type.0 == kind);
    tx.commit().await?;
    rule.ok_or_else(|| Error::not_found("alert rule"))
}

/// Deletes a rule; the next less specific one applies.
pub async fn delete_rule(core: &Core, of: RuleQuery, kind: Kind) -> Result<()> {
    let whose = of.check(kind)?;
    let mut tx = db::begin(&core.db).await?;
    match store::delete_rule(&mut *tx, whose, kind).await? {
        true => tx.commit().await,
        false => Err(Error::not_found("alert rule")),
    }
}

/// Mutes a server, one type of alert, or one type on one server.
pub async fn mute(
    core: &Core,
    once: &Once,
    caller: &Caller,
    server: Option<ServerId>,
    kind: Option<Kind>,
    until: DateTime<Utc>,
) -> Result<MutedAlerts> {
    let now = Utc::now();
    if until <= now || until > now + TimeDelta::days(366) {
        return Err(Error::field("until", "Must be in the future, at most a year ahead."));
    }
    once.run(core, async |tx| {
        store::mute(tx, server, kind, until, caller.user).await?;
        Ok(MutedAlerts { r#type: kind.map(super::model::AlertKind), until })
    })
    .await
}

/// Lifts mutes.
pub async fn unmute(core: &Core, server: Option<ServerId>, kind: Option<Kind>) -> Result<()> {
    let mut tx = db::begin(&core.db).await?;
    match store::unmute(&mut *tx, server, kind).await? {
        true => tx.commit().await,
        false => Err(Error::not_found("mute")),
    }
}

/// Deletes incidents after a year, and expired mutes.
pub async fn purge(core: &Core) -> Result<()> {
    store::purge_mutes(&core.db).await?;
    Ok(store::purge(&core.db).await?)
}
