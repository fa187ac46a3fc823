//! A made-up fleet: hosts with guests, each host a listener of its own on this machine, in the hosts' own API shapes.
//!
//! It answers what a driver asks to look (preflight, sweep, find) and what monitoring programs ask; it changes nothing on
//! request of a driver. Figures are made from the seed and move with each look; counters grow with time. Any host can be
//! made slow, failing, silent or dead while it runs, and any guest busy, stopped or gone: see [`Host::set`] and
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

/// Whose API the hosts speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Proxmox VE 9.2: HTTPS on a port of 127.0.0.1, with a certificate that the host has signed itself.
    Proxmox,
    /// Incus 6.0: a unix socket.
    Incus,
}

/// What fleet is wanted.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whose API.
    pub kind: Kind,
    /// How many hosts.
    pub hosts: usize,
    /// How many guests on each.
    pub guests: usize,
    /// How many nodes each host is a cluster of. Incus has one.
    pub nodes: usize,
    /// Where all made-up figures come from: the same seed, the same fleet.
    pub seed: u64,
    /// The number of the first guest; the others follow, over all hosts.
    pub first_number: i64,
    /// How long a list stays as it is; Proxmox VE makes a new one every 10 s. With zero every look finds other figures.
    pub fresh_for: Duration,
    /// The folder for unix sockets; without one, a temporary one.
    pub sockets: Option<PathBuf>,
}

impl Options {
    /// A small fleet: that many hosts with that many guests, one node each, seed 1.
    pub fn new(kind: Kind, hosts: usize, guests: usize) -> Self {
        let (nodes, seed, first_number, fresh_for, sockets) = (1, 1, 100_000, Duration::ZERO, None);
        Self { kind, hosts, guests, nodes, seed, first_number, fresh_for, sockets }
    }

    fn check(&self) -> anyhow::Result<()> {
        let last =
            i64::try_from(self.hosts.saturating_mul(self.guests)).ok().and_then(|n| self.first_number.checked_add(n));
        anyhow::ensure!(self.hosts > 0 && self.nodes > 0, "a fleet has hosts, and each has a node");
        anyhow::ensure!(self.kind == Kind::Proxmox || self.nodes == 1, "a host of the kind incus has one node");
        anyhow::ensure!(
            self.first_number >= 100 && last.is_some_and(|last| last <= 1_000_000_000),
            "guests have numbers from 100 to 999999999"
        );
        Ok(())
    }
}

/// A fleet that is being served, until it is dropped.
#[derive(Debug)]
pub struct Fleet {
    hosts: Vec<Host>,
    // Ends all listeners and connections.
    _stop: DropGuard,
    // Holds the sockets.
    _folder: Option<tempfile::TempDir>,
}

impl Fleet {
    /// Makes the hosts and begins to serve them, on tasks of the runtime that this is called in.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        options.check()?;
        let made = match (options.kind, &options.sockets) {
            (Kind::Incus, None) => Some(tempfile::tempdir().context("a folder for sockets")?),
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

    /// Every host.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// One host, counted from 0.
    ///
    /// # Panics
    /// Where there are fewer.
    pub fn host(&self, index: usize) -> &Host {
        &self.hosts[index]
    }
}
