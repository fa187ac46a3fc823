//! What drivers of hypervisor hosts (Proxmox VE, libvirt, Incus) have in common: their traits, and what these take and
//! give. The drivers are crates of their own.
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
//!    [`Tasks::task`] until it ends; its id is plain text and survives a restart of the service.

pub mod check;
mod console;
mod driver;
mod error;
mod model;
mod remote;
pub mod rows;
pub mod ssh;

pub use console::{Console, ConsoleInput, ConsoleKind, last_lines};
pub use driver::{Consoles, Driver, Host, Inside, Inventory, Power, Provision, Snapshots, Tasks};
pub use error::{Error, Result, STALE_LOCK};
pub use model::{
    Capabilities, Coverage, ExecOutput, GuestAddress, GuestFacts, GuestKind, GuestNetwork, GuestPower, GuestRef,
    GuestSample, GuestSize, GuestSpec, HostInfo, Interface, Node, Presence, Snapshot, StopMode, Sweep, Task, TaskId,
    TaskState,
};
pub use remote::{GuestShell, ShellTarget};
