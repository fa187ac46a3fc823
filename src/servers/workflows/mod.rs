//! What is done to servers' guests, step by step.

pub mod create;
pub mod delete;
pub(crate) mod guest;
pub mod password;
pub mod power;
pub mod reinstall;

use crate::operations::AnyWorkflow;

/// Every workflow on servers.
pub fn all() -> Vec<Box<dyn AnyWorkflow>> {
    vec![
        Box::new(create::workflow()),
        Box::new(delete::workflow()),
        Box::new(power::workflow(power::Power::Start)),
        Box::new(power::workflow(power::Power::Stop)),
        Box::new(power::workflow(power::Power::Restart)),
        Box::new(power::workflow(power::Power::Suspend)),
        Box::new(power::workflow(power::Power::Unsuspend)),
        Box::new(reinstall::workflow()),
        Box::new(password::workflow()),
    ]
}
