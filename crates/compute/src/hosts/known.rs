//! Host keys, pinned in the database at the first connection over SSH.

use async_trait::async_trait;
use hypervisor::ssh::{HostKeyOwner, KnownHosts};
use sqlx::PgPool;

use super::store;
use crate::ids::HostId;
use crate::servers;

/// The known nodes and guests of one host.
#[derive(Debug)]
pub(super) struct PinnedKeys {
    pub db: PgPool,
    pub host: HostId,
}

#[async_trait]
impl KnownHosts for PinnedKeys {
    async fn is_known(&self, machine: &HostKeyOwner, key: &str) -> hypervisor::Result<bool> {
        let pinned = match machine {
            HostKeyOwner::Guest(server) => servers::store::pin_guest(&self.db, self.host, *server, key).await,
            HostKeyOwner::Node(name) => store::pin_node(&self.db, self.host, name, key).await,
        };
        // Nothing was sent to it: the same as if it could not be reached.
        let pinned = pinned.map_err(|e| hypervisor::Error::Unreachable(format!("our own database: {e}")))?;
        Ok(pinned.is_some_and(|pinned| pinned == key))
    }
}
