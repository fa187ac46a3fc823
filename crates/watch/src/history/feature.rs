//! History as a feature of the service.

use std::sync::Arc;

use kernel::auth::AccessRow;
use kernel::core::Core;
use kernel::feature::{BackgroundTask, Feature};
use utoipa_axum::router::OpenApiRouter;

use super::{routes, service};

/// Aggregates samples over time, and shows charts and monthly traffic.
#[derive(Debug)]
pub struct History {
    pub(super) core: Arc<Core>,
}

impl History {
    /// Creates the feature.
    pub fn new(core: &Arc<Core>) -> Arc<Self> {
        Arc::new(Self { core: Arc::clone(core) })
    }
}

impl Feature for History {
    fn name(&self) -> &'static str {
        "history"
    }

    fn routes(self: Arc<Self>) -> OpenApiRouter {
        routes::routes().with_state(Arc::clone(&self.core))
    }

    fn access(&self) -> &'static [AccessRow] {
        routes::ACCESS
    }

    fn tasks(self: Arc<Self>) -> Vec<BackgroundTask> {
        vec![BackgroundTask::new("history", async move { service::keep(&self.core).await })]
    }
}
