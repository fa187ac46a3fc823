//! Changes of size as a part of the service.

use std::sync::Arc;

use kernel::auth::AccessRow;
use kernel::feature::Feature;
use kernel::operations::AnyWorkflow;
use utoipa_axum::router::OpenApiRouter;

use super::{routes, workflow};
use crate::servers::Servers;

/// What gives servers another size.
#[derive(Debug)]
pub struct Resizes {
    servers: Arc<Servers>,
}

impl Resizes {
    /// Of these servers.
    pub fn new(servers: &Arc<Servers>) -> Arc<Self> {
        Arc::new(Self { servers: Arc::clone(servers) })
    }
}

impl Feature for Resizes {
    fn name(&self) -> &'static str {
        "resize"
    }

    fn routes(self: Arc<Self>) -> OpenApiRouter {
        routes::routes().with_state(Arc::clone(&self.servers))
    }

    fn access(&self) -> &'static [AccessRow] {
        routes::ACCESS
    }

    fn workflows(self: Arc<Self>) -> Vec<Box<dyn AnyWorkflow>> {
        vec![Box::new(workflow::workflow(&self.servers))]
    }
}
