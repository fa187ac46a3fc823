//! The Incus driver: REST API 1.0 over the daemon's unix socket.
//!
//! * A guest is the instance `ink-<vmid>` of the configured project, our marker its config key
//!   `user.innkeeper.server`.
//! * A creation counts only once we saw it succeed: [`Tasks::task`](hypervisor::Tasks::task) then writes
//!   `user.innkeeper.ready`. An instance with our marker and without that key is half-made (we or the daemon died in
//!   the middle); it is shown as [`GuestPower::Unknown`](hypervisor::GuestPower::Unknown), can't be started, and
//!   [`Provision::create`](hypervisor::Provision::create) makes it again. It never ran, so nothing is lost.
//! * Some of our tasks take more than one Incus operation (a clean stop that times out must become a forced one).
//!   Their [`TaskId`](hypervisor::TaskId) names what follows, so that any process of ours can carry it on; see
//!   `follow`.

mod api;
mod client;
mod config;
mod console;
mod facts;
mod files;
mod follow;
mod host;
mod images;
mod inside;
mod inventory;
mod lookup;
mod network;
mod operations;
mod power;
mod preflight;
mod prepare;
mod processes;
mod provision;
mod rows;
mod server;
mod snapshots;
mod traffic;
mod websocket;

use hypervisor::Result;

use crate::client::Client;
pub use crate::config::IncusConfig;

/// An Incus server. Cheap to clone; keeps no connection between calls.
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

    /// The configuration that it was created with.
    pub fn config(&self) -> &IncusConfig {
        &self.client.config
    }
}
