//! Creating a snapshot.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::take::Take;
use crate::hosts::Hosts;
use kernel::operations::{self, Context, Fault, Kind, Outcome, Step, Workflow};

/// The workflow.
pub const KIND: Kind = Kind { name: "snapshot", first_step: "take_snapshot" };

/// Data kept between steps.
#[derive(Debug, Serialize, Deserialize)]
pub struct Data {
    take: Take,
}

impl operations::Data for Data {}

impl Data {
    /// The initial data, with the server's snapshot limit.
    pub fn new(name: String, description: String, limit: i32) -> Self {
        Self { take: Take::new(name, description, limit) }
    }
}

/// The steps.
pub fn workflow(hosts: &Arc<Hosts>) -> Workflow<Data> {
    let hosts = || Arc::clone(hosts);
    Workflow { kind: KIND, steps: vec![Box::new(TakeSnapshot { hosts: hosts() })] }
}

/// Creates the snapshot.
#[derive(Debug)]
struct TakeSnapshot {
    hosts: Arc<Hosts>,
}

#[async_trait]
impl Step<Data> for TakeSnapshot {
    fn name(&self) -> &'static str {
        "take_snapshot"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        data.take.advance(&self.hosts, ctx).await
    }

    async fn undo(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        data.take.take_back(&self.hosts, ctx).await
    }
}
