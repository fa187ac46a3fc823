//! Monitoring as a feature of the service.

use std::sync::Arc;

use async_trait::async_trait;
use kernel::auth::AccessRow;
use kernel::core::Core;
use kernel::error::Result;
use kernel::feature::Feature;
use kernel::settings::{self, Variables};
use utoipa_axum::router::OpenApiRouter;

use super::settings::MonitoringSettings;
use super::{Charts, SAMPLED, prometheus, routes};

/// Shows the results of sweeps.
#[derive(Debug)]
pub struct Monitoring {
    pub(super) core: Arc<Core>,
    /// Its settings.
    pub settings: MonitoringSettings,
}

impl Monitoring {
    /// Creates the feature.
    pub fn new(core: &Arc<Core>) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self { core: Arc::clone(core), settings: core.config.read()? }))
    }

    /// Charts that a reader keeps from one sweep to the next.
    pub fn charts(&self) -> Charts {
        Charts::new(self.settings.sweep_interval() * 2)
    }
}

#[async_trait]
impl Feature for Monitoring {
    fn name(&self) -> &'static str {
        "monitoring"
    }

    fn settings(&self) -> Variables {
        settings::variables::<MonitoringSettings>()
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
