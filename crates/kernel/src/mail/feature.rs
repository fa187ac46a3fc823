//! Mail as a part of the service.

use std::sync::Arc;

use async_trait::async_trait;
use utoipa_axum::router::OpenApiRouter;

use super::transport::Transport;
use super::{MAIL_DUE, outbox, routes, service};
use crate::auth::AccessRow;
use crate::core::Core;
use crate::error::Result;
use crate::feature::{BackgroundTask, Feature};

/// What sends mails, and shows what became of them.
#[derive(Debug)]
pub struct Mails {
    core: Arc<Core>,
    transport: Transport,
}

impl Mails {
    /// Fails if the settings allow no email to be sent.
    pub fn new(core: &Arc<Core>) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self { transport: Transport::new(&core.config)?, core: Arc::clone(core) }))
    }
}

#[async_trait]
impl Feature for Mails {
    fn name(&self) -> &'static str {
        "mail"
    }

    fn routes(self: Arc<Self>) -> OpenApiRouter {
        routes::routes().with_state(Arc::clone(&self.core))
    }

    fn access(&self) -> &'static [AccessRow] {
        routes::ACCESS
    }

    fn tasks(self: Arc<Self>) -> Vec<BackgroundTask> {
        vec![BackgroundTask::new("mail", async move { outbox::send_queued(&self.core, &self.transport).await })]
    }

    fn topics(&self) -> Vec<&'static str> {
        vec![MAIL_DUE.channel]
    }

    async fn upkeep(&self) -> Result<()> {
        service::purge(&self.core).await
    }

    fn describe(&self) {
        metrics::describe_counter!("innkeeper_mails_total", "Emails by outcome.");
    }
}
