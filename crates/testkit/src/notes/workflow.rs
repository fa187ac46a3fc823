//! Pins a note, unless it can't be read.

use std::sync::Arc;

use async_trait::async_trait;
use kernel::error::Code;
use kernel::operations::{AnyWorkflow, Context, Data, Fault, FaultKind, Outcome, Step, Workflow, WorkflowKind};
use serde::{Deserialize, Serialize};

use super::Notes;

pub(super) const PIN: WorkflowKind = WorkflowKind { name: "pin", first_step: "pin" };

/// A note that can't be read.
pub const ILLEGIBLE: &str = "illegible";

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Nothing {}

impl Data for Nothing {}

pub(super) fn pin(notes: &Arc<Notes>) -> Box<dyn AnyWorkflow> {
    let (pin, read) = (Pin(Arc::clone(notes)), Read(Arc::clone(notes)));
    Box::new(Workflow::<Nothing> { kind: PIN, steps: vec![Box::new(pin), Box::new(read)] })
}

#[derive(Debug)]
struct Pin(Arc<Notes>);

#[async_trait]
impl Step<Nothing> for Pin {
    fn name(&self) -> &'static str {
        "pin"
    }

    async fn run(&self, ctx: &Context<'_>, _: &mut Nothing) -> Result<Outcome, Fault> {
        self.0.change(&ctx.subject.id, |note| note.pinned = true);
        Ok(Outcome::Done)
    }

    async fn undo(&self, ctx: &Context<'_>, _: &mut Nothing) -> Result<Outcome, Fault> {
        self.0.change(&ctx.subject.id, |note| note.pinned = false);
        Ok(Outcome::Done)
    }
}

#[derive(Debug)]
struct Read(Arc<Notes>);

#[async_trait]
impl Step<Nothing> for Read {
    fn name(&self) -> &'static str {
        "read"
    }

    async fn run(&self, ctx: &Context<'_>, _: &mut Nothing) -> Result<Outcome, Fault> {
        let legible = !self.0.all().iter().any(|(_, n)| n.id.to_string() == ctx.subject.id && n.text == ILLEGIBLE);
        match legible {
            true => Ok(Outcome::Done),
            false => Err(Fault::new(FaultKind::Fail, Code::Invalid, "Nobody can read this note.")),
        }
    }
}
