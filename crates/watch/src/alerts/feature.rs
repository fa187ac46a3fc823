//! Alerts as a feature of the service.

use std::sync::Arc;

use async_trait::async_trait;
use kernel::auth::AccessRow;
use kernel::core::Core;
use kernel::error::Result;
use kernel::feature::{BackgroundTask, Feature};
use utoipa_axum::router::OpenApiRouter;

use super::{routes, service};

/// Judges sweeps and sends notifications.
#[derive(Debug)]
pub struct Alerts {
    pub(super) core: Arc<Core>,
}

impl Alerts {
    /// Creates the feature.
    pub fn new(core: &Arc<Core>) -> Arc<Self> {
        Arc::new(Self { core: Arc::clone(core) })
    }
}

#[async_trait]
impl Feature for Alerts {
    fn name(&self) -> &'static str {
        "alerts"
    }

    fn routes(self: Arc<Self>) -> OpenApiRouter {
        routes::routes().with_state(Arc::clone(&self.core))
    }

    fn access(&self) -> &'static [AccessRow] {
        routes::ACCESS
    }

    fn tasks(self: Arc<Self>) -> Vec<BackgroundTask> {
        vec![BackgroundTask::new("alerts", async move { super::run(&self.core).await })]
    }

    async fn upkeep(&self) -> Result<()> {
        service::purge(&self.core).await
    }

    fn describe(&self) {
        use metrics::describe_counter;
        describe_counter!("innkeeper_alerts_raised_total", "Alerts raised or escalated to critical.");
        describe_counter!("innkeeper_alerts_resolved_total", "Alerts resolved.");
    }
}
