//! Reinstalling a server in its old place: the old guest is removed, then a new one is created as for an order.
//!
//! Once the old guest is gone it can't be restored. If the new one can't be created, nothing of the server is on the
//! host; it shows `failed`, keeps its place and its addresses, and can be reinstalled again or deleted.

use std::sync::Arc;

use async_trait::async_trait;
use hypervisor::Presence;
use kernel::operations::{self, Context, Fault, Outcome, Step, Workflow, WorkflowKind};
use kernel::secrets::Sealed;
use serde::{Deserialize, Serialize};

use super::create::{self, CreateGuest, PrepareGuest, SetInitialPassword, StartNewGuest};
use super::guest::{self, Guest, GuestRemoval};
use crate::hosts::Hosts;
use crate::ids::ImageId;
use crate::servers::Servers;
use crate::servers::model::ServerState;
use crate::servers::store;
use crate::servers::subject::server_of;

/// The workflow.
pub const KIND: WorkflowKind = WorkflowKind { name: "reinstall", first_step: "check_image" };

/// Data kept between steps.
#[derive(Debug, Serialize, Deserialize)]
pub struct Data {
    image: ImageId,
    ssh_keys: Vec<String>,
    removal: GuestRemoval,
    new: create::Data,
    /// Whether the server was supposed to be running before.
    #[serde(default)]
    up: Option<bool>,
}

impl operations::Data for Data {
    fn sealed(&mut self) -> Vec<(&'static str, &mut Sealed)> {
        self.new.sealed()
    }
}

impl Data {
    /// The initial data, with root's password sealed as [`create::PASSWORD`].
    pub fn new(password: Sealed, image: ImageId, ssh_keys: Vec<String>, up: bool) -> Self {
        Self { image, ssh_keys, removal: GuestRemoval::default(), new: create::Data::anew(password), up: Some(up) }
    }
}

/// The steps.
pub fn workflow(servers: &Servers) -> Workflow<Data> {
    let (hosts, margin) = (|| Arc::clone(&servers.hosts), servers.settings.storage_margin_percent);
    Workflow {
        kind: KIND,
        steps: vec![
            Box::new(CheckImage { hosts: hosts() }),
            Box::new(RemoveGuest { hosts: hosts() }),
            Box::new(CreateStep(CreateGuest { hosts: hosts(), margin })),
            Box::new(CreateStep(PrepareGuest { hosts: hosts() })),
            Box::new(CreateStep(StartNewGuest { hosts: hosts() })),
            Box::new(CreateStep(SetInitialPassword { hosts: hosts() })),
            Box::new(ShowReinstallStatus { hosts: hosts() }),
        ],
    }
}

/// A step of [`create`], run on the new guest's data.
#[derive(Debug)]
struct CreateStep<S>(S);

#[async_trait]
impl<S: Step<create::Data>> Step<Data> for CreateStep<S> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        self.0.run(ctx, &mut data.new).await
    }

    async fn undo(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        self.0.undo(ctx, &mut data.new).await
    }
}

/// Makes sure, before anything is lost, that the old guest can be deleted and the new one created.
#[derive(Debug)]
struct CheckImage {
    hosts: Arc<Hosts>,
}

#[async_trait]
impl Step<Data> for CheckImage {
    fn name(&self) -> &'static str {
        "check_image"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        let guest = Guest::load(&self.hosts, ctx).await?;
        let mut db = ctx.core.db.acquire().await?;
        let source = store::source_on(&mut db, data.image, guest.server.host_id).await?;
        drop(db);
        let source = source.ok_or_else(create::image_gone)?;
        if !guest.driver.has_image(guest.at.kind, &source).await? {
            return Err(create::image_gone());
        }
        let spec = create::spec_of(ctx, &guest, &data.new, source, &data.ssh_keys).await?;
        let checked = match guest.driver.check_delete(&guest.at).await {
            Ok(()) => guest.driver.check_create(&spec).await,
            refused => refused,
        };
        checked.map_err(|error| {
            let fault = Fault::from(error);
            let message = format!("{} Nothing of the server was changed.", fault.message);
            if fault.kind.is_final() { Fault { message, ..fault } } else { fault }
        })?;
        Ok(Outcome::Done)
    }

    /// The last step of the undo: the server's status becomes what the host reports.
    async fn undo(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        let guest = Guest::load(&self.hosts, ctx).await?;
        if guest.driver.find(&guest.at).await != Ok(Presence::Absent) {
            return guest::store_observed_status_as(&self.hosts, ctx, data.up).await;
        }
        let mut tx = ctx.begin().await?;
        store::set_status(&mut tx, server_of(ctx)?, ServerState::Failed).await?;
        Ok(Outcome::DoneIn(tx))
    }
}

/// Removes the old guest with its disks and snapshots. From then on the server's image and keys are the new ones.
#[derive(Debug)]
struct RemoveGuest {
    hosts: Arc<Hosts>,
}

#[async_trait]
impl Step<Data> for RemoveGuest {
    fn name(&self) -> &'static str {
        "remove_guest"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        let guest = Guest::load(&self.hosts, ctx).await?;
        if let Some(wait) = data.removal.advance(ctx, &guest).await? {
            return Ok(wait);
        }
        let mut tx = ctx.begin().await?;
        store::set_image(&mut tx, server_of(ctx)?, data.image, &data.ssh_keys).await?;
        store::snapshot_room::free_all(&mut tx, server_of(ctx)?).await?;
        Ok(Outcome::DoneIn(tx))
    }

    async fn undo(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        let guest = Guest::load(&self.hosts, ctx).await?;
        Ok(data.removal.restore(ctx, &guest).await?.unwrap_or(Outcome::Done))
    }
}

/// Shows the final status.
#[derive(Debug)]
struct ShowReinstallStatus {
    hosts: Arc<Hosts>,
}

#[async_trait]
impl Step<Data> for ShowReinstallStatus {
    fn name(&self) -> &'static str {
        "show_status"
    }

    async fn run(&self, ctx: &Context<'_>, _: &mut Data) -> Result<Outcome, Fault> {
        Guest::load(&self.hosts, ctx).await?.check_running().await?;
        let mut tx = ctx.begin().await?;
        store::set_status(&mut tx, server_of(ctx)?, ServerState::Running).await?;
        Ok(Outcome::DoneIn(tx))
    }
}
