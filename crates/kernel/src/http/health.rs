//! Health checks for orchestrators, and metrics for Prometheus.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::bearer;
use super::extract::Json;
use crate::auth::{AccessRow, Admission};
use crate::core::Core;
use crate::error::{Code, Error, Result};
use crate::feature::Feature;
use crate::secrets;

/// Health of the service.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Health {
    /// Always `ok`.
    status: &'static str,
}

/// How often readiness checks query the database, at most.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A database that takes longer than this to answer serves nobody.
const PATIENCE: Duration = Duration::from_secs(2);

/// Describes the kernel's own metrics; each feature describes its own.
pub fn describe() {
    use metrics::{describe_counter, describe_histogram};
    describe_counter!("innkeeper_http_requests_total", "HTTP requests answered.");
    describe_histogram!("innkeeper_http_request_seconds", "Duration of HTTP requests.");
    describe_counter!("innkeeper_panics_total", "Panics caught: bugs in the service.");
}

/// What health and metrics are computed from.
#[derive(Debug)]
struct HealthState {
    core: Arc<Core>,
    features: Vec<Arc<dyn Feature>>,
    /// When the database last answered.
    readiness: Mutex<Option<Instant>>,
}

pub(super) fn routes(core: &Arc<Core>, features: &[Arc<dyn Feature>]) -> OpenApiRouter {
    let probes = HealthState { core: Arc::clone(core), features: features.to_vec(), readiness: Mutex::default() };
    OpenApiRouter::new()
        .routes(routes!(live))
        .routes(routes!(ready))
        .routes(routes!(metrics))
        .with_state(Arc::new(probes))
}

/// Who may call what.
pub const ACCESS: &[AccessRow] = &[
    ("GET", "/health/live", Admission::Open),
    ("GET", "/health/ready", Admission::Open),
    ("GET", "/metrics", Admission::Open),
];

/// Check that the process is running
#[utoipa::path(get, path = "/health/live", tag = "health", operation_id = "getLiveness", security(()),
    responses((status = 200, body = Health)))]
async fn live() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Check that the service can work: the database answers and accepts writes
#[utoipa::path(get, path = "/health/ready", tag = "health", operation_id = "getReadiness", security(()),
    responses((status = 200, body = Health), (status = 503, body = super::ErrorBody)))]
async fn ready(State(probes): State<Arc<HealthState>>) -> Result<Json<Health>> {
    // Concurrent callers share one check: health is open to everyone, and must not be a way to load the database.
    let mut looked = probes.readiness.lock().await;
    if looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
        *looked = None;
        let writes = sqlx::query_scalar!(
            r#"select not (pg_is_in_recovery() or current_setting('transaction_read_only')::bool) as "writes!""#
        );
        let not_ready = |message: &str| Error {
            retry_after: Some(Duration::from_secs(5)),
            ..Error::new(Code::DatabaseUnavailable, message)
        };
        let Ok(writes) = tokio::time::timeout(PATIENCE, writes.fetch_one(&probes.core.db)).await else {
            return Err(not_ready("Our database answers too slowly at the moment."));
        };
        if !writes? || probes.core.heart.has_failed() {
            return Err(not_ready("Our database is read-only or full at the moment."));
        }
        *looked = Some(Instant::now());
    }
    Ok(Json(Health { status: "ok" }))
}

/// Metrics of this process, and of every host and server at its last sweep, in the Prometheus text format
///
/// For scrapers that send the bearer token from `INNKEEPER_METRICS_TOKEN`. Without that setting this route does not
/// exist; if `INNKEEPER_METRICS_LISTEN` is set, the same metrics are served on an address of their own.
#[utoipa::path(get, path = "/metrics", tag = "health", operation_id = "getMetrics", security(()),
    responses((status = 200, body = String, content_type = "text/plain"), (status = 404, body = super::ErrorBody),
        (status = 503, body = super::ErrorBody)))]
async fn metrics(State(probes): State<Arc<HealthState>>, headers: HeaderMap) -> Result<impl IntoResponse> {
    let shown = bearer(&headers);
    // Hashes are compared, so the time it takes reveals nothing about the token.
    let is_it = |wanted: &SecretString| {
        shown.is_some_and(|shown| secrets::hash_token(shown) == secrets::hash_token(wanted.expose_secret().trim()))
    };
    // For everyone else this route does not exist.
    if !probes.core.config.metrics_token.as_ref().is_some_and(is_it) {
        return Err(Error::not_found("page"));
    }
    page(&probes.core, &probes.features).await
}

/// The same metrics on a listener of their own, for anyone who can reach it.
pub fn figures(core: &Arc<Core>, features: &[Arc<dyn Feature>]) -> Router {
    let (core, features) = (Arc::clone(core), Arc::<[_]>::from(features));
    let show = async move || page(&core, &features).await;
    Router::new().route("/metrics", axum::routing::get(show)).layer(axum::middleware::from_fn(super::error::finish))
}

async fn page(core: &Core, features: &[Arc<dyn Feature>]) -> Result<impl IntoResponse + use<>> {
    let mut text = core.metrics.render();
    for feature in features {
        text += &feature.figures().await?;
    }
    Ok(([("content-type", "text/plain; version=0.0.4")], text))
}
