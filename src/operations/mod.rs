//! Stub.
use crate::app::App;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
pub mod model;
pub mod service;
/// Stub
#[derive(Debug)]
pub struct Engine {}
/// Stub
pub trait AnyWorkflow {}
impl Engine {
    pub(crate) fn new(_c: &crate::config::Config, _w: Vec<Box<dyn AnyWorkflow>>) -> anyhow::Result<Self> {
        Ok(Self {})
    }
}
/// Stub
pub async fn work(_app: &App) {}
pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
}
