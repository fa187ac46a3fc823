//! Snapshots as a part of the service.

use std::sync::Arc;

use kernel::auth::AccessRow;
use kernel::feature::Feature;
use kernel::operations::AnyWorkflow;
use utoipa_axum::router::OpenApiRouter;

use super::{routes, workflows};
use crate::servers::Servers;

/// Snapshots of servers.
#[derive(Debug)]
pub struct Snapshots {
    servers: Arc<Servers>,
}

impl Snapshots {
    /// Of these servers.
    pub fn new(servers: &Arc<Servers>) -> Arc<Self> {
        Arc::new(Self { servers: Arc::clone(servers) })
    }
}

impl Feature for Snapshots {
    fn name(&self) -> &'static str {
        "snapshots"
    }

    fn routes(self: Arc<Self>) -> OpenApiRouter {
        routes::routes().with_state(Arc::clone(&self.servers))
    }

    fn access(&self) -> &'static [AccessRow] {
        routes::ACCESS
    }

    fn workflows(self: Arc<Self>) -> Vec<Box<dyn AnyWorkflow>> {
        workflows::all(&self.servers)
    }
}
