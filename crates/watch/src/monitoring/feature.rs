//! Monitoring as a feature of the service.

use std::sync::Arc;

use async_trait::async_trait;
use kernel::auth::AccessRow;
use kernel::core::Core;
use kernel::error::Result;
use kernel::feature::Feature;
use utoipa_axum::router::OpenApiRouter;

use super::{SAMPLED, prometheus, routes};

/// Shows the results of sweeps.
#[derive(Debug)]
pub struct Monitoring {
    pub(super) core: Arc<Core>,
}

impl Monitoring {
    /// Creates the feature.
    pub fn new(core: &Arc<Core>) -> Arc<Self> {
        Arc::new(Self { core: Arc::clone(core) })
    }
}

#[async_trait]
impl Feature for Monitoring {
    fn name(&self) -> &'static str {
        "monitoring"
    }

    fn routes(self: Arc<Self>) -> OpenApiRouter {
        routes::routes().with_state(Arc::clone(&self.core))
    }

    fn access(&self) -> &'static [AccessRow] {
        routes::ACCESS
    }

    fn topics(&self) -> Vec<&'static str> {
        vec![SAMPLED.channel]
    }

    async fn figures(&self) -> Result<String> {
        prometheus::host_and_server_metrics(&self.core).await
    }
}
