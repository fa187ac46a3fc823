//! Runs commands inside guests of hosts that have no call for it, over another channel such as SSH.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::{ExecOutput, GuestKind, Result};

/// Runs commands in guests by other means than the host's API. Passed to drivers whose host can't do it itself.
#[async_trait]
pub trait GuestShell: Send + Sync + std::fmt::Debug {
    /// Runs an argument vector, no shell, as root in a running guest and waits for its end. What it gives and how it
    /// fails is what [`crate::Inside::exec`] says; [`crate::Error::Unsupported`] where there is no way to this guest.
    async fn exec(&self, at: &ShellTarget, argv: &[&str], stdin: &[u8], timeout: Duration) -> Result<ExecOutput>;
}

/// The guest to run a command in. The driver has checked that it carries our marker and runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellTarget {
    /// The server's uuid.
    pub marker: Uuid,
    /// The guest's number on its host.
    pub vmid: i64,
    /// Container or VM.
    pub kind: GuestKind,
    /// The guest's addresses as configured on its host, in no particular order; may be empty.
    pub addresses: Vec<IpAddr>,
    /// The guest's current node.
    pub node: String,
    /// The node's own address in its cluster, if the host reports it.
    pub node_address: Option<IpAddr>,
}
