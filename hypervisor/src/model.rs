//! Data that drivers take and return. Units are in the field names or docs.

use std::net::IpAddr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Kind of guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestKind {
    /// A system container that shares the node's kernel.
    Lxc,
    /// A virtual machine.
    Vm,
}

/// Identifies one of our guests. The uuid is the marker; the number and the node only help to find it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestRef {
    /// The server's uuid, which the guest carries as our marker.
    pub marker: Uuid,
    /// The guest's number, unique across the installation (Proxmox's VMID).
    pub vmid: i64,
    /// Container or VM.
    pub kind: GuestKind,
    /// The node that it was placed on. It may have moved since.
    pub node: String,
}

/// Everything needed to create a guest.
#[derive(Debug, Clone)]
pub struct GuestSpec {
    /// Marker, number, kind, and the node to create it on.
    pub guest: GuestRef,
    /// Host name inside the guest, a DNS label or name.
    pub hostname: String,
    /// The image or template in the host's own terms (an Incus alias or fingerprint, a Proxmox volume id).
    pub image: String,
    /// Cores, memory and disk; all three must be set.
    pub limits: GuestSize,
    /// Its only network interface.
    pub network: GuestNetwork,
    /// Public keys for root's `authorized_keys`, one OpenSSH line each.
    pub ssh_keys: Vec<String>,
    /// Root's password. Drivers with [`Capabilities::password_at_create`] set it at creation; others leave it to
    /// [`crate::Inside::set_password`] after the first start.
    pub password: SecretString,
}

/// A guest's size. When resizing, `None` leaves a value unchanged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestSize {
    /// CPU cores.
    pub cores: Option<u32>,
    /// Memory in MiB.
    pub memory_mib: Option<u64>,
    /// Root disk in GiB.
    pub disk_gib: Option<u64>,
    /// Rate of the network interface in Mbit/s, each way; 0 means unlimited, as does `None` at creation.
    pub bandwidth_mbps: Option<u32>,
}

/// A guest's network configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestNetwork {
    /// The host's bridge or managed network to attach to.
    pub bridge: String,
    /// VLAN tag, if the pool has one.
    pub vlan: Option<u16>,
    /// Addresses with prefix length and gateway. If empty, the guest gets no network.
    pub addresses: Vec<GuestAddress>,
    /// Name servers; if empty, the image's own are kept.
    pub dns: Vec<IpAddr>,
}

/// An address of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestAddress {
    /// The address, IPv4 or IPv6.
    pub address: IpAddr,
    /// The network's prefix length.
    pub prefix: u8,
    /// The default gateway of that family, if any.
    pub gateway: Option<IpAddr>,
}

/// How to stop a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Ask the guest to shut down, and force it after `timeout`.
    Clean {
        /// Time that the guest may take.
        timeout: Duration,
    },
    /// Power off immediately.
    Force,
}

/// The host's own id of a task that it has accepted (an Incus operation, a Proxmox UPID).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub String);

/// Result of a mutating call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Done already, or nothing had to be done.
    Done,
    /// The host works on it; ask for it with [`crate::Tasks::task`].
    Running(TaskId),
}

/// State of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskState {
    /// Still running; progress in percent if the host reports it.
    Running(Option<u8>),
    /// Succeeded. The text holds the host's warnings, for the provider.
    Succeeded(Option<String>),
    /// Failed; the error says whether to retry.
    Failed(crate::Error),
    /// The host does not know this task, or no longer does: check the guest instead.
    Unknown,
}

/// Whether one of our guests is on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// It exists and carries our marker.
    Present {
        /// Its current node.
        node: String,
        /// Its power state.
        power: GuestPower,
        /// Whether a task of the host is working on it (creating it, taking a snapshot, …).
        busy: bool,
    },
    /// Every place that could hold it was read, and it is not there.
    Absent,
}

/// Power state of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestPower {
    /// Running.
    Running,
    /// Stopped.
    Stopped,
    /// Up but halted, by a person or by something like a full storage or a crash.
    Paused,
    /// Not reported, in an error state, in transition, or any other state.
    Unknown,
}

impl GuestPower {
    /// In lower case, as it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Paused => "paused",
            Self::Unknown => "unknown",
        }
    }
}

/// Description of a host, as the preflight sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostInfo {
    /// Product and version, as the host reports them.
    pub version: String,
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// Problems and doubts, one sentence each; empty if all is well.
    pub problems: Vec<String>,
    /// Major version; 0 if unknown.
    pub major: u32,
    /// Fingerprints of the host's own certificates. They identify the host, whatever address leads to it; empty if
    /// unknown.
    pub identity: Vec<String>,
    /// Storages that hold container templates, for kinds of hosts that have these.
    pub template_storages: Vec<String>,
}

/// A node of a host and its total capacity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name on the host.
    pub name: String,
    /// Whether it can take new guests: it is online and not in maintenance.
    pub online: bool,
    /// CPU threads.
    pub cores: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Capacity for root disks in GiB (of the storage that guests are placed on).
    pub disk_gib: u64,
    /// Bytes of that capacity in use, by anyone, if the host reports it.
    pub disk_used: Option<u64>,
    /// Whether that storage is shared by several nodes of the host, so that it counts only once.
    pub disk_shared: bool,
}

/// Result of reading all guests of a host.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    /// When the host was asked.
    pub taken_at: DateTime<Utc>,
    /// How old its data may have been by then: it says nothing about later changes.
    pub lag: Duration,
    /// The host's nodes.
    pub nodes: Vec<Node>,
    /// Guests with our marker. Any guest listed here was seen, whatever the state of the rest of the host.
    pub guests: Vec<GuestSample>,
    /// Where the absence of a guest is evidence.
    pub coverage: Coverage,
}

/// The part of a host that a sweep has seen completely.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Nodes of which all guests were read.
    pub nodes: Vec<String>,
    /// Numbers of guests that exist but could not be read.
    pub unread: Vec<i64>,
}

impl Coverage {
    /// Whether a guest with this number, last known on this node, would have been seen.
    pub fn includes(&self, node: &str, vmid: i64) -> bool {
        self.nodes.iter().any(|name| name == node) && !self.unread.contains(&vmid)
    }
}

/// A guest in a sweep. Sizes are in bytes; network values are counters since the guest's last start. What the host does
/// not know is `None`, never 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuestSample {
    /// The server's uuid.
    pub marker: Uuid,
    /// The guest's number.
    pub vmid: i64,
    /// Container or VM.
    pub kind: GuestKind,
    /// When it was created, if the host reports it.
    pub created_at: Option<DateTime<Utc>>,
    /// The node it is on.
    pub node: String,
    /// Its power state.
    pub power: GuestPower,
    /// Why it is paused, as the host puts it, if it does.
    pub reason: Option<String>,
    /// Seconds since its last start; 0 if stopped.
    pub uptime_s: Option<u64>,
    /// CPU usage as a fraction of its cores, 0 to 1, if the host reports a fraction.
    pub cpu: Option<f64>,
    /// CPU time since its last start in nanoseconds, if the host reports a counter instead.
    pub cpu_time_ns: Option<u64>,
    /// Number of cores that it may use.
    pub cores: u32,
    /// Memory in use.
    pub memory_used: Option<u64>,
    /// Memory limit.
    pub memory_max: Option<u64>,
    /// Root disk in use.
    pub disk_used: Option<u64>,
    /// Root disk size.
    pub disk_max: Option<u64>,
    /// Bytes received since its last start.
    pub net_in: Option<u64>,
    /// Bytes sent since its last start.
    pub net_out: Option<u64>,
}

/// A guest's configuration as its host has it, for a guest that belongs to no server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuestFacts {
    /// Its host name, if the host knows it.
    pub hostname: Option<String>,
    /// The addresses configured for its interfaces on the host.
    pub addresses: Vec<IpAddr>,
    /// Its size; values that the host does not report are `None`.
    pub limits: GuestSize,
}

/// A network interface inside a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Interface name inside the guest.
    pub name: String,
    /// MAC address.
    pub mac: String,
    /// Addresses without prefix length, link-local ones included.
    pub addresses: Vec<IpAddr>,
}

/// Result of a command in a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// Exit status.
    pub status: i32,
    /// Standard output, at most 1 MiB.
    pub stdout: Vec<u8>,
    /// Standard error, at most 1 MiB.
    pub stderr: Vec<u8>,
}

/// A snapshot of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Name of the snapshot.
    pub name: String,
    /// Description written by the customer.
    pub description: String,
    /// When it was taken.
    pub taken_at: DateTime<Utc>,
    /// The snapshot that it builds on, if the host knows.
    pub parent: Option<String>,
    /// Whether the guest can be rolled back to it: false while it is being taken or deleted, and permanently if that
    /// never finished.
    pub usable: bool,
    /// Size in bytes, if the host knows.
    pub size: Option<u64>,
}

/// Features of a kind of host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)]
pub struct Capabilities {
    /// `create` sets root's password.
    pub password_at_create: bool,
    /// `set_password` works in a running guest.
    pub set_password: bool,
    /// `exec` works in a running guest.
    pub exec: bool,
    /// Cores and memory of a container can be changed while it runs.
    pub live_resize: bool,
    /// The same for a VM; if false, they change with its next start.
    pub vm_live_resize: bool,
    /// Snapshots are supported.
    pub snapshots: bool,
    /// Consoles are supported.
    pub console: bool,
    /// Containers are supported.
    pub lxc: bool,
    /// Virtual machines are supported.
    pub vm: bool,
}
