//! A simulated fleet: hosts with guests, each host a listener on this machine that speaks its kind's API.
//!
//! It answers the read requests of drivers (preflight, sweep, find) and of monitoring programs; drivers can't change
//! anything. Metrics are derived from the seed and change with each read; counters grow with time. At run time any host
//! can be made slow, failing, hung or dead, and any guest busy, stopped or missing: see [`Host::set`] and
//! [`Host::alter`].

mod control;
mod guest;
mod host;
mod incus;
mod proxmox;
mod serve;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use control::{Change, control};
pub use guest::{Guest, GuestKind, Load, Power, marker};
pub use host::{Behaviour, Host};

/// The API that the hosts speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Proxmox VE 9.2: HTTPS on a port of 127.0.0.1, with a self-signed certificate.
    Proxmox,
    /// Incus 6.0: a unix socket.
    Incus,
}

/// Options of a fleet.
#[derive(Debug, Clone)]
pub struct Options {
    /// The API that the hosts speak.
    pub kind: Kind,
    /// Number of hosts.
    pub hosts: usize,
    /// Number of guests per host.
    pub guests: usize,
    /// Number of nodes per host; Incus has one.
    pub nodes: usize,
    /// Seed of all simulated values: the same seed gives the same fleet.
    pub seed: u64,
    /// Number of the first guest; the others follow, across all hosts.
    pub first_number: i64,
    /// How long a list is cached, as Proxmox VE does for 10 s. With zero every read sees new values.
    pub fresh_for: Duration,
    /// Folder for unix sockets; a temporary one if `None`.
    pub sockets: Option<PathBuf>,
}

impl Options {
    /// A small fleet: this many hosts and guests per host, one node each, seed 1.
    pub fn new(kind: Kind, hosts: usize, guests: usize) -> Self {
        let (nodes, seed, first_number, fresh_for, sockets) = (1, 1, 100_000, Duration::ZERO, None);
        Self { kind, hosts, guests, nodes, seed, first_number, fresh_for, sockets }
    }

    fn check(&self) -> anyhow::Result<()> {
        let last =
            i64::try_from(self.hosts.saturating_mul(self.guests)).ok().and_then(|n| self.first_number.checked_add(n));
        anyhow::ensure!(self.hosts > 0 && self.nodes > 0, "a fleet needs at least one host, and each host a node");
        anyhow::ensure!(self.kind == Kind::Proxmox || self.nodes == 1, "an incus host has exactly one node");
        anyhow::ensure!(
            self.first_number >= 100 && last.is_some_and(|last| last <= 1_000_000_000),
            "guest numbers must be from 100 to 999999999"
        );
        Ok(())
    }
}

/// A running fleet. It stops when dropped.
#[derive(Debug)]
pub struct Fleet {
    hosts: Vec<Host>,
    // Ends all listeners and connections on drop.
    _stop: DropGuard,
    // Keeps the folder of the sockets.
    _folder: Option<tempfile::TempDir>,
}

impl Fleet {
    /// Creates the hosts and serves them on tasks of the current runtime.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        options.check()?;
        let made = match (options.kind, &options.sockets) {
            (Kind::Incus, None) => Some(tempfile::tempdir().context("creating a folder for sockets")?),
            _ => None,
        };
        let folder =
            made.as_ref().map(|made| made.path().to_owned()).or_else(|| options.sockets.clone()).unwrap_or_default();
        let stop = CancellationToken::new();
        let mut hosts = Vec::with_capacity(options.hosts);
        for index in 0..options.hosts {
            hosts.push(serve::start(&options, index, &folder, &stop).await.with_context(|| format!("host {index}"))?);
        }
        Ok(Self { hosts, _stop: stop.drop_guard(), _folder: made })
    }

    /// All hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// A host by index.
    ///
    /// # Panics
    /// If it does not exist.
    pub fn host(&self, index: usize) -> &Host {
        &self.hosts[index]
    }
}
