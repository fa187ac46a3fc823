//! Workflows on snapshots.

pub mod create;
pub mod delete;
pub mod rollback;
mod take;

use std::sync::Arc;

use kernel::operations::AnyWorkflow;

use crate::servers::Servers;

pub(crate) fn all(servers: &Arc<Servers>) -> Vec<Box<dyn AnyWorkflow>> {
    vec![
        Box::new(create::workflow(servers)),
        Box::new(rollback::workflow(servers)),
        Box::new(delete::workflow(&servers.hosts)),
    ]
}
