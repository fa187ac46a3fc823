//! Addresses as a part of the service.

use std::sync::Arc;

use async_trait::async_trait;
use kernel::auth::AccessRow;
use kernel::core::Core;
use kernel::error::Result;
use kernel::feature::Feature;
use kernel::settings::{self, Variables};
use utoipa_axum::router::OpenApiRouter;

use super::settings::AddressSettings;
use super::{routes, service};

/// Address pools, and what is given out of them.
#[derive(Debug)]
pub struct Addresses {
    pub(super) core: Arc<Core>,
    /// Its settings.
    pub settings: AddressSettings,
}

impl Addresses {
    /// Of this service.
    pub fn new(core: &Arc<Core>) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self { core: Arc::clone(core), settings: core.config.read()? }))
    }
}

#[async_trait]
impl Feature for Addresses {
    fn name(&self) -> &'static str {
        "addresses"
    }

    fn settings(&self) -> Variables {
        settings::variables::<AddressSettings>()
    }

    fn routes(self: Arc<Self>) -> OpenApiRouter {
        routes::routes().with_state(self)
    }

    fn access(&self) -> &'static [AccessRow] {
        routes::ACCESS
    }

    async fn upkeep(&self) -> Result<()> {
        service::purge(&self.core).await
    }
}
