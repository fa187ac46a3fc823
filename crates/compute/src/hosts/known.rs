//! Host keys, pinned in the database at the first connection over SSH.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use hypervisor::ssh::{HostKeyOwner, KnownHosts};
use sqlx::PgPool;
use uuid::Uuid;

use super::store;
use crate::ids::HostId;

/// Where the host keys of guests are pinned. Servers have them, which stand on hosts.
#[async_trait]
pub trait GuestKeys: Debug + Send + Sync + 'static {
    /// The host key of the guest with this marker; pins this one if none is stored. `None`: there is no such server on
    /// this host.
    async fn pin(&self, db: &PgPool, host: HostId, marker: Uuid, key: &str) -> sqlx::Result<Option<String>>;
}

/// The known nodes and guests of one host.
#[derive(Debug)]
pub(super) struct PinnedKeys {
    pub db: PgPool,
    pub guests: Arc<dyn GuestKeys>,
    pub host: HostId,
}

#[async_trait]
impl KnownHosts for PinnedKeys {
    async fn is_known(&self, machine: &HostKeyOwner, key: &str) -> hypervisor::Result<bool> {
        let pinned = match machine {
            HostKeyOwner::Guest(server) => self.guests.pin(&self.db, self.host, *server, key).await,
            HostKeyOwner::Node(name) => store::pin_node(&self.db, self.host, name, key).await,
        };
        // Nothing was sent to it: the same as if it could not be reached.
        let pinned = pinned.map_err(|e| hypervisor::Error::Unreachable(format!("our own database: {e}")))?;
        Ok(pinned.is_some_and(|pinned| pinned == key))
    }
}
