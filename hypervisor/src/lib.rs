//! What drivers of hypervisor hosts (Proxmox VE, libvirt, Incus) are: the trait, and what it takes and gives. The drivers are
//! crates of their own.
//!
//! A *host* is an endpoint we drive, a *node* one machine of it, a *guest* what runs there. A driver is a thin
//! and honest translation: it submits work, tells whether that work has ended, and looks. It never decides
//! policy: retries, deadlines and undo belong to the caller's operations engine.
//!
//! Three rules hold for every driver, and the crate `conformance` tests them:
//!
//! 1. **The marker.** Every guest we make carries the server's uuid. Calls on a guest check it and answer
//!    [`Error::NotOurs`] where it is missing or another's: nothing without our marker is ever changed.
//! 2. **Repeatable.** Every mutating call may be made again after a crash: creating what is there with our
//!    marker, starting what runs, stopping what is stopped and deleting what is gone are successes.
//! 3. **Outcomes are believed when the task has ended.** Mutating calls return a [`Task`], to be asked for with
//!    [`Driver::task`] until it ends; its id is plain text and survives a restart of ours.

pub mod check;
mod console;
mod error;
mod model;
mod remote;
pub mod ssh;

use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;

pub use console::{Console, ConsoleInput, ConsoleKind, last_lines};
pub use error::{Error, Result};
pub use model::{
    Capabilities, Coverage, ExecOutput, GuestAddress, GuestFacts, GuestKind, GuestNetwork, GuestPower, GuestRef,
    GuestSample, GuestSpec, HostInfo, Interface, Limits, Node, Presence, Snapshot, StopMode, Sweep, Task, TaskId,
    TaskState,
};
pub use remote::{GuestShell, ShellTarget};

/// What Innkeeper needs of a host. One implementation a kind of host; see the crate's rules.
#[async_trait]
pub trait Driver: Send + Sync + std::fmt::Debug {
    /// What this kind of host can do, so that callers refuse early and in words. Constant for a driver.
    fn capabilities(&self) -> Capabilities;

    /// Asks the host who it is: version, nodes and whether we may do our work there (the preflight of `host add`).
    async fn info(&self) -> Result<HostInfo>;

    /// Whether an image or template of this name is there to create guests from.
    async fn has_image(&self, kind: GuestKind, source: &str) -> Result<bool>;

    /// The nodes that guests can be made on from it; `None` where that is all of them, or the host does not decide by
    /// node. Nodes that can't be asked now are not among them.
    async fn image_nodes(&self, _kind: GuestKind, _source: &str) -> Result<Option<Vec<String>>> {
        Ok(None)
    }

    /// Looks at every guest that carries our marker, in a number of calls that does not grow with the guests.
    async fn sweep(&self) -> Result<Sweep>;

    /// Bytes of a guest's root disk that are in use now, which is what a snapshot of it may come to hold; `None` where the
    /// host can't tell.
    async fn disk_used(&self, _guest: &GuestRef) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Looks for one guest everywhere it may be. [`Presence::Absent`] is evidence: every place that could hold
    /// it was read and answered. Anything less is an error, never `Absent`.
    async fn find(&self, guest: &GuestRef) -> Result<Presence>;

    /// What a guest that carries our marker was given: for one that a sweep saw and that no server goes with. Nobody's
    /// guest is asked.
    async fn facts(&self, guest: &GuestRef) -> Result<GuestFacts> {
        Err(Error::Unsupported(format!("what guest {} was given can't be told here", guest.vmid)))
    }

    /// Whether a guest may be made under this number: hosts with numbers of their own say no where anything has it,
    /// ours or not. A yes reserves nothing. Hosts that know guests by name only say yes.
    async fn is_number_free(&self, _vmid: i64) -> Result<bool> {
        Ok(true)
    }

    /// Whether the guest could be deleted, were it stopped: asks, changes nothing, and is to be called before anything is
    /// stopped for a deletion. [`Error::Protected`] where the host keeps it from being deleted; a guest that is gone can
    /// be.
    async fn check_delete(&self, guest: &GuestRef) -> Result<()>;

    /// Whether a guest could be made from `spec` once the one of ours that has its number is gone: image, rights, room,
    /// number. Asks, changes nothing, and is to be called before that one is deleted for it. An error says why not, as
    /// [`Driver::create`] would.
    async fn check_create(&self, spec: &GuestSpec) -> Result<()>;

    /// The state of a task submitted earlier, perhaps by another process of ours. [`TaskState::Unknown`] where the
    /// host has forgotten it: the caller then looks with [`Driver::find`].
    async fn task(&self, id: &TaskId) -> Result<TaskState>;

    /// Creates a stopped guest from `spec`, with the marker. A guest that carries the marker already is a success.
    async fn create(&self, spec: &GuestSpec) -> Result<Task>;

    /// Writes what must be in a stopped guest before its first start and could not be given at creation (hostname,
    /// network files, keys, filters against address spoofing). Repeatable.
    async fn prepare(&self, spec: &GuestSpec) -> Result<()>;

    /// Starts the guest.
    async fn start(&self, guest: &GuestRef) -> Result<Task>;

    /// Stops the guest, cleanly (and by force when the time is over) or by force at once.
    async fn stop(&self, guest: &GuestRef, mode: StopMode) -> Result<Task>;

    /// Restarts a running guest, cleanly within `timeout`, then by force; starts a stopped one.
    async fn restart(&self, guest: &GuestRef, timeout: Duration) -> Result<Task>;

    /// Deletes the guest with its disks and snapshots; a running guest is refused with [`Error::Conflict`].
    async fn delete(&self, guest: &GuestRef) -> Result<Task>;

    /// Changes cores, memory or disk, live where the guest can. `None` leaves a value alone; a smaller disk is
    /// refused with [`Error::Invalid`].
    async fn resize(&self, guest: &GuestRef, limits: &Limits) -> Result<Task>;

    /// Sets root's password in a running guest. It never appears in an argument list or a log.
    async fn set_password(&self, guest: &GuestRef, password: &SecretString) -> Result<()>;

    /// Runs a command, an argument vector and no shell, in a running guest and waits for its end.
    async fn exec(&self, guest: &GuestRef, argv: &[&str], stdin: &[u8], timeout: Duration) -> Result<ExecOutput>;

    /// The guest's network interfaces as the guest sees them; empty while it is stopped.
    async fn interfaces(&self, guest: &GuestRef) -> Result<Vec<Interface>>;

    /// The last that a guest has said where its host keeps it (its console's log, else the log of the task that started
    /// it), for whoever looks for why it is down. Nobody's guest is asked; empty where nothing is kept.
    async fn last_words(&self, _guest: &GuestRef) -> Result<String> {
        Ok(String::new())
    }

    /// The guest's snapshots, oldest first.
    async fn snapshots(&self, guest: &GuestRef) -> Result<Vec<Snapshot>>;

    /// Takes a snapshot of the guest's disks. A name that is taken gives [`Error::AlreadyExists`].
    async fn create_snapshot(&self, guest: &GuestRef, name: &str, description: &str) -> Result<Task>;

    /// Puts the guest's disks back to a snapshot. A guest that ran runs again afterwards. A storage that goes back to its
    /// newest one only gives [`Error::Unsupported`] for the others, at once or at the task's end.
    async fn rollback(&self, guest: &GuestRef, name: &str) -> Result<Task>;

    /// Whether [`Driver::rollback`] would be refused for what can be seen now; [`Error::Conflict`] with words for the
    /// server's owner where it would.
    async fn check_rollback(&self, _guest: &GuestRef, _name: &str) -> Result<()> {
        Ok(())
    }

    /// Deletes a snapshot; one that is gone is a success.
    async fn delete_snapshot(&self, guest: &GuestRef, name: &str) -> Result<Task>;

    /// Opens a console of a running guest: a terminal, or a screen where it has one.
    async fn console(&self, guest: &GuestRef) -> Result<Console>;
}
