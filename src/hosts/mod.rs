//! Stub.
use crate::app::App;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
pub mod service;
pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
}
/// Connections to hosts, made at first use and again after a host's settings changed.
#[derive(Debug, Default)]
pub struct Drivers {}
