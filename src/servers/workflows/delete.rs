//! Deleting a server: guest, disks and snapshots go, then addresses and room are free again.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::guest::{self, Guest, Removal};
use crate::addresses;
use crate::operations::{self, Context, Fault, Outcome, Step, Workflow};
use crate::servers::model::Status;
use crate::servers::store;

/// The workflow's name.
pub const KIND: &str = "delete";

/// What it keeps between steps.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Data {
    removal: Removal,
    /// Whether the server was meant to be up before.
    #[serde(default)]
    up: Option<bool>,
}

impl operations::Data for Data {}

impl Data {
    /// The first data of a server that was meant to be up, or not.
    pub fn new(up: bool) -> Self {
        Self { removal: Removal::default(), up: Some(up) }
    }
}

/// The steps.
pub fn workflow() -> Workflow<Data> {
    Workflow { kind: KIND, steps: vec![Box::new(DeleteGuest), Box::new(Release)] }
}

/// Removes the guest. Where that fails, what is there is as it was before, and the server may be deleted again.
#[derive(Debug)]
struct DeleteGuest;

#[async_trait]
impl Step<Data> for DeleteGuest {
    fn name(&self) -> &'static str {
        "delete_guest"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        let Some(guest) = Guest::left(ctx).await? else { return Ok(Outcome::Done) };
        if guest.server.status != Status::Deleting {
            // It has waited for its turn.
            let mut tx = ctx.begin().await?;
            store::set_status(&mut tx, ctx.server, Status::Deleting).await?;
            tx.commit().await?;
        }
        Ok(data.removal.advance(ctx, &guest).await?.unwrap_or(Outcome::Done))
    }

    async fn undo(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        let guest = Guest::load(ctx).await?;
        match data.removal.restore(ctx, &guest).await? {
            Some(wait) => Ok(wait),
            None => guest::settle_as(ctx, data.up).await,
        }
    }
}

/// Frees what the server held, now that nothing can use it.
#[derive(Debug)]
struct Release;

#[async_trait]
impl Step<Data> for Release {
    fn name(&self) -> &'static str {
        "release"
    }

    async fn run(&self, ctx: &Context<'_>, _: &mut Data) -> Result<Outcome, Fault> {
        let left = Guest::left(ctx).await?.is_some();
        let mut tx = ctx.begin().await?;
        if !left {
            // What it waited for has taken everything back, or deleted it.
            store::bury(&mut tx, ctx.server).await?;
            return Ok(Outcome::DoneIn(tx));
        }
        addresses::store::release(&mut tx, ctx.server).await?;
        store::unreserve(&mut tx, ctx.server, Status::Deleted).await?;
        Ok(Outcome::DoneIn(tx))
    }
}
