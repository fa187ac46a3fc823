//! Servers as a part of the service.

use std::sync::Arc;

use accounts::Accounts;
use async_trait::async_trait;
use kernel::auth::{Access, AccessRow, Caller};
use kernel::error::{Error, Result};
use kernel::feature::Feature;
use kernel::operations::AnyWorkflow;
use kernel::settings::{self, Variables};
use kernel::subjects::SubjectKind;
use sqlx::{PgConnection, PgPool};
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

use super::figures::ServerFigures;
use super::placement::PlacementQueue;
use super::settings::ServerSettings;
use super::{SERVER_CHANGED, routes, service, store, subject, suspension, workflows};
use crate::hosts::{GuestKeys, Hosts};
use crate::ids::{AccountId, HostId, ServerId, UserId};

/// Servers, and what is done to their guests.
#[derive(Debug)]
pub struct Servers {
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) hosts: Arc<Hosts>,
    pub(crate) placing: PlacementQueue,
    pub(super) figures: Arc<dyn ServerFigures>,
    /// Its settings.
    pub settings: ServerSettings,
}

impl Servers {
    /// On these hosts, of these accounts, with these figures.
    pub fn new(
        accounts: &Arc<Accounts>,
        hosts: &Arc<Hosts>,
        figures: Arc<dyn ServerFigures>,
    ) -> anyhow::Result<Arc<Self>> {
        let settings = hosts.core.config.read()?;
        let (accounts, hosts) = (Arc::clone(accounts), Arc::clone(hosts));
        Ok(Arc::new(Self { accounts, hosts, placing: PlacementQueue::default(), figures, settings }))
    }
}

/// Pins the host keys of guests with their servers.
#[derive(Debug)]
pub struct PinnedGuestKeys;

#[async_trait]
impl GuestKeys for PinnedGuestKeys {
    async fn pin(&self, db: &PgPool, host: HostId, marker: Uuid, key: &str) -> sqlx::Result<Option<String>> {
        store::pin_guest(db, host, marker, key).await
    }
}

impl Feature for Servers {
    fn name(&self) -> &'static str {
        "servers"
    }

    fn settings(&self) -> Variables {
        settings::variables::<ServerSettings>()
    }

    fn routes(self: Arc<Self>) -> OpenApiRouter {
        routes::routes().with_state(self)
    }

    fn access(&self) -> &'static [AccessRow] {
        routes::ACCESS
    }

    fn workflows(self: Arc<Self>) -> Vec<Box<dyn AnyWorkflow>> {
        workflows::all(&self)
    }

    fn subjects(self: Arc<Self>) -> Vec<Arc<dyn SubjectKind>> {
        vec![self]
    }

    fn topics(&self) -> Vec<&'static str> {
        vec![SERVER_CHANGED.channel]
    }
}

/// Servers are what operations are about.
#[async_trait]
impl SubjectKind for Servers {
    fn kind(&self) -> &'static str {
        subject::KIND
    }

    fn is_id(&self, id: &str) -> bool {
        id.parse().is_ok_and(|number: i64| number > 0 && number.to_string() == id)
    }

    async fn owned_by(&self, account: AccountId) -> Result<Vec<String>> {
        let servers = store::owned_by(&self.hosts.core.db, account).await?;
        Ok(servers.iter().map(ToString::to_string).collect())
    }

    async fn authorize(&self, caller: &Caller, id: &str, level: Access) -> Result<()> {
        service::authorize(&self.hosts.core, caller, server(id)?, level).await
    }

    async fn refused(&self, asked: &[(Caller, Vec<String>)], level: Access) -> Result<Vec<Vec<(String, Error)>>> {
        let servers = |ids: &Vec<String>| ids.iter().map(|id| server(id)).collect::<Result<_>>();
        let asked: Vec<_> =
            asked.iter().map(|(caller, ids)| Ok((caller.clone(), servers(ids)?))).collect::<Result<_>>()?;
        let refused = service::refused(&self.hosts.core, &asked, level).await?;
        let text = |(server, error): (ServerId, Error)| (server.to_string(), error);
        Ok(refused.into_iter().map(|refused| refused.into_iter().map(text).collect()).collect())
    }

    async fn abandoned(&self, tx: &mut PgConnection, id: &str) -> Result<()> {
        service::let_show(tx, server(id)?).await
    }

    async fn suspend_owned(
        &self,
        tx: &mut PgConnection,
        by: Option<UserId>,
        account: AccountId,
        reason: Option<&str>,
    ) -> Result<()> {
        suspension::suspend_all(&self.hosts.core, tx, by, account, reason).await
    }

    async fn in_use(&self, tx: &mut PgConnection, account: AccountId) -> Result<i64> {
        Ok(store::count_of(tx, account).await?)
    }
}

fn server(id: &str) -> Result<ServerId> {
    id.parse().map_err(|_| Error::not_found("server"))
}
