//! The one list of features.

use std::sync::Arc;

use crate::accounts::Accounts;
use crate::addresses::Addresses;
use crate::alerts::Alerts;
use crate::audit::Audit;
use crate::console::Consoles;
use crate::core::Core;
use crate::feature::Feature;
use crate::history::History;
use crate::hosts::Hosts;
use crate::idempotency::Idempotency;
use crate::images::Images;
use crate::limits::Limiting;
use crate::mail::Mails;
use crate::monitoring::Monitoring;
use crate::operations::Operations;
use crate::realtime::Realtime;
use crate::resize::Resizing;
use crate::restores::Restores;
use crate::servers::Servers;
use crate::snapshots::Snapshots;
use crate::ssh_keys::SshKeys;
use crate::subjects::Subjects;
use crate::sweep::Sweeps;
use crate::tariffs::Tariffs;
use crate::unknown_guests::UnknownGuests;

/// Every feature of the service, and by name those that the program itself calls.
#[derive(Debug)]
pub struct Features {
    /// Who may sign in.
    pub accounts: Arc<Accounts>,
    /// The hosts, with connections to them.
    pub hosts: Arc<Hosts>,
    /// What works on operations.
    pub operations: Arc<Operations>,
    all: Vec<Arc<dyn Feature>>,
}

impl Features {
    /// All of them, each with those that it stands on.
    pub fn new(core: &Arc<Core>) -> anyhow::Result<Self> {
        let accounts = Accounts::new(core);
        let hosts = Hosts::new(core);
        let mut all: Vec<Arc<dyn Feature>> = vec![
            Arc::new(Restores(Arc::clone(core))),
            Arc::new(Idempotency(Arc::clone(core))),
            Arc::new(Limiting(Arc::clone(core))),
            Arc::new(Audit(Arc::clone(core))),
            Arc::new(Mails(Arc::clone(core))),
            Arc::clone(&accounts) as _,
            Tariffs::new(core),
            Images::new(&hosts),
            Arc::clone(&hosts) as _,
            Addresses::new(core),
            UnknownGuests::new(&hosts),
            SshKeys::new(core),
            Servers::new(&hosts),
            Resizing::new(&hosts),
            Snapshots::new(&hosts),
            Consoles::new(core, &accounts, &hosts),
            Monitoring::new(core),
            History::new(core),
            Alerts::new(core),
            Sweeps::new(&hosts),
            Realtime::new(core, &accounts),
        ];
        let subjects = all.iter().flat_map(|feature| Arc::clone(feature).subjects());
        let subjects = Arc::new(Subjects::new(subjects));
        let workflows = all.iter().flat_map(|feature| Arc::clone(feature).workflows()).collect();
        let operations = Operations::new(core, workflows, subjects)?;
        all.push(Arc::clone(&operations) as _);
        Ok(Self { accounts, hosts, operations, all })
    }

    /// Every one.
    pub fn all(&self) -> &[Arc<dyn Feature>] {
        &self.all
    }
}
