//! Health for orchestrators and figures for Prometheus.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::Json;
use crate::app::App;
use crate::error::{Code, Error, Result};
use crate::{monitoring, secrets};

/// How the service feels.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Health {
    /// `ok`.
    status: &'static str,
}

/// How often the database is asked whether it is there, at most.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Says what each figure of this process is. What is counted anywhere has its line here.
pub(crate) fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!("innkeeper_http_requests_total", "Requests that were answered.");
    describe_histogram!("innkeeper_http_request_seconds", "How long requests took.");
    describe_counter!("innkeeper_panics_total", "Panics that were caught: faults of ours.");
    describe_counter!("innkeeper_operations_total", "Operations that came to an end, or to a stop.");
    describe_histogram!("innkeeper_sweep_seconds", "How long sweeps that succeeded took.");
    describe_counter!("innkeeper_sweep_failures_total", "Sweeps that failed.");
    describe_gauge!("innkeeper_guests", "Guests of ours that the last sweep saw.");
    describe_gauge!("innkeeper_unknown_guests", "Guests with our marker that no server goes with.");
    describe_counter!("innkeeper_mails_total", "Mails, by what became of them.");
    describe_counter!("innkeeper_alerts_raised_total", "Alerts that were raised or became critical.");
    describe_counter!("innkeeper_alerts_resolved_total", "Alerts that ended.");
    describe_gauge!("innkeeper_sockets", "Sockets of the live view that are open.");
    describe_counter!(
        "innkeeper_sockets_dropped_total",
        "Sockets that were closed because they took nothing any more."
    );
    describe_gauge!("innkeeper_consoles", "Consoles that are open.");
}

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(live)).routes(routes!(ready)).routes(routes!(metrics))
}

/// Whether the process runs
#[utoipa::path(get, path = "/health/live", tag = "health", operation_id = "getLiveness", security(()),
    responses((status = 200, body = Health)))]
async fn live() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Whether it can do its work: the database answers, and takes changes
#[utoipa::path(get, path = "/health/ready", tag = "health", operation_id = "getReadiness", security(()),
    responses((status = 200, body = Health), (status = 503, body = super::ErrorBody)))]
async fn ready(State(app): State<Arc<App>>) -> Result<Json<Health>> {
    // Whoever asks meanwhile hears the same: health is open to all, and the database is not theirs to keep busy.
    let mut looked = app.readiness.lock().await;
    if looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
        *looked = None;
        let writes = sqlx::query_scalar!(
            r#"select not (pg_is_in_recovery() or current_setting('transaction_read_only')::bool) as "writes!""#
        );
        if !writes.fetch_one(&app.db).await? {
            let error = Error::new(Code::DatabaseUnavailable, "Our database can be read, and takes no changes.");
            return Err(Error { retry_after: Some(Duration::from_secs(5)), ..error });
        }
        *looked = Some(Instant::now());
    }
    Ok(Json(Health { status: "ok" }))
}

/// Figures of this process, and of every host and server at its last sweep, in Prometheus' text format
///
/// For a scraper that shows the bearer token of `INNKEEPER_METRICS_TOKEN`. Without that setting there is nothing here:
/// where `INNKEEPER_METRICS_LISTEN` is set, the same figures are on an address of their own.
#[utoipa::path(get, path = "/metrics", tag = "health", operation_id = "getMetrics", security(()),
    responses((status = 200, body = String, content_type = "text/plain"), (status = 404, body = super::ErrorBody),
        (status = 503, body = super::ErrorBody)))]
async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<impl IntoResponse> {
    let shown = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    // Hashes take the same time to compare wherever they differ, or tell nothing by it.
    let is_it = |wanted: &SecretString| {
        shown.is_some_and(|shown| secrets::hash_token(shown) == secrets::hash_token(wanted.expose_secret().trim()))
    };
    // To everybody else there is nothing here.
    if !app.config.metrics_token.as_ref().is_some_and(is_it) {
        return Err(Error::not_found("page"));
    }
    page(&app).await
}

/// The same on a listener of its own, for whoever reaches that.
pub(crate) fn figures(app: Arc<App>) -> Router {
    let show = async |State(app): State<Arc<App>>| page(&app).await;
    Router::new()
        .route("/metrics", axum::routing::get(show))
        .layer(axum::middleware::from_fn(super::error::finish))
        .with_state(app)
}

async fn page(app: &App) -> Result<impl IntoResponse + use<>> {
    let text = app.metrics.render() + &monitoring::prometheus::fleet(app).await?;
    Ok(([("content-type", "text/plain; version=0.0.4")], text))
}
