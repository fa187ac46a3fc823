//! What is done with snapshots, step by step.

pub mod create;
pub mod delete;
pub mod rollback;
mod take;

use crate::operations::AnyWorkflow;

/// Every workflow on snapshots.
pub(crate) fn all() -> Vec<Box<dyn AnyWorkflow>> {
    vec![Box::new(create::workflow()), Box::new(rollback::workflow()), Box::new(delete::workflow())]
}
