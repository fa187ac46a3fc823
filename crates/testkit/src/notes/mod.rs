//! A feature that is as small as one can be: routes, a kind of subjects, a workflow, a task, a metric, upkeep.
//! `tests/features.rs` adds it to the service as ARCHITECTURE.md says that features are added.

mod feature;
mod model;
mod routes;
mod subject;
mod workflow;

pub use feature::Notes;
pub use workflow::ILLEGIBLE;
