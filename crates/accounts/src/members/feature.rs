//! Accounts and their members as a part of the service.

use std::sync::Arc;

use kernel::auth::AccessRow;
use kernel::feature::Feature;
use utoipa_axum::router::OpenApiRouter;

use super::routes;
use crate::Accounts;

/// The accounts, with their members.
#[derive(Debug)]
pub struct Members {
    accounts: Arc<Accounts>,
}

impl Members {
    /// Of this service.
    pub fn new(accounts: &Arc<Accounts>) -> Arc<Self> {
        Arc::new(Self { accounts: Arc::clone(accounts) })
    }
}

impl Feature for Members {
    fn name(&self) -> &'static str {
        "members"
    }

    fn routes(self: Arc<Self>) -> OpenApiRouter {
        routes::routes().with_state(Arc::clone(&self.accounts))
    }

    fn access(&self) -> &'static [AccessRow] {
        routes::ACCESS
    }
}
