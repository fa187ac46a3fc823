//! Workflows on servers' guests.

pub mod create;
pub mod delete;
pub mod guest;
pub mod password;
pub mod power;
pub mod reinstall;

use std::sync::Arc;

use crate::hosts::Hosts;
use kernel::operations::AnyWorkflow;

/// Every workflow on servers.
pub fn all(hosts: &Arc<Hosts>) -> Vec<Box<dyn AnyWorkflow>> {
    vec![
        Box::new(create::workflow(hosts)),
        Box::new(delete::workflow(hosts)),
        Box::new(power::workflow(hosts, power::Power::Start)),
        Box::new(power::workflow(hosts, power::Power::Stop)),
        Box::new(power::workflow(hosts, power::Power::Restart)),
        Box::new(power::workflow(hosts, power::Power::Suspend)),
        Box::new(power::workflow(hosts, power::Power::Unsuspend)),
        Box::new(reinstall::workflow(hosts)),
        Box::new(password::workflow(hosts)),
    ]
}
