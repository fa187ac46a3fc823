//! Hosts as a part of the service.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use hypervisor::{Driver, Node};
use kernel::auth::AccessRow;
use kernel::core::Core;
use kernel::error::Result;
use kernel::feature::Feature;
use kernel::keyring::SealCounts;
use utoipa_axum::router::OpenApiRouter;

use super::drivers::Drivers;
use super::{GuestKeys, routes, service};
use crate::addresses::Addresses;
use crate::ids::HostId;

/// What a feature that stands on hosts finds wrong with one when it is checked.
#[async_trait]
pub trait HostProblems: Debug + Send + Sync + 'static {
    /// A sentence for each problem.
    async fn problems(&self, hosts: &Hosts, host: HostId, nodes: &[Node]) -> Vec<String>;
}

/// The hosts, with connections to them.
#[derive(Debug)]
pub struct Hosts {
    /// What every part of the service shares.
    pub core: Arc<Core>,
    /// Connections to hosts.
    pub drivers: Drivers,
    /// The addresses of guests.
    pub addresses: Arc<Addresses>,
    pub(super) guest_keys: Arc<dyn GuestKeys>,
    pub(super) problems: Vec<Arc<dyn HostProblems>>,
}

impl Hosts {
    /// Of this service. Features that stand on hosts bring where guests' keys are pinned, and what else to check.
    pub fn new(
        core: &Arc<Core>,
        addresses: &Arc<Addresses>,
        guest_keys: Arc<dyn GuestKeys>,
        problems: Vec<Arc<dyn HostProblems>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            core: Arc::clone(core),
            drivers: Drivers::default(),
            addresses: Arc::clone(addresses),
            guest_keys,
            problems,
        })
    }

    /// The driver of a host, enabled or not. A change of the host's settings takes effect with the next call, in every
    /// process.
    pub async fn driver(&self, host: HostId) -> Result<Arc<dyn Driver>> {
        service::driver(self, host).await
    }
}

#[async_trait]
impl Feature for Hosts {
    fn name(&self) -> &'static str {
        "hosts"
    }

    fn routes(self: Arc<Self>) -> OpenApiRouter {
        routes::routes().with_state(self)
    }

    fn access(&self) -> &'static [AccessRow] {
        routes::ACCESS
    }

    async fn reseal(&self, change: bool) -> Result<Vec<(&'static str, SealCounts)>> {
        Ok(vec![("settings of hosts", service::reseal(&self.core, change).await?)])
    }
}
