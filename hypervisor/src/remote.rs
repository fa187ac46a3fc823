//! Commands inside guests whose host has no call for them: somebody else carries them there (SSH, say).

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::{ExecOutput, GuestKind, Result};

/// Runs commands in guests by another way than the host's API. Given to a driver whose host can't do it itself.
#[async_trait]
pub trait GuestShell: Send + Sync + std::fmt::Debug {
    /// Runs an argument vector, no shell, as root in a running guest and waits for its end. What it gives and how it
    /// fails is what [`crate::Inside::exec`] says; [`crate::Error::Unsupported`] where there is no way to this guest.
    async fn exec(&self, at: &ShellTarget, argv: &[&str], stdin: &[u8], timeout: Duration) -> Result<ExecOutput>;
}

/// The guest that a command is for. The driver has seen that it carries our marker and runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellTarget {
    /// The server's uuid.
    pub marker: Uuid,
    /// The guest's number on its host.
    pub vmid: i64,
    /// What the guest is.
    pub kind: GuestKind,
    /// The guest's addresses as its host has them configured, in no order of worth; may be empty.
    pub addresses: Vec<IpAddr>,
    /// The node that the guest is on now.
    pub node: String,
    /// The node's own address in its cluster, where the host tells.
    pub node_address: Option<IpAddr>,
}
