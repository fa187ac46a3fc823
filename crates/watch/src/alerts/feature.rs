//! Alerts as a feature of the service.

use std::sync::Arc;

use accounts::Accounts;
use async_trait::async_trait;
use compute::addresses::Addresses;
use kernel::auth::AccessRow;
use kernel::core::Core;
use kernel::error::Result;
use kernel::feature::{BackgroundTask, Feature};
use kernel::settings::{self, Variables};
use utoipa_axum::router::OpenApiRouter;

use super::settings::AlertSettings;
use super::{routes, service};
use crate::monitoring::Monitoring;

/// Judges sweeps and sends notifications.
#[derive(Debug)]
pub struct Alerts {
    pub(super) core: Arc<Core>,
    pub(super) accounts: Arc<Accounts>,
    pub(super) addresses: Arc<Addresses>,
    pub(super) monitoring: Arc<Monitoring>,
    pub(super) settings: AlertSettings,
}

impl Alerts {
    /// Creates the feature.
    pub fn new(
        core: &Arc<Core>,
        accounts: &Arc<Accounts>,
        addresses: &Arc<Addresses>,
        monitoring: &Arc<Monitoring>,
    ) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            core: Arc::clone(core),
            accounts: Arc::clone(accounts),
            addresses: Arc::clone(addresses),
            monitoring: Arc::clone(monitoring),
            settings: core.config.read()?,
        }))
    }
}

#[async_trait]
impl Feature for Alerts {
    fn name(&self) -> &'static str {
        "alerts"
    }

    fn settings(&self) -> Variables {
        settings::variables::<AlertSettings>()
    }

    fn routes(self: Arc<Self>) -> OpenApiRouter {
        routes::routes().with_state(Arc::clone(&self.core))
    }

    fn access(&self) -> &'static [AccessRow] {
        routes::ACCESS
    }

    fn tasks(self: Arc<Self>) -> Vec<BackgroundTask> {
        vec![BackgroundTask::new("alerts", async move { super::run(&self).await })]
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
