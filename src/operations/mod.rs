//! The durable operations engine: every change to a host is a row here before the host hears of it.
//!
//! A [`Workflow`] is a typed list of [`Step`]s. A worker claims an operation with a lease and a fencing token, runs
//! its present step, writes the outcome with the token, and goes on; a step that waits lets the worker go. A step
//! that fails for good turns the operation round: its steps are undone, last first. What can be neither ended nor
//! undone is *stuck* and waits for a person. A process that dies loses nothing: its lease runs out and another
//! process repeats the step it was at, which is why steps must be repeatable.

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

pub use engine::{Engine, NewOperation, Placed};
pub use feature::Operations;
pub use workflow::{AnyWorkflow, Context, Data, Fault, FaultKind, Kind, Outcome, Step, Workflow};
