//! Taking a snapshot.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::take::Take;
use crate::operations::{self, Context, Fault, Outcome, Step, Workflow};

/// The workflow's name.
pub const KIND: &str = "snapshot";

/// What it keeps.
#[derive(Debug, Serialize, Deserialize)]
pub struct Data {
    take: Take,
}

impl operations::Data for Data {}

impl Data {
    /// The first data, with how many snapshots the server may have.
    pub fn new(name: String, description: String, limit: i32) -> Self {
        Self { take: Take::new(name, description, limit) }
    }
}

/// The steps.
pub fn workflow() -> Workflow<Data> {
    Workflow { kind: KIND, steps: vec![Box::new(TakeSnapshot)] }
}

/// Takes it.
#[derive(Debug)]
struct TakeSnapshot;

#[async_trait]
impl Step<Data> for TakeSnapshot {
    fn name(&self) -> &'static str {
        "take_snapshot"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        data.take.advance(ctx).await
    }

    async fn undo(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        data.take.take_back(ctx).await
    }
}
