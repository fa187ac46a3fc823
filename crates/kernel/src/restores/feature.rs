//! Noticing restored databases as a part of the service.

use std::sync::Arc;

use super::service;
use crate::core::Core;
use crate::feature::{BackgroundTask, Feature};

/// What keeps the heartbeat.
#[derive(Debug)]
pub struct RestoreDetection(pub Arc<Core>);

impl Feature for RestoreDetection {
    fn name(&self) -> &'static str {
        "restores"
    }

    fn tasks(self: Arc<Self>) -> Vec<BackgroundTask> {
        vec![BackgroundTask::new("heartbeat", async move { service::keep(&self.0).await })]
    }
}
