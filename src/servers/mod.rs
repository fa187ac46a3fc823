//! Stub.
use crate::app::App;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
pub mod service;
pub mod workflows;
pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
}
