//! What Innkeeper needs of a host: a trait for each matter, and [`Driver`] for all of them.
//!
//! A kind of host implements each of them on one type, in the file that does the work. See the crate's three rules.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;

use crate::{
    Capabilities, Console, Error, ExecOutput, GuestFacts, GuestKind, GuestRef, GuestSize, GuestSpec, HostInfo,
    Interface, Presence, Result, Snapshot, StopMode, Sweep, Task, TaskId, TaskState,
};

/// The host as a whole: what it can do, who it is, and what it can make guests from.
#[async_trait]
pub trait Host: Send + Sync {
    /// The features of this kind of host, so that callers can reject a request early with a clear message. Constant for
    /// a driver.
    fn capabilities(&self) -> Capabilities;

    /// Describes the host: version, nodes, and whether we have what we need there (the preflight of `host add`).
    async fn info(&self) -> Result<HostInfo>;

    /// Whether an image or template of this name exists to create guests from.
    async fn has_image(&self, kind: GuestKind, source: &str) -> Result<bool>;

    /// The nodes on which guests can be made from it; `None` where that is all of them, or the host does not decide by
    /// node. Nodes that can't be asked now are not among them.
    async fn image_nodes(&self, _kind: GuestKind, _source: &str) -> Result<Option<Vec<String>>> {
        Ok(None)
    }
}

/// Which guests are there and how they are. Looking changes nothing.
#[async_trait]
pub trait Inventory: Send + Sync {
    /// Reads all guests that carry our marker, in a number of calls that does not depend on the number of guests.
    async fn sweep(&self) -> Result<Sweep>;

    /// Looks for a guest everywhere it may be. [`Presence::Absent`] is evidence: every place that could hold it was
    /// read and answered. Anything less is an error, never `Absent`.
    async fn find(&self, guest: &GuestRef) -> Result<Presence>;

    /// What a guest that carries our marker was given: for one that a sweep saw and that belongs to no server. The
    /// guest itself is not asked.
    async fn facts(&self, guest: &GuestRef) -> Result<GuestFacts> {
        Err(Error::Unsupported(format!("reading the configuration of guest {} is not supported here", guest.vmid)))
    }

    /// Bytes of a guest's root disk currently in use, which is how large a snapshot of it may become; `None` if the
    /// host can't tell.
    async fn disk_used(&self, _guest: &GuestRef) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Whether a guest may be created with this number. Hosts with numbers of their own say no if anything uses it,
    /// ours or not. A yes reserves nothing. Hosts that identify guests only by name always say yes.
    async fn is_number_free(&self, _vmid: i64) -> Result<bool> {
        Ok(true)
    }
}

/// What became of work that the host was given.
#[async_trait]
pub trait Tasks: Send + Sync {
    /// The state of a task submitted earlier, perhaps by another process of ours. [`TaskState::Unknown`] where the
    /// host has forgotten it: the caller then looks with [`Inventory::find`].
    async fn task(&self, id: &TaskId) -> Result<TaskState>;
}

/// A guest's life: made, prepared, resized, deleted.
#[async_trait]
pub trait Provision: Send + Sync {
    /// Whether a guest could be made from `spec` once the one of ours that has its number is gone: image, rights, room,
    /// number. Asks, changes nothing, and is to be called before that one is deleted for it. An error says why not, as
    /// [`Provision::create`] would.
    async fn check_create(&self, spec: &GuestSpec) -> Result<()>;

    /// Creates a stopped guest from `spec`, with the marker. Succeeds if a guest with the marker already exists.
    async fn create(&self, spec: &GuestSpec) -> Result<Task>;

    /// Writes into a stopped guest what it needs before its first start and what could not be set at creation (host
    /// name, network files, keys, filters against address spoofing). Repeatable.
    async fn prepare(&self, spec: &GuestSpec) -> Result<()>;

    /// Changes cores, memory or disk, live if the guest supports it. `None` leaves a value unchanged; a smaller disk is
    /// refused with [`Error::Invalid`].
    async fn resize(&self, guest: &GuestRef, limits: &GuestSize) -> Result<Task>;

    /// Whether the guest could be deleted if it were stopped. Changes nothing; call it before stopping anything for a
    /// deletion. [`Error::Protected`] if the host protects it from deletion; a missing guest is fine.
    async fn check_delete(&self, guest: &GuestRef) -> Result<()>;

    /// Deletes the guest with its disks and snapshots. A running guest is refused with [`Error::Conflict`].
    async fn delete(&self, guest: &GuestRef) -> Result<Task>;
}

/// Starting and stopping.
#[async_trait]
pub trait Power: Send + Sync {
    /// Starts the guest; wakes one that is paused.
    async fn start(&self, guest: &GuestRef) -> Result<Task>;

    /// Stops the guest: cleanly, and by force after the timeout, or by force at once.
    async fn stop(&self, guest: &GuestRef, mode: StopMode) -> Result<Task>;

    /// Restarts a running guest, cleanly within `timeout`, then by force; starts a stopped one.
    async fn restart(&self, guest: &GuestRef, timeout: Duration) -> Result<Task>;
}

/// Snapshots of a guest's disks.
#[async_trait]
pub trait Snapshots: Send + Sync {
    /// The guest's snapshots, oldest first.
    async fn snapshots(&self, guest: &GuestRef) -> Result<Vec<Snapshot>>;

    /// Takes a snapshot of the guest's disks. [`Error::AlreadyExists`] if the name is taken.
    async fn create_snapshot(&self, guest: &GuestRef, name: &str, description: &str) -> Result<Task>;

    /// Rolls the guest's disks back to a snapshot. A guest that was running runs again afterwards. A storage that can
    /// only roll back to the newest snapshot gives [`Error::Unsupported`] for others, at once or when the task ends.
    async fn rollback(&self, guest: &GuestRef, name: &str) -> Result<Task>;

    /// Whether [`Snapshots::rollback`] would be refused for what can be seen now; [`Error::Conflict`] with words for
    /// the server's owner where it would.
    async fn check_rollback(&self, _guest: &GuestRef, _name: &str) -> Result<()> {
        Ok(())
    }

    /// Deletes a snapshot. Succeeds if it does not exist.
    async fn delete_snapshot(&self, guest: &GuestRef, name: &str) -> Result<Task>;
}

/// What is done and seen inside a running guest.
#[async_trait]
pub trait Inside: Send + Sync {
    /// Runs a command (an argument vector, no shell) in a running guest and waits for it to end.
    async fn exec(&self, guest: &GuestRef, argv: &[&str], stdin: &[u8], timeout: Duration) -> Result<ExecOutput>;

    /// Sets root's password in a running guest. The password never appears in an argument list or a log.
    async fn set_password(&self, guest: &GuestRef, password: &SecretString) -> Result<()>;

    /// The guest's network interfaces as seen inside it; empty if it is stopped.
    async fn interfaces(&self, guest: &GuestRef) -> Result<Vec<Interface>>;
}

/// What a guest says and shows.
#[async_trait]
pub trait Consoles: Send + Sync {
    /// Opens a console of a running guest: a graphical one if it has a display, else a terminal.
    async fn console(&self, guest: &GuestRef) -> Result<Console>;

    /// The last output of a guest where its host keeps it (its console's log, else the log of the task that started
    /// it), for finding out why it is down. The guest itself is not asked; empty where nothing is kept.
    async fn last_words(&self, _guest: &GuestRef) -> Result<String> {
        Ok(String::new())
    }
}

/// All of it: what a driver is. Whatever has the parts has the whole.
pub trait Driver: Host + Inventory + Tasks + Provision + Power + Snapshots + Inside + Consoles + Debug {}

impl<T> Driver for T where T: Host + Inventory + Tasks + Provision + Power + Snapshots + Inside + Consoles + Debug {}
