//! The Incus driver: REST API 1.0 over the daemon's unix socket.
//!
//! * A guest is the instance `ink-<vmid>` of the configured project, our marker its config key
//!   `user.innkeeper.server`.
//! * A creation is believed only when it was seen to end well: [`Tasks::task`](hypervisor::Tasks::task) then writes
//!   `user.innkeeper.ready`. An instance with our marker and without that key is half-made (we or the daemon died
//!   in the middle); it is shown as [`GuestPower::Unknown`](hypervisor::GuestPower::Unknown), can't be started, and
//!   [`Provision::create`](hypervisor::Provision::create) makes it again. It never ran, so nothing is lost.
//! * Some of our tasks take more than one Incus operation (a clean stop that times out must become a forced one).
//!   Their [`TaskId`](hypervisor::TaskId) names what follows, so that any process of ours can carry it on; see `follow`.

mod api;
mod client;
mod config;
mod console;
mod facts;
mod follow;
mod guests;
mod images;
mod inside;
mod lookup;
mod network;
mod operations;
mod power;
mod prepare;
mod processes;
mod provision;
mod snapshots;
mod sweep;
mod traffic;
mod websocket;

use async_trait::async_trait;
use hypervisor::{Capabilities, GuestFacts, GuestKind, GuestRef, Host, HostInfo, Inventory, Presence, Result, Sweep};

use crate::client::Client;
pub use crate::config::IncusConfig;

/// One Incus server. Cheap to clone; holds no connection between calls.
#[derive(Debug, Clone)]
pub struct Incus {
    client: Client,
}

impl Incus {
    /// A driver for the server that `config` names. Nothing is sent yet.
    ///
    /// # Errors
    /// [`hypervisor::Error::Invalid`] where the configuration can't be used.
    pub fn new(config: IncusConfig) -> Result<Self> {
        Ok(Self { client: Client::new(config)? })
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &IncusConfig {
        &self.client.config
    }
}

#[async_trait]
impl Host for Incus {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            password_at_create: false,
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
        sweep::info(&self.client).await
    }

    async fn has_image(&self, kind: GuestKind, source: &str) -> Result<bool> {
        Ok(images::fingerprint(&self.client, kind, source).await?.is_some())
    }
}

#[async_trait]
impl Inventory for Incus {
    async fn sweep(&self) -> Result<Sweep> {
        sweep::sweep(&self.client).await
    }

    async fn find(&self, guest: &GuestRef) -> Result<Presence> {
        guests::find(&self.client, guest).await
    }

    async fn facts(&self, guest: &GuestRef) -> Result<GuestFacts> {
        facts::facts(&self.client, guest).await
    }

    async fn disk_used(&self, guest: &GuestRef) -> Result<Option<u64>> {
        guests::disk_used(&self.client, guest).await
    }
}
