//! Images as a part of the service.

use std::sync::Arc;

use async_trait::async_trait;
use hypervisor::Node;
use kernel::auth::AccessRow;
use kernel::feature::{BackgroundTask, Feature};
use utoipa_axum::router::OpenApiRouter;

use super::{routes, service};
use crate::hosts::{HostProblems, Hosts};
use crate::ids::HostId;

/// What servers are made from.
#[derive(Debug)]
pub struct Images {
    pub(super) hosts: Arc<Hosts>,
}

impl Images {
    /// On these hosts.
    pub fn new(hosts: &Arc<Hosts>) -> Arc<Self> {
        Arc::new(Self { hosts: Arc::clone(hosts) })
    }
}

/// Reports images that some of a host's nodes lack.
#[derive(Debug)]
pub struct ImagesOnNodes;

#[async_trait]
impl HostProblems for ImagesOnNodes {
    async fn problems(&self, hosts: &Hosts, host: HostId, nodes: &[Node]) -> Vec<String> {
        let missing = service::missing_on_nodes(hosts, host, nodes).await;
        missing.unwrap_or_else(|error| vec![format!("Could not check which nodes have its images: {error}")])
    }
}

impl Feature for Images {
    fn name(&self) -> &'static str {
        "images"
    }

    fn routes(self: Arc<Self>) -> OpenApiRouter {
        routes::routes().with_state(Arc::clone(&self.hosts))
    }

    fn access(&self) -> &'static [AccessRow] {
        routes::ACCESS
    }

    fn tasks(self: Arc<Self>) -> Vec<BackgroundTask> {
        vec![BackgroundTask::new("images", async move { service::watch(&self.hosts).await })]
    }
}
