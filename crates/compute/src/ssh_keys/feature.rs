//! SSH keys as a part of the service.

use std::sync::Arc;

use async_trait::async_trait;
use kernel::auth::AccessRow;
use kernel::core::Core;
use kernel::error::Result;
use kernel::feature::Feature;
use utoipa_axum::router::OpenApiRouter;

use super::{routes, store};

/// The SSH keys of accounts.
#[derive(Debug)]
pub struct SshKeys {
    pub(super) core: Arc<Core>,
}

impl SshKeys {
    /// Of this service.
    pub fn new(core: &Arc<Core>) -> Arc<Self> {
        Arc::new(Self { core: Arc::clone(core) })
    }
}

#[async_trait]
impl Feature for SshKeys {
    fn name(&self) -> &'static str {
        "ssh_keys"
    }

    fn routes(self: Arc<Self>) -> OpenApiRouter {
        routes::routes().with_state(Arc::clone(&self.core))
    }

    fn access(&self) -> &'static [AccessRow] {
        routes::ACCESS
    }

    async fn upkeep(&self) -> Result<()> {
        Ok(store::purge(&self.core.db).await?)
    }
}
