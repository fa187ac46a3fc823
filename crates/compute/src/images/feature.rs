//! Images as a part of the service.

use std::sync::Arc;

use kernel::auth::AccessRow;
use kernel::feature::{BackgroundTask, Feature};
use utoipa_axum::router::OpenApiRouter;

use super::{routes, service};
use crate::hosts::Hosts;

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
