//! Rate limits as a part of the service: minutes that are over are deleted.

use std::sync::Arc;

use async_trait::async_trait;

use super::service;
use crate::core::Core;
use crate::error::Result;
use crate::feature::Feature;

/// What deletes counts of minutes that are over.
#[derive(Debug)]
pub struct RateLimiting(pub Arc<Core>);

#[async_trait]
impl Feature for RateLimiting {
    fn name(&self) -> &'static str {
        "limits"
    }

    async fn upkeep(&self) -> Result<()> {
        service::purge(&self.0).await
    }
}
