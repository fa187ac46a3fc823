//! Unknown guests as a part of the service.

use std::sync::Arc;

use kernel::auth::AccessRow;
use kernel::feature::Feature;
use utoipa_axum::router::OpenApiRouter;

use super::routes;
use crate::servers::Servers;

/// Guests with our marker that belong to no server.
#[derive(Debug)]
pub struct UnknownGuests {
    pub(super) servers: Arc<Servers>,
}

impl UnknownGuests {
    /// Of these servers' hosts.
    pub fn new(servers: &Arc<Servers>) -> Arc<Self> {
        Arc::new(Self { servers: Arc::clone(servers) })
    }
}

impl Feature for UnknownGuests {
    fn name(&self) -> &'static str {
        "unknown_guests"
    }

    fn routes(self: Arc<Self>) -> OpenApiRouter {
        routes::routes().with_state(Arc::clone(&self.servers))
    }

    fn access(&self) -> &'static [AccessRow] {
        routes::ACCESS
    }

    fn describe(&self) {
        metrics::describe_gauge!("innkeeper_unknown_guests", "Guests with our marker that belong to no server.");
    }
}
