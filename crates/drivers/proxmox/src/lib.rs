//! The Proxmox VE driver (versions 8 and 9): REST API of a node's port 8006, for containers (LXC) and virtual machines
//! (QEMU).
//!
//! * Images: for a container the volume id of a template (`local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst`), for a
//!   machine the number or name of a template that reads cloud-init. Where several nodes have a template of one name,
//!   each as good as the other, the one on the guest's node is taken.
//! * The marker is the word `innkeeper-<number>-<uuid>`, in a guest's tags and in its description; see `marker`.
//! * Some of our tasks take more than one of the host's. Their [`TaskId`](hypervisor::TaskId) names what follows, so that
//!   any process of ours can carry it on; see `follow`.
//! * Commands in containers have no call in the API: they need a [`GuestShell`].

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
mod images;
mod info;
mod inside;
mod locks;
mod lookup;
mod marker;
mod network;
mod place;
mod power;
mod preflight;
mod prepare;
mod ready;
mod resize;
mod resources;
mod size;
mod snapshots;
mod sweep;
mod tasks;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hypervisor::{
    Capabilities, Console, Consoles, ExecOutput, GuestFacts, GuestKind, GuestRef, GuestShell, GuestSpec, Host,
    HostInfo, Inside, Interface, Inventory, Limits, Power, Presence, Provision, Result, Snapshot, Snapshots, StopMode,
    Sweep, Task,
};
use secrecy::SecretString;

use crate::client::Client;
pub use crate::config::{Login, ProxmoxConfig, Tls};
use crate::explain::explained;

/// One Proxmox VE cluster or single node. Cheap to clone.
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

    /// The same with a way into guests that the API has none into.
    #[must_use]
    pub fn with_shell(self, shell: Arc<dyn GuestShell>) -> Self {
        Self { shell: Some(shell), ..self }
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &ProxmoxConfig {
        &self.client.config
    }

    /// What a token needs in a version of Proxmox VE (8 or 9): paths, and the privileges on each.
    pub fn privileges(major: u32, storage: &str, pool: Option<&str>) -> Vec<(String, Vec<&'static str>)> {
        info::needed(major, storage, pool)
    }
}

#[async_trait]
impl Host for Proxmox {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            password_at_create: true,
            set_password: true,
            exec: true,
            live_resize: true,
            vm_live_resize: false,
            snapshots: true,
            console: true,
            lxc: true,
            vm: true,
        }
    }

    async fn info(&self) -> Result<HostInfo> {
        info::info(&self.client).await
    }

    async fn has_image(&self, kind: GuestKind, source: &str) -> Result<bool> {
        images::has_image(&self.client, kind, source).await
    }

    async fn image_nodes(&self, kind: GuestKind, source: &str) -> Result<Option<Vec<String>>> {
        images::nodes(&self.client, kind, source).await.map(Some)
    }
}

#[async_trait]
impl Inventory for Proxmox {
    async fn sweep(&self) -> Result<Sweep> {
        sweep::sweep(&self.client).await
    }

    async fn find(&self, guest: &GuestRef) -> Result<Presence> {
        lookup::find(&self.client, guest).await
    }

    async fn facts(&self, guest: &GuestRef) -> Result<GuestFacts> {
        facts::facts(&self.client, guest).await
    }

    async fn disk_used(&self, guest: &GuestRef) -> Result<Option<u64>> {
        Ok(lookup::require(&self.client, guest).await?.status.disk_used())
    }

    async fn is_number_free(&self, vmid: i64) -> Result<bool> {
        lookup::is_number_free(&self.client, vmid).await
    }
}

#[async_trait]
impl Provision for Proxmox {
    async fn check_create(&self, spec: &GuestSpec) -> Result<()> {
        ready::check_create(&self.client, spec).await
    }

    async fn create(&self, spec: &GuestSpec) -> Result<Task> {
        create::create(&self.client, spec).await
    }

    async fn prepare(&self, spec: &GuestSpec) -> Result<()> {
        explained(&self.client, &spec.guest, prepare::prepare(&self.client, spec)).await
    }

    async fn resize(&self, guest: &GuestRef, limits: &Limits) -> Result<Task> {
        explained(&self.client, guest, resize::resize(&self.client, guest, limits)).await
    }

    async fn check_delete(&self, guest: &GuestRef) -> Result<()> {
        ready::check_delete(&self.client, guest).await
    }

    async fn delete(&self, guest: &GuestRef) -> Result<Task> {
        explained(&self.client, guest, power::delete(&self.client, guest)).await
    }
}

#[async_trait]
impl Power for Proxmox {
    async fn start(&self, guest: &GuestRef) -> Result<Task> {
        power::start(&self.client, guest).await
    }

    async fn stop(&self, guest: &GuestRef, mode: StopMode) -> Result<Task> {
        power::stop(&self.client, guest, mode).await
    }

    async fn restart(&self, guest: &GuestRef, timeout: Duration) -> Result<Task> {
        power::restart(&self.client, guest, timeout).await
    }
}

#[async_trait]
impl Snapshots for Proxmox {
    async fn snapshots(&self, guest: &GuestRef) -> Result<Vec<Snapshot>> {
        snapshots::list(&self.client, guest).await
    }

    async fn create_snapshot(&self, guest: &GuestRef, name: &str, description: &str) -> Result<Task> {
        explained(&self.client, guest, snapshots::create(&self.client, guest, name, description)).await
    }

    async fn rollback(&self, guest: &GuestRef, name: &str) -> Result<Task> {
        explained(&self.client, guest, snapshots::rollback(&self.client, guest, name)).await
    }

    async fn check_rollback(&self, guest: &GuestRef, name: &str) -> Result<()> {
        snapshots::check_rollback(&self.client, guest, name).await
    }

    async fn delete_snapshot(&self, guest: &GuestRef, name: &str) -> Result<Task> {
        explained(&self.client, guest, snapshots::delete(&self.client, guest, name)).await
    }
}

#[async_trait]
impl Inside for Proxmox {
    async fn exec(&self, guest: &GuestRef, argv: &[&str], stdin: &[u8], timeout: Duration) -> Result<ExecOutput> {
        inside::exec(&self.client, self.shell.as_deref(), guest, argv, stdin, timeout).await
    }

    async fn set_password(&self, guest: &GuestRef, password: &SecretString) -> Result<()> {
        inside::set_password(&self.client, self.shell.as_deref(), guest, password).await
    }

    async fn interfaces(&self, guest: &GuestRef) -> Result<Vec<Interface>> {
        inside::interfaces(&self.client, guest).await
    }
}

#[async_trait]
impl Consoles for Proxmox {
    async fn console(&self, guest: &GuestRef) -> Result<Console> {
        console::console(&self.client, guest).await
    }

    async fn last_words(&self, guest: &GuestRef) -> Result<String> {
        power::last_words(&self.client, guest).await
    }
}
