//! The one list of features and dialects.

use std::sync::Arc;

use accounts::{Accounts, Members, Users};
use compute::addresses::Addresses;
use compute::console::Consoles;
use compute::hosts::Hosts;
use compute::images::{Images, ImagesOnNodes};
use compute::resize::Resizes;
use compute::servers::{PinnedGuestKeys, Servers};
use compute::snapshots::Snapshots;
use compute::ssh_keys::SshKeys;
use compute::tariffs::Tariffs;
use compute::unknown_guests::UnknownGuests;
use kernel::audit::Audit;
use kernel::core::Core;
use kernel::dialect::Dialect;
use kernel::feature::Feature;
use kernel::idempotency::Idempotency;
use kernel::limits::RateLimiting;
use kernel::mail::Mails;
use kernel::operations::Operations;
use kernel::restores::RestoreDetection;
use kernel::subjects::Subjects;
use watch::alerts::Alerts;
use watch::figures::WatchedFigures;
use watch::history::History;
use watch::monitoring::Monitoring;
use watch::realtime::Realtime;
use watch::sweep::Sweeps;

use crate::dashboard::Dashboard;

/// Every feature of the service, and by name those that the program itself calls.
#[derive(Debug)]
pub struct Features {
    /// Who may sign in.
    pub accounts: Arc<Accounts>,
    /// Who is given which address.
    pub addresses: Arc<Addresses>,
    /// The hosts, with connections to them.
    pub hosts: Arc<Hosts>,
    /// Who is notified when something is wrong.
    pub alerts: Arc<Alerts>,
    /// What looks at the hosts.
    pub sweeps: Arc<Sweeps>,
    /// What works on operations.
    pub operations: Arc<Operations>,
    all: Vec<Arc<dyn Feature>>,
    dialects: Vec<Arc<dyn Dialect>>,
}

impl Features {
    /// All of them, each with those that it stands on, and these.
    pub fn new(core: &Arc<Core>, more: Vec<Arc<dyn Feature>>) -> anyhow::Result<Self> {
        let accounts = Accounts::new(core)?;
        let addresses = Addresses::new(core)?;
        let hosts = Hosts::new(core, &addresses, Arc::new(PinnedGuestKeys), vec![Arc::new(ImagesOnNodes)]);
        let servers = Servers::new(&accounts, &hosts, Arc::new(WatchedFigures))?;
        let monitoring = Monitoring::new(core)?;
        let alerts = Alerts::new(core, &accounts, &addresses, &monitoring)?;
        let sweeps = Sweeps::new(&hosts, &monitoring, &alerts);
        let mut all: Vec<Arc<dyn Feature>> = vec![
            Arc::new(RestoreDetection(Arc::clone(core))),
            Arc::new(Idempotency(Arc::clone(core))),
            Arc::new(RateLimiting(Arc::clone(core))),
            Arc::new(Audit(Arc::clone(core))),
            Mails::new(core)?,
            Arc::clone(&accounts) as _,
            Users::new(&accounts),
            Members::new(&accounts),
            Tariffs::new(core),
            Images::new(&hosts),
            Arc::clone(&hosts) as _,
            Arc::clone(&addresses) as _,
            UnknownGuests::new(&servers),
            SshKeys::new(core),
            Arc::clone(&servers) as _,
            Resizes::new(&servers),
            Snapshots::new(&servers),
            Consoles::new(core, &accounts, &hosts)?,
            Arc::clone(&monitoring) as _,
            History::new(core),
            Arc::clone(&alerts) as _,
            Arc::clone(&sweeps) as _,
            Realtime::new(core, &accounts, &monitoring),
            Arc::new(Dashboard),
        ];
        all.extend(more);
        let subjects = all.iter().flat_map(|feature| Arc::clone(feature).subjects());
        core.set_subjects(Subjects::new(subjects))?;
        let workflows = all.iter().flat_map(|feature| Arc::clone(feature).workflows()).collect();
        let operations = Operations::new(core, workflows)?;
        all.push(Arc::clone(&operations) as _);
        // The native API needs no line here: its routes are the features'.
        let dialects = vec![];
        Ok(Self { accounts, addresses, hosts, alerts, sweeps, operations, all, dialects })
    }

    /// Every one.
    pub fn all(&self) -> &[Arc<dyn Feature>] {
        &self.all
    }

    /// The APIs beside the native one.
    pub fn dialects(&self) -> &[Arc<dyn Dialect>] {
        &self.dialects
    }
}
