//! The Proxmox VE driver (versions 8 and 9): REST API of a node's port 8006, for containers (LXC) and virtual machines
//! (QEMU).
//!
//! * Images: for a container the volume id of a template (`local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst`), for a
//!   machine the number or name of a template that reads cloud-init.
//! * Commands in containers have no call in the API: they need a [`GuestShell`].

mod api;
mod client;
mod config;
mod error;
mod marker;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;

pub use self::config::{Login, ProxmoxConfig, Tls};
use crate::{
    Capabilities, Console, Driver, Error, ExecOutput, GuestKind, GuestRef, GuestShell, GuestSpec, HostInfo, Interface,
    Limits, Presence, Result, Snapshot, StopMode, Sweep, Task, TaskId, TaskState,
};

/// One Proxmox VE cluster or single node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Proxmox {
    config: Arc<ProxmoxConfig>,
    shell: Option<Arc<dyn GuestShell>>,
}

impl Proxmox {
    /// A driver for the cluster that `config` names. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the configuration can't be used.
    pub fn new(config: ProxmoxConfig) -> Result<Self> {
        if config.endpoints.is_empty() {
            return Err(Error::Invalid("no endpoint".to_owned()));
        }
        Ok(Self { config: Arc::new(config), shell: None })
    }

    /// The same with a way into guests that the API has none into.
    #[must_use]
    pub fn with_shell(self, shell: Arc<dyn GuestShell>) -> Self {
        Self { shell: Some(shell), ..self }
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &ProxmoxConfig {
        &self.config
    }
}

/// Until the parts are in place.
fn soon<T>(what: &str) -> Result<T> {
    Err(Error::Unsupported(format!("{what} on Proxmox VE")))
}

#[async_trait]
impl Driver for Proxmox {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            password_at_create: true,
            set_password: true,
            exec: true,
            live_resize: true,
            snapshots: true,
            console: true,
            lxc: true,
            vm: true,
        }
    }
    async fn info(&self) -> Result<HostInfo> {
        soon("info")
    }
    async fn has_image(&self, _: GuestKind, _: &str) -> Result<bool> {
        soon("images")
    }
    async fn sweep(&self) -> Result<Sweep> {
        soon("sweeps")
    }
    async fn find(&self, _: &GuestRef) -> Result<Presence> {
        soon("looking for guests")
    }
    async fn task(&self, _: &TaskId) -> Result<TaskState> {
        soon("tasks")
    }
    async fn create(&self, _: &GuestSpec) -> Result<Task> {
        soon("creating")
    }
    async fn prepare(&self, _: &GuestSpec) -> Result<()> {
        soon("preparing")
    }
    async fn start(&self, _: &GuestRef) -> Result<Task> {
        soon("starting")
    }
    async fn stop(&self, _: &GuestRef, _: StopMode) -> Result<Task> {
        soon("stopping")
    }
    async fn restart(&self, _: &GuestRef, _: Duration) -> Result<Task> {
        soon("restarting")
    }
    async fn delete(&self, _: &GuestRef) -> Result<Task> {
        soon("deleting")
    }
    async fn resize(&self, _: &GuestRef, _: &Limits) -> Result<Task> {
        soon("resizing")
    }
    async fn set_password(&self, _: &GuestRef, _: &SecretString) -> Result<()> {
        soon("passwords")
    }
    async fn exec(&self, _: &GuestRef, _: &[&str], _: &[u8], _: Duration) -> Result<ExecOutput> {
        soon("commands")
    }
    async fn interfaces(&self, _: &GuestRef) -> Result<Vec<Interface>> {
        soon("interfaces")
    }
    async fn snapshots(&self, _: &GuestRef) -> Result<Vec<Snapshot>> {
        soon("snapshots")
    }
    async fn create_snapshot(&self, _: &GuestRef, _: &str, _: &str) -> Result<Task> {
        soon("snapshots")
    }
    async fn rollback(&self, _: &GuestRef, _: &str) -> Result<Task> {
        soon("snapshots")
    }
    async fn delete_snapshot(&self, _: &GuestRef, _: &str) -> Result<Task> {
        soon("snapshots")
    }
    async fn console(&self, _: &GuestRef) -> Result<Console> {
        soon("consoles")
    }
}
