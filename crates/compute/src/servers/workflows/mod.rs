//! Workflows on servers' guests.

pub mod create;
pub mod delete;
pub mod guest;
pub mod password;
pub mod power;
pub mod reinstall;

use kernel::operations::AnyWorkflow;

use crate::servers::Servers;

/// Every workflow on servers.
pub fn all(servers: &Servers) -> Vec<Box<dyn AnyWorkflow>> {
    let hosts = &servers.hosts;
    let power = |power| Box::new(power::workflow(hosts, power, servers.settings.shutdown()));
    vec![
        Box::new(create::workflow(servers)),
        Box::new(delete::workflow(hosts)),
        power(power::PowerAction::Start),
        power(power::PowerAction::Stop),
        power(power::PowerAction::Restart),
        power(power::PowerAction::Suspend),
        power(power::PowerAction::Unsuspend),
        Box::new(reinstall::workflow(servers)),
        Box::new(password::workflow(hosts)),
    ]
}
