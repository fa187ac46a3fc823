//! Consoles as a part of the service.

use std::sync::Arc;

use accounts::Accounts;
use async_trait::async_trait;
use kernel::auth::AccessRow;
use kernel::core::Core;
use kernel::error::Result;
use kernel::feature::Feature;
use kernel::settings::{self, Variables};
use utoipa_axum::router::OpenApiRouter;

use super::settings::ConsoleSettings;
use super::{routes, service};
use crate::hosts::Hosts;

/// Consoles in the browser.
#[derive(Debug)]
pub struct Consoles {
    pub(super) core: Arc<Core>,
    pub(super) accounts: Arc<Accounts>,
    pub(super) hosts: Arc<Hosts>,
    pub(super) settings: ConsoleSettings,
}

impl Consoles {
    /// Of servers on these hosts, for these accounts.
    pub fn new(core: &Arc<Core>, accounts: &Arc<Accounts>, hosts: &Arc<Hosts>) -> anyhow::Result<Arc<Self>> {
        let (core, settings) = (Arc::clone(core), core.config.read()?);
        Ok(Arc::new(Self { core, accounts: Arc::clone(accounts), hosts: Arc::clone(hosts), settings }))
    }
}

#[async_trait]
impl Feature for Consoles {
    fn name(&self) -> &'static str {
        "console"
    }

    fn settings(&self) -> Variables {
        settings::variables::<ConsoleSettings>()
    }

    fn routes(self: Arc<Self>) -> OpenApiRouter {
        routes::routes().with_state(self)
    }

    fn pages(self: Arc<Self>) -> OpenApiRouter {
        routes::pages().with_state(self)
    }

    fn access(&self) -> &'static [AccessRow] {
        routes::ACCESS
    }

    async fn upkeep(&self) -> Result<()> {
        service::purge(&self.core).await
    }

    fn describe(&self) {
        metrics::describe_gauge!("innkeeper_consoles", "Open consoles.");
    }
}
