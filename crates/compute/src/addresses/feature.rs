//! Addresses as a part of the service.

use std::sync::Arc;

use async_trait::async_trait;
use kernel::auth::AccessRow;
use kernel::core::Core;
use kernel::error::Result;
use kernel::feature::Feature;
use utoipa_axum::router::OpenApiRouter;

use super::{routes, service};

/// Address pools, and what is given out of them.
#[derive(Debug)]
pub struct Addresses {
    pub(super) core: Arc<Core>,
}

impl Addresses {
    /// Of this service.
    pub fn new(core: &Arc<Core>) -> Arc<Self> {
        Arc::new(Self { core: Arc::clone(core) })
    }
}

#[async_trait]
impl Feature for Addresses {
    fn name(&self) -> &'static str {
        "addresses"
    }

    fn routes(self: Arc<Self>) -> OpenApiRouter {
        routes::routes().with_state(Arc::clone(&self.core))
    }

    fn access(&self) -> &'static [AccessRow] {
        routes::ACCESS
    }

    async fn upkeep(&self) -> Result<()> {
        service::purge(&self.core).await
    }
}
