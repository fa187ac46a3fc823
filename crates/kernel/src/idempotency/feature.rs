//! Idempotency keys as a part of the service: old ones are deleted, answers resealed.

use std::sync::Arc;

use async_trait::async_trait;

use super::service;
use crate::core::Core;
use crate::error::Result;
use crate::feature::Feature;
use crate::keyring::SealCounts;

/// What looks after the keys that are kept.
#[derive(Debug)]
pub struct Idempotency(pub Arc<Core>);

#[async_trait]
impl Feature for Idempotency {
    fn name(&self) -> &'static str {
        "idempotency"
    }

    async fn upkeep(&self) -> Result<()> {
        service::purge(&self.0).await
    }

    async fn reseal(&self, change: bool) -> Result<Vec<(&'static str, SealCounts)>> {
        Ok(vec![("answers kept for a day", service::reseal(&self.0, change).await?)])
    }
}
