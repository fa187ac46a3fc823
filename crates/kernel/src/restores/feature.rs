//! Noticing restored databases as a part of the service.

use std::sync::Arc;

use super::service;
use crate::core::Core;
use crate::feature::{Feature, Task};

/// What keeps the heartbeat.
#[derive(Debug)]
pub struct Restores(pub Arc<Core>);

impl Feature for Restores {
    fn name(&self) -> &'static str {
        "restores"
    }

    fn tasks(self: Arc<Self>) -> Vec<Task> {
        vec![Task::new("heartbeat", async move { service::keep(&self.0).await })]
    }
}
