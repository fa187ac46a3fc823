//! Snapshots as a part of the service.

use std::sync::Arc;

use kernel::auth::AccessRow;
use kernel::feature::Feature;
use kernel::operations::AnyWorkflow;
use utoipa_axum::router::OpenApiRouter;

use super::{routes, workflows};
use crate::hosts::Hosts;

/// Snapshots of servers.
#[derive(Debug)]
pub struct Snapshots {
    pub(super) hosts: Arc<Hosts>,
}

impl Snapshots {
    /// On these hosts.
    pub fn new(hosts: &Arc<Hosts>) -> Arc<Self> {
        Arc::new(Self { hosts: Arc::clone(hosts) })
    }
}

impl Feature for Snapshots {
    fn name(&self) -> &'static str {
        "snapshots"
    }

    fn routes(self: Arc<Self>) -> OpenApiRouter {
        routes::routes().with_state(Arc::clone(&self.hosts))
    }

    fn access(&self) -> &'static [AccessRow] {
        routes::ACCESS
    }

    fn workflows(self: Arc<Self>) -> Vec<Box<dyn AnyWorkflow>> {
        workflows::all(&self.hosts)
    }
}
