//! The durable operations engine: every change to a host is a row here before the host is contacted.
//!
//! A [`Workflow`] is a typed list of [`Step`]s. A worker claims an operation with a lease and a fencing token, runs its
//! current step, writes the outcome with the token, and continues; a step that waits frees the worker. If a step fails
//! permanently, the steps are undone, last first. An operation that can be neither completed nor undone is *stuck* and
//! needs manual intervention. A process that dies loses nothing: its lease expires and another process repeats the
//! current step, which is why steps must be repeatable.

use uuid::Uuid;

use crate::events::Topic;

mod engine;
pub mod failpoints;
mod feature;
mod fenced;
pub mod model;
mod routes;
mod run;
pub mod service;
mod store;
mod worker;
mod workflow;

/// An operation waits for a worker.
pub const OPERATION_DUE: Topic<()> = Topic::new("operation_due", |_| Some(()));
/// What people see of an operation has changed.
pub const OPERATION_CHANGED: Topic<Uuid> = Topic::new("operation_changed", |id| id.parse().ok());

pub use engine::{Engine, Enqueued, NewOperation, locked};
pub use feature::Operations;
pub use workflow::{AnyWorkflow, Context, Data, Fault, FaultKind, Outcome, Step, Workflow, WorkflowKind};
