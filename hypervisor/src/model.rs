//! What drivers take and give: plain data, in the units that each field names.

use std::net::IpAddr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestKind {
    /// A system container that shares the node's kernel.
    Lxc,
    /// A virtual machine.
    Vm,
}

/// Names one guest of ours. The uuid is the marker; the number and the node only help to find it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestRef {
    /// The server's uuid, which the guest carries as our marker.
    pub marker: Uuid,
    /// The guest's number, unique in the whole installation (Proxmox's VMID).
    pub vmid: i64,
    /// What the guest is.
    pub kind: GuestKind,
    /// The node it was placed on. It may have moved since.
    pub node: String,
}

/// Everything needed to make a guest.
#[derive(Debug, Clone)]
pub struct GuestSpec {
    /// Marker, number, kind and the node to place it on.
    pub guest: GuestRef,
    /// Host name inside the guest, a DNS label or name.
    pub hostname: String,
    /// The image or template, in the host's own terms (an Incus alias or fingerprint, a Proxmox volume id).
    pub image: String,
    /// Cores, memory and disk; all three are set.
    pub limits: Limits,
    /// Its one network interface.
    pub network: GuestNetwork,
    /// Public keys for root's `authorized_keys`, one OpenSSH line each.
    pub ssh_keys: Vec<String>,
    /// Root's password. Drivers with [`Capabilities::password_at_create`] set it at creation; others leave it to
    /// [`crate::Inside::set_password`] after the first start.
    pub password: SecretString,
}

/// A guest's size. In a resize `None` means unchanged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Processor cores.
    pub cores: Option<u32>,
    /// Memory in MiB.
    pub memory_mib: Option<u64>,
    /// Root disk in GiB.
    pub disk_gib: Option<u64>,
    /// The network interface's rate in Mbit/s, each way; 0: not limited, which at creation `None` means as well.
    pub bandwidth_mbps: Option<u32>,
}

/// How a guest is attached and addressed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestNetwork {
    /// The host's bridge (or managed network) to attach to.
    pub bridge: String,
    /// VLAN tag, where the pool has one.
    pub vlan: Option<u16>,
    /// Addresses, each with its prefix length and gateway; none means that the guest gets no network.
    pub addresses: Vec<GuestAddress>,
    /// Name servers; empty leaves the image's own.
    pub dns: Vec<IpAddr>,
}

/// One address of a guest.
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
    /// Ask the guest to shut down; after `timeout`, force it.
    Clean {
        /// How long the guest may take.
        timeout: Duration,
    },
    /// Pull the plug.
    Force,
}

/// A host's own id of a piece of work it has accepted (an Incus operation, a Proxmox UPID).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub String);

/// What a mutating call leaves behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// It is done already (or nothing had to be done).
    Done,
    /// The host works on it; ask for it with [`crate::Tasks::task`].
    Running(TaskId),
}

/// How a task stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskState {
    /// Still at work; progress in percent where the host tells.
    Running(Option<u8>),
    /// Ended well. The text is the host's warnings, for the provider.
    Succeeded(Option<String>),
    /// Ended badly, with an error that tells whether to retry.
    Failed(crate::Error),
    /// The host does not know this task (any more): look at the guest instead.
    Unknown,
}

/// Whether a guest of ours is on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// It is there, with our marker.
    Present {
        /// Where it is now.
        node: String,
        /// Whether it runs.
        power: GuestPower,
        /// Whether a task of the host is at work on it (being created, snapshotted, …).
        busy: bool,
    },
    /// Every place that could hold it was read, and it is not there.
    Absent,
}

/// Whether a guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestPower {
    /// It runs.
    Running,
    /// It is stopped.
    Stopped,
    /// It is up and stands still: somebody or something (a full storage, a crash) halted it.
    Paused,
    /// Not told, in error, on its way, or a state we have no word for.
    Unknown,
}

/// What a host is and has, as the preflight sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostInfo {
    /// Product and version, as the host names them.
    pub version: String,
    /// Its machines.
    pub nodes: Vec<Node>,
    /// What is missing or doubtful, a sentence each; empty when all is well.
    pub problems: Vec<String>,
    /// The first number of the version; 0 where it is not told.
    pub major: u32,
    /// Fingerprints of the host's own certificates, which no other host has, whatever way leads to it; empty where they
    /// are not told.
    pub identity: Vec<String>,
    /// The storages that hold templates of containers, on kinds of hosts that have such.
    pub template_storages: Vec<String>,
}

/// One machine of a host and what it has in all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name on the host.
    pub name: String,
    /// Whether it can take guests now: it is up, and nobody keeps it free for maintenance.
    pub online: bool,
    /// Processor threads.
    pub cores: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Room for root disks in GiB (the storage pool that guests go to).
    pub disk_gib: u64,
    /// Bytes of that room in use, by whomever, where the host tells.
    pub disk_used: Option<u64>,
    /// Whether that room is one storage's that several of the host's machines share, and so is there only once.
    pub disk_shared: bool,
}

/// One look at every guest of a host.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    /// When the host was asked.
    pub taken_at: DateTime<Utc>,
    /// How old what it said may be by then: nothing of it contradicts what happened since.
    pub lag: Duration,
    /// The host's machines.
    pub nodes: Vec<Node>,
    /// Guests with our marker. One that is here was seen, whatever the rest of the host does.
    pub guests: Vec<GuestSample>,
    /// Where a guest that is missing means something.
    pub coverage: Coverage,
}

/// What a sweep saw whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// The nodes of which every guest was read.
    pub nodes: Vec<String>,
    /// The numbers of guests that are there and could not be read.
    pub unread: Vec<i64>,
}

impl Coverage {
    /// Whether a guest of this number that was last known on this node would have been seen.
    pub fn includes(&self, node: &str, vmid: i64) -> bool {
        self.nodes.iter().any(|name| name == node) && !self.unread.contains(&vmid)
    }
}

/// One guest in a sweep. Byte figures are bytes; network figures are counters since the guest's start. What the host
/// does not know is `None`, never 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuestSample {
    /// The server's uuid.
    pub marker: Uuid,
    /// The guest's number.
    pub vmid: i64,
    /// What the guest is.
    pub kind: GuestKind,
    /// When it was made, where the host tells.
    pub created_at: Option<DateTime<Utc>>,
    /// The node it is on.
    pub node: String,
    /// Whether it runs.
    pub power: GuestPower,
    /// Why it is paused, in the host's word, where it says one.
    pub reason: Option<String>,
    /// Seconds since its start; 0 when stopped.
    pub uptime_s: Option<u64>,
    /// Share of its cores in use, 0 to 1, where the host gives a share.
    pub cpu: Option<f64>,
    /// Processor time used since its start in nanoseconds, where the host gives a counter instead.
    pub cpu_time_ns: Option<u64>,
    /// Cores it may use.
    pub cores: u32,
    /// Memory in use.
    pub memory_used: Option<u64>,
    /// Memory it may use.
    pub memory_max: Option<u64>,
    /// Root disk in use.
    pub disk_used: Option<u64>,
    /// Root disk size.
    pub disk_max: Option<u64>,
    /// Bytes received since start.
    pub net_in: Option<u64>,
    /// Bytes sent since start.
    pub net_out: Option<u64>,
}

/// What a guest was given, as its host has it: for one that nobody knows any more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuestFacts {
    /// Its host name, where the host has it.
    pub hostname: Option<String>,
    /// The addresses that its interfaces have in the host's configuration.
    pub addresses: Vec<IpAddr>,
    /// Its size; what the host does not say is `None`.
    pub limits: Limits,
}

/// One network interface inside a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Name inside the guest.
    pub name: String,
    /// Hardware address.
    pub mac: String,
    /// Addresses without prefix length, link-local ones included.
    pub addresses: Vec<IpAddr>,
}

/// What a command in a guest left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// Exit status.
    pub status: i32,
    /// Standard output, at most 1 MiB.
    pub stdout: Vec<u8>,
    /// Standard error, at most 1 MiB.
    pub stderr: Vec<u8>,
}

/// One snapshot of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// What the customer wrote about it.
    pub description: String,
    /// When it was taken.
    pub taken_at: DateTime<Utc>,
    /// The snapshot it stands on, where the host knows.
    pub parent: Option<String>,
    /// Whether the guest can be put back to it: false while it is being taken or deleted, and for good where that never
    /// came to its end.
    pub usable: bool,
    /// Its size in bytes, where the host knows.
    pub size: Option<u64>,
}

/// What a kind of host can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)]
pub struct Capabilities {
    /// `create` sets root's password.
    pub password_at_create: bool,
    /// `set_password` works in a running guest.
    pub set_password: bool,
    /// `exec` works in a running guest.
    pub exec: bool,
    /// Cores and memory of a container change while it runs.
    pub live_resize: bool,
    /// Those of a virtual machine do too; otherwise with its next start.
    pub vm_live_resize: bool,
    /// Snapshots at all.
    pub snapshots: bool,
    /// A console in the browser.
    pub console: bool,
    /// Containers.
    pub lxc: bool,
    /// Virtual machines.
    pub vm: bool,
}
