//! Workflows on snapshots.

pub mod create;
pub mod delete;
pub mod rollback;
mod take;

use std::sync::Arc;

use crate::hosts::Hosts;
use kernel::operations::AnyWorkflow;

pub(crate) fn all(hosts: &Arc<Hosts>) -> Vec<Box<dyn AnyWorkflow>> {
    vec![Box::new(create::workflow(hosts)), Box::new(rollback::workflow(hosts)), Box::new(delete::workflow(hosts))]
}
