//! Accounts as a part of the service.

use std::sync::Arc;

use async_trait::async_trait;
use kernel::auth::{AccessRow, Authenticator, Caller, ClientAddress};
use kernel::core::Core;
use kernel::error::Result;
use kernel::feature::Feature;
use kernel::ids::AccountId;
use kernel::settings::{self, Variables};
use utoipa_axum::router::OpenApiRouter;

use super::cache::TokenCache;
use super::settings::AccountSettings;
use super::topics::AUTH_CHANGED;
use super::{pages, routes, service};

/// Who may sign in, and what tokens are worth.
#[derive(Debug)]
pub struct Accounts {
    pub(super) core: Arc<Core>,
    /// Its settings.
    pub settings: AccountSettings,
    /// Who showed which token a moment ago.
    pub(super) tokens: Arc<TokenCache>,
}

impl Accounts {
    /// The accounts of this database.
    pub fn new(core: &Arc<Core>) -> anyhow::Result<Arc<Self>> {
        let settings: AccountSettings = core.config.read()?;
        let tokens = Arc::new(TokenCache::new(settings.token_life));
        // The cache has to be emptied before others check access again.
        core.events.add_listener(Arc::clone(&tokens) as _);
        Ok(Arc::new(Self { core: Arc::clone(core), settings, tokens }))
    }
}

#[async_trait]
impl Authenticator for Accounts {
    async fn authenticate(&self, token: &str, account: Option<AccountId>, from: ClientAddress) -> Result<Caller> {
        service::authenticate(self, token, account, from).await
    }
}

#[async_trait]
impl Feature for Accounts {
    fn name(&self) -> &'static str {
        "accounts"
    }

    fn settings(&self) -> Variables {
        settings::variables::<AccountSettings>()
    }

    fn routes(self: Arc<Self>) -> OpenApiRouter {
        routes::routes().with_state(self)
    }

    fn pages(self: Arc<Self>) -> OpenApiRouter {
        pages::pages()
    }

    fn access(&self) -> &'static [AccessRow] {
        routes::ACCESS
    }

    fn topics(&self) -> Vec<&'static str> {
        vec![AUTH_CHANGED.channel]
    }

    async fn upkeep(&self) -> Result<()> {
        service::purge(self).await
    }
}
