//! The Proxmox VE driver (versions 8 and 9): REST API of a node's port 8006, for containers (LXC) and virtual
//! machines (QEMU).
//!
//! * Images: for a container the volume id of a template (`local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst`),
//!   for a machine the number or name of a template with cloud-init. If several nodes have a template of one name,
//!   the one on the guest's node is used.
//! * The marker is the word `innkeeper-<number>-<uuid>`, in a guest's tags and in its description; see `marker`.
//! * Some of our tasks take more than one of the host's. Their [`TaskId`](hypervisor::TaskId) names what follows, so
//!   that any process of ours can carry it on; see `follow`.
//! * The API has no call for commands in containers: they need a [`GuestShell`].

mod api;
mod client;
mod clones;
mod config;
mod console;
mod create;
mod error;
mod explain;
mod facts;
mod firewall;
mod follow;
mod host;
mod images;
mod inside;
mod inventory;
mod locks;
mod lookup;
mod marker;
mod network;
mod permissions;
mod place;
mod power;
mod preflight;
mod prepare;
mod provision;
mod resources;
mod rows;
mod size;
mod snapshots;
mod tasks;
mod tls;

use std::sync::Arc;

use hypervisor::{GuestShell, Result};

use crate::client::Client;
pub use crate::config::{PasswordLogin, ProxmoxConfig, Tls};

/// A Proxmox VE cluster or single node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Proxmox {
    client: Client,
    shell: Option<Arc<dyn GuestShell>>,
}

impl Proxmox {
    /// A driver for the cluster that `config` names. Nothing is sent yet.
    ///
    /// # Errors
    /// [`hypervisor::Error::Invalid`] where the configuration can't be used.
    pub fn new(config: ProxmoxConfig) -> Result<Self> {
        Ok(Self { client: Client::new(config)?, shell: None })
    }

    /// With a way into guests for what the API can't do.
    #[must_use]
    pub fn with_shell(self, shell: Arc<dyn GuestShell>) -> Self {
        Self { shell: Some(shell), ..self }
    }

    /// The configuration that it was created with.
    pub fn config(&self) -> &ProxmoxConfig {
        &self.client.config
    }
}
