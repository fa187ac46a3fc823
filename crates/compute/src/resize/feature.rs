//! Changes of size as a part of the service.

use std::sync::Arc;

use kernel::auth::AccessRow;
use kernel::feature::Feature;
use kernel::operations::AnyWorkflow;
use utoipa_axum::router::OpenApiRouter;

use super::{routes, workflow};
use crate::hosts::Hosts;

/// What gives servers another size.
#[derive(Debug)]
pub struct Resizes {
    pub(super) hosts: Arc<Hosts>,
}

impl Resizes {
    /// On these hosts.
    pub fn new(hosts: &Arc<Hosts>) -> Arc<Self> {
        Arc::new(Self { hosts: Arc::clone(hosts) })
    }
}

impl Feature for Resizes {
    fn name(&self) -> &'static str {
        "resize"
    }

    fn routes(self: Arc<Self>) -> OpenApiRouter {
        routes::routes().with_state(Arc::clone(&self.hosts))
    }

    fn access(&self) -> &'static [AccessRow] {
        routes::ACCESS
    }

    fn workflows(self: Arc<Self>) -> Vec<Box<dyn AnyWorkflow>> {
        vec![Box::new(workflow::workflow(&self.hosts))]
    }
}
