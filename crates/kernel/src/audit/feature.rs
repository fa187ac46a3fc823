//! The audit log as a part of the service.

use std::sync::Arc;

use async_trait::async_trait;
use utoipa_axum::router::OpenApiRouter;

use super::{routes, service};
use crate::auth::AccessRow;
use crate::core::Core;
use crate::error::Result;
use crate::feature::Feature;

/// What shows the audit log and keeps it within its time.
#[derive(Debug)]
pub struct Audit(pub Arc<Core>);

#[async_trait]
impl Feature for Audit {
    fn name(&self) -> &'static str {
        "audit"
    }

    fn routes(self: Arc<Self>) -> OpenApiRouter {
        routes::routes().with_state(Arc::clone(&self.0))
    }

    fn access(&self) -> &'static [AccessRow] {
        routes::ACCESS
    }

    async fn upkeep(&self) -> Result<()> {
        service::upkeep(&self.0).await
    }
}
