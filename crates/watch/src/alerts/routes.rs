//! Routes for `/api/alerts`, alert rules and mutes.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use compute::servers::ServerAccess;
use kernel::auth::{AccessRow, Admission};
use kernel::core::Core;
use kernel::error::Result;
use kernel::http::ErrorBody;
use kernel::http::auth::{MemberCaller, ProviderCaller};
use kernel::http::extract::{Json, Path, Query};
use kernel::http::owned::Owned;
use kernel::http::page::{Page, PageQuery};
use kernel::idempotency::{Once, Post};
use kernel::listing::Place;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{
    AlertKind, AlertRuleView, AlertView, ListAlerts, MuteAlerts, MuteRule, MutedAlerts, SetAlertRule, Sort, Unmute,
};
use super::service::{self, RuleQuery};
use super::store::IncidentRow;
use crate::ids::{AlertId, ServerId, TariffId};

pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(acknowledge))
        .routes(routes!(rules))
        .routes(routes!(put_rule, delete_rule))
        .routes(routes!(mute_rule, unmute_rule))
        .routes(routes!(tariff_rules))
        .routes(routes!(put_tariff_rule, delete_tariff_rule))
        .routes(routes!(server_rules))
        .routes(routes!(put_server_rule, delete_server_rule))
        .routes(routes!(mute_server, unmute_server))
}

/// Who may call what.
pub(super) const ACCESS: &[AccessRow] = &[
    ("GET", "/api/alerts", Admission::Member),
    ("GET", "/api/alerts/{id}", Admission::Owned),
    ("POST", "/api/alerts/{id}/acknowledge", Admission::Owned),
    ("GET", "/api/alert-rules", Admission::Provider),
    ("PUT", "/api/alert-rules/{type}", Admission::Provider),
    ("DELETE", "/api/alert-rules/{type}", Admission::Provider),
    ("POST", "/api/alert-rules/{type}/mute", Admission::Provider),
    ("DELETE", "/api/alert-rules/{type}/mute", Admission::Provider),
    ("GET", "/api/tariffs/{id}/alert-rules", Admission::Provider),
    ("PUT", "/api/tariffs/{id}/alert-rules/{type}", Admission::Provider),
    ("DELETE", "/api/tariffs/{id}/alert-rules/{type}", Admission::Provider),
    ("GET", "/api/server/{id}/alert-rules", Admission::Owned),
    ("PUT", "/api/server/{id}/alert-rules/{type}", Admission::Owned),
    ("DELETE", "/api/server/{id}/alert-rules/{type}", Admission::Owned),
    ("POST", "/api/server/{id}/mute", Admission::Owned),
    ("DELETE", "/api/server/{id}/mute", Admission::Owned),
];

#[derive(Deserialize)]
struct RulePath<T> {
    id: T,
    r#type: AlertKind,
}

/// Path of an alert type below a server. [`ServerAccess`] reads the server's id.
#[derive(Deserialize)]
struct ServerRulePath {
    r#type: AlertKind,
}

/// List alerts: of the caller's servers, or all of them for a provider
#[utoipa::path(get, path = "/alerts", tag = "alerts", operation_id = "listAlerts", params(ListAlerts),
    responses((status = 200, body = Page<AlertView>), (status = 403, body = ErrorBody)))]
async fn list(
    State(core): State<Arc<Core>>,
    MemberCaller(caller): MemberCaller,
    Query(query): Query<ListAlerts>,
) -> Result<Json<Page<AlertView>>> {
    let page = PageQuery { page: query.page, limit: query.limit }.or_after(query.after.as_ref())?;
    let (alerts, total) = service::list(&core, &caller, &query, page.window()).await?;
    let page = Page::new(alerts, total, page);
    Ok(Json(match query.sort.unwrap_or_default() {
        Sort::RaisedAt => page.continued(|alert| Place { at: alert.raised_at, id: alert.id }),
        Sort::Level => page,
    }))
}

/// Get an alert
#[utoipa::path(get, path = "/alerts/{id}", tag = "alerts", operation_id = "getAlert",
    params(("id" = AlertId, Path, description = "The alert's id")), responses((status = 200, body = AlertView)))]
async fn get(Owned { caller, thing }: Owned<IncidentRow>) -> Json<AlertView> {
    Json(service::seen_by(&caller, thing))
}

/// Acknowledge an alert: no more email about it until it ends
#[utoipa::path(post, path = "/alerts/{id}/acknowledge", tag = "alerts", operation_id = "acknowledgeAlert",
    params(("id" = AlertId, Path, description = "The alert's id")), responses((status = 200, body = AlertView)))]
async fn acknowledge(State(core): State<Arc<Core>>, access: Owned<IncidentRow>, once: Once) -> Result<Json<AlertView>> {
    Ok(Json(service::acknowledge(&core, &once, &access).await?))
}

/// List the rules for everything (provider)
#[utoipa::path(get, path = "/alert-rules", tag = "alerts", operation_id = "listAlertRules",
    responses((status = 200, body = Vec<AlertRuleView>), (status = 403, body = ErrorBody)))]
async fn rules(State(core): State<Arc<Core>>, _: ProviderCaller) -> Result<Json<Vec<AlertRuleView>>> {
    Ok(Json(service::rules(&core, RuleQuery::Everything).await?))
}

/// Set a rule for everything that has no rule of its own (provider)
#[utoipa::path(put, path = "/alert-rules/{type}", tag = "alerts", operation_id = "setAlertRule",
    request_body = SetAlertRule,
    params(("type" = AlertKind, Path, description = "The type of alert")),
    responses((status = 200, body = AlertRuleView)))]
async fn put_rule(
    State(core): State<Arc<Core>>,
    _: ProviderCaller,
    Path(ServerRulePath { r#type }): Path<ServerRulePath>,
    Json(put): Json<SetAlertRule>,
) -> Result<Json<AlertRuleView>> {
    Ok(Json(service::put_rule(&core, RuleQuery::Everything, r#type.0, &put).await?))
}

/// Restore the built-in rule (provider)
#[utoipa::path(delete, path = "/alert-rules/{type}", tag = "alerts", operation_id = "deleteAlertRule",
    params(("type" = AlertKind, Path, description = "The type of alert")),
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn delete_rule(
    State(core): State<Arc<Core>>,
    _: ProviderCaller,
    Path(ServerRulePath { r#type }): Path<ServerRulePath>,
) -> Result<StatusCode> {
    service::delete_rule(&core, RuleQuery::Everything, r#type.0).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Mute one type of alert for a while (provider)
#[utoipa::path(post, path = "/alert-rules/{type}/mute", tag = "alerts", operation_id = "muteAlertRule",
    request_body = MuteRule, params(("type" = AlertKind, Path, description = "The type of alert")),
    responses((status = 200, body = MutedAlerts)))]
async fn mute_rule(
    State(core): State<Arc<Core>>,
    ProviderCaller(caller): ProviderCaller,
    Path(ServerRulePath { r#type }): Path<ServerRulePath>,
    Post(once, mute): Post<MuteRule>,
) -> Result<Json<MutedAlerts>> {
    Ok(Json(service::mute(&core, &once, &caller, None, Some(r#type.0), mute.until).await?))
}

/// Unmute one type of alert (provider)
#[utoipa::path(delete, path = "/alert-rules/{type}/mute", tag = "alerts", operation_id = "unmuteAlertRule",
    params(("type" = AlertKind, Path, description = "The type of alert")),
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn unmute_rule(
    State(core): State<Arc<Core>>,
    _: ProviderCaller,
    Path(ServerRulePath { r#type }): Path<ServerRulePath>,
) -> Result<StatusCode> {
    service::unmute(&core, None, Some(r#type.0)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List the effective rules for a tariff's servers (provider)
#[utoipa::path(get, path = "/tariffs/{id}/alert-rules", tag = "alerts", operation_id = "listTariffAlertRules",
    params(("id" = TariffId, Path, description = "The tariff's id")),
    responses((status = 200, body = Vec<AlertRuleView>), (status = 403, body = ErrorBody)))]
async fn tariff_rules(
    State(core): State<Arc<Core>>,
    _: ProviderCaller,
    Path(id): Path<TariffId>,
) -> Result<Json<Vec<AlertRuleView>>> {
    Ok(Json(service::rules(&core, service::of_tariff(&core, id).await?).await?))
}

/// Set a rule for a tariff's servers (provider)
#[utoipa::path(put, path = "/tariffs/{id}/alert-rules/{type}", tag = "alerts", operation_id = "setTariffAlertRule",
    request_body = SetAlertRule,
    params(("id" = TariffId, Path, description = "The tariff's id"),
        ("type" = AlertKind, Path, description = "The type of alert")),
    responses((status = 200, body = AlertRuleView)))]
async fn put_tariff_rule(
    State(core): State<Arc<Core>>,
    _: ProviderCaller,
    Path(RulePath { id, r#type }): Path<RulePath<TariffId>>,
    Json(put): Json<SetAlertRule>,
) -> Result<Json<AlertRuleView>> {
    Ok(Json(service::put_rule(&core, service::of_tariff(&core, id).await?, r#type.0, &put).await?))
}

/// Delete a tariff's rule (provider)
#[utoipa::path(delete, path = "/tariffs/{id}/alert-rules/{type}", tag = "alerts",
    operation_id = "deleteTariffAlertRule",
    params(("id" = TariffId, Path, description = "The tariff's id"),
        ("type" = AlertKind, Path, description = "The type of alert")),
    responses((status = 204)))]
async fn delete_tariff_rule(
    State(core): State<Arc<Core>>,
    _: ProviderCaller,
    Path(RulePath { id, r#type }): Path<RulePath<TariffId>>,
) -> Result<StatusCode> {
    service::delete_rule(&core, service::of_tariff(&core, id).await?, r#type.0).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn of_server(access: &ServerAccess) -> RuleQuery {
    RuleQuery::Server(access.thing.id, access.thing.tariff_id)
}

/// List the effective rules for a server
#[utoipa::path(get, path = "/server/{id}/alert-rules", tag = "alerts", operation_id = "listServerAlertRules",
    params(("id" = ServerId, Path, description = "The server's id")),
    responses((status = 200, body = Vec<AlertRuleView>)))]
async fn server_rules(State(core): State<Arc<Core>>, access: ServerAccess) -> Result<Json<Vec<AlertRuleView>>> {
    Ok(Json(service::rules(&core, of_server(&access)).await?))
}

/// Set a rule for one server
#[utoipa::path(put, path = "/server/{id}/alert-rules/{type}", tag = "alerts", operation_id = "setServerAlertRule",
    request_body = SetAlertRule,
    params(("id" = ServerId, Path, description = "The server's id"),
        ("type" = AlertKind, Path, description = "The type of alert")),
    responses((status = 200, body = AlertRuleView)))]
async fn put_server_rule(
    State(core): State<Arc<Core>>,
    access: ServerAccess,
    Path(ServerRulePath { r#type }): Path<ServerRulePath>,
    Json(put): Json<SetAlertRule>,
) -> Result<Json<AlertRuleView>> {
    Ok(Json(service::put_rule(&core, of_server(&access), r#type.0, &put).await?))
}

/// Delete a server's rule
#[utoipa::path(delete, path = "/server/{id}/alert-rules/{type}", tag = "alerts", operation_id = "deleteServerAlertRule",
    params(("id" = ServerId, Path, description = "The server's id"),
        ("type" = AlertKind, Path, description = "The type of alert")),
    responses((status = 204)))]
async fn delete_server_rule(
    State(core): State<Arc<Core>>,
    access: ServerAccess,
    Path(ServerRulePath { r#type }): Path<ServerRulePath>,
) -> Result<StatusCode> {
    service::delete_rule(&core, of_server(&access), r#type.0).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Mute a server's alerts for a while
#[utoipa::path(post, path = "/server/{id}/mute", tag = "alerts", operation_id = "muteServer", request_body = MuteAlerts,
    params(("id" = ServerId, Path, description = "The server's id")), responses((status = 200, body = MutedAlerts)))]
async fn mute_server(
    State(core): State<Arc<Core>>,
    access: ServerAccess,
    Post(once, mute): Post<MuteAlerts>,
) -> Result<Json<MutedAlerts>> {
    let (server, kind) = (Some(access.thing.id), mute.kind.map(|kind| kind.0));
    Ok(Json(service::mute(&core, &once, &access.caller, server, kind, mute.until).await?))
}

/// Unmute a server's alerts
#[utoipa::path(delete, path = "/server/{id}/mute", tag = "alerts", operation_id = "unmuteServer",
    params(("id" = ServerId, Path, description = "The server's id"), Unmute), responses((status = 204)))]
async fn unmute_server(
    State(core): State<Arc<Core>>,
    access: ServerAccess,
    Query(query): Query<Unmute>,
) -> Result<StatusCode> {
    service::unmute(&core, Some(access.thing.id), query.kind.map(|kind| kind.0)).await?;
    Ok(StatusCode::NO_CONTENT)
}
