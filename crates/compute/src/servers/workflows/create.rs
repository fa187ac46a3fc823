//! Creating a server: guest, files, first start, password; then it is handed over to the customer with an email.

mod another;

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use hypervisor::{GuestAddress, GuestNetwork, GuestSpec, Presence};
use kernel::error::Code;
use kernel::mail;
use kernel::operations::{self, Context, Fault, FaultKind, Outcome, Step, Workflow, WorkflowKind};
use kernel::secrets::Sealed;
use serde::{Deserialize, Serialize};

use self::another::{use_next_address, use_next_number, use_other_node};
use super::guest::{Guest, GuestRemoval, HostWork};
use crate::hosts::Hosts;
use crate::servers::Servers;
use crate::servers::mail::ServerReady;
use crate::servers::model::ServerState;
use crate::servers::placement::Candidate;
use crate::servers::size::ServerSize;
use crate::servers::store;
use crate::servers::subject::server_of;
use crate::{addresses, hosts};

/// The workflow.
pub const KIND: WorkflowKind = WorkflowKind { name: "create", first_step: "reserve" };
/// The purpose that the password is sealed for.
pub const PASSWORD: &str = "root-password";

/// Data kept between steps.
#[derive(Debug, Serialize, Deserialize)]
pub struct Data {
    password: Sealed,
    /// The claim under which the host was about to be called. See [`CreateGuest`].
    intent: Option<i64>,
    /// Whether the host may have received the request for the guest.
    heard: bool,
    /// How many guest numbers turned out to be taken.
    #[serde(default)]
    taken: u32,
    /// How many addresses turned out to be in use on the host.
    #[serde(default)]
    passed_over: u32,
    /// The address that the host has in use elsewhere, with the host's message, for a guest that exists: it is to be
    /// prepared with another address.
    #[serde(default)]
    in_use: Option<(IpAddr, String)>,
    /// Nodes that reported that they can't create it.
    #[serde(default)]
    refused: Vec<Candidate>,
    /// It is recreated in its own place, and in no other.
    #[serde(default)]
    stays: bool,
    create: HostWork,
    start: HostWork,
    removal: GuestRemoval,
}

impl operations::Data for Data {
    fn sealed(&mut self) -> Vec<(&'static str, &mut Sealed)> {
        vec![(PASSWORD, &mut self.password)]
    }
}

impl Data {
    /// The initial data, with root's password sealed.
    pub fn new(password: Sealed) -> Self {
        Self {
            password,
            intent: None,
            heard: false,
            taken: 0,
            passed_over: 0,
            in_use: None,
            refused: Vec::new(),
            stays: false,
            create: HostWork::default(),
            start: HostWork::default(),
            removal: GuestRemoval::default(),
        }
    }

    /// The same for a server that already has its place.
    pub(super) fn anew(password: Sealed) -> Self {
        Self { stays: true, ..Self::new(password) }
    }
}

/// The steps.
pub fn workflow(servers: &Servers) -> Workflow<Data> {
    let hosts = || Arc::clone(&servers.hosts);
    Workflow {
        kind: KIND,
        steps: vec![
            Box::new(ReserveServer),
            Box::new(CreateGuest { hosts: hosts(), margin: servers.settings.storage_margin_percent }),
            Box::new(PrepareGuest { hosts: hosts() }),
            Box::new(StartNewGuest { hosts: hosts() }),
            Box::new(SetInitialPassword { hosts: hosts() }),
            Box::new(HandOver { hosts: hosts(), url: servers.accounts.settings.public_url.clone() }),
        ],
    }
}

/// The error for an image that the host no longer has.
pub(super) fn image_gone() -> Fault {
    Fault::new(FaultKind::Fail, Code::HostError, "The image is no longer on the server's host.")
}

/// The specification of the server's guest.
async fn spec(ctx: &Context<'_>, guest: &Guest, data: &Data) -> Result<GuestSpec, Fault> {
    let image = store::image_source(&ctx.core.db, server_of(ctx)?).await?.ok_or_else(image_gone)?;
    spec_of(ctx, guest, data, image, &guest.server.ssh_keys).await
}

/// The same with this image and these keys.
pub(super) async fn spec_of(
    ctx: &Context<'_>,
    guest: &Guest,
    data: &Data,
    image: String,
    keys: &[String],
) -> Result<GuestSpec, Fault> {
    let mut db = ctx.core.db.acquire().await?;
    let held = addresses::store::of_server(&mut db, server_of(ctx)?).await?;
    let server = &guest.server;
    let management = hosts::service::guest_key(ctx.core, server.host_id).await?;
    Ok(GuestSpec {
        guest: guest.at.clone(),
        hostname: server.name.clone(),
        image,
        limits: ServerSize::of(server).limits(),
        // A host without pools gives its guests no network.
        network: GuestNetwork {
            bridge: held.first().map(|a| a.bridge.clone()).unwrap_or_default(),
            vlan: held.first().and_then(|a| a.vlan),
            addresses: held
                .iter()
                .map(|a| GuestAddress { address: a.address, prefix: a.prefix, gateway: a.gateway })
                .collect(),
            dns: held.iter().flat_map(|a| a.dns.iter().copied()).collect(),
        },
        ssh_keys: keys.iter().cloned().chain(management).collect(),
        password: ctx.core.sealer.open_text(PASSWORD, &data.password)?,
    })
}

/// The order's own transaction has reserved capacity and addresses; undoing releases them, last of all, when nothing is
/// left on the host that could use them.
#[derive(Debug)]
struct ReserveServer;

#[async_trait]
impl Step<Data> for ReserveServer {
    fn name(&self) -> &'static str {
        "reserve"
    }

    async fn run(&self, _: &Context<'_>, _: &mut Data) -> Result<Outcome, Fault> {
        Ok(Outcome::Done)
    }

    async fn undo(&self, ctx: &Context<'_>, _: &mut Data) -> Result<Outcome, Fault> {
        let mut tx = ctx.begin().await?;
        addresses::store::release(&mut tx, server_of(ctx)?).await?;
        store::release_room(&mut tx, server_of(ctx)?, ServerState::Failed).await?;
        Ok(Outcome::DoneIn(tx))
    }
}

/// Creates the guest on the host.
///
/// Whether undoing needs the host depends on whether the host may have received the request for the guest: an order for
/// a host that was down all along is undone at once. So the intent is saved before each first call, under this claim's
/// number. A call that certainly created nothing clears it; an intent of another claim means that another worker may
/// have made the call.
#[derive(Debug)]
pub(super) struct CreateGuest {
    pub(super) hosts: Arc<Hosts>,
    /// Percentage of another node's storage that must stay free.
    pub(super) margin: u32,
}

#[async_trait]
impl Step<Data> for CreateGuest {
    fn name(&self) -> &'static str {
        "create_guest"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        let guest = Guest::load(&self.hosts, ctx).await?;
        if !data.heard && data.intent != Some(ctx.claim()) {
            data.heard = data.intent.is_some();
            data.intent = Some(ctx.claim());
            return Ok(Outcome::Again);
        }
        let (spec, free) = match check_before_create(ctx, &guest, data).await {
            Ok(before) => before,
            Err(fault) => {
                if !data.heard {
                    data.intent = None;
                }
                return Err(fault);
            }
        };
        if !free {
            let taken = hypervisor::Error::AlreadyExists(format!("a guest with the number {}", guest.at.vmid));
            return use_next_number(ctx, &guest, data, taken.into()).await;
        }
        let (mut unsent, mut elsewhere) = (false, false);
        let driven = data
            .create
            .try_poll_or_submit(ctx, &*guest.driver, || async {
                let task = guest.driver.create(&spec).await;
                // If it was refused for something else on the host, nothing was created either.
                let refused = |e: &hypervisor::Error| {
                    matches!(e, hypervisor::Error::AlreadyExists(_) | hypervisor::Error::AddressInUse(..))
                };
                unsent = task.as_ref().is_err_and(|e| e.is_unsent() || refused(e));
                // The node lacks the image or the storage, or has no room left: another may do.
                elsewhere = matches!(task, Err(hypervisor::Error::NotFound(_) | hypervisor::Error::Exhausted(_)));
                task
            })
            .await;
        if unsent && !data.heard {
            data.intent = None;
        } else {
            data.heard = true;
        }
        match driven {
            Err(error @ hypervisor::Error::AlreadyExists(_)) => use_next_number(ctx, &guest, data, error.into()).await,
            Err(error @ hypervisor::Error::AddressInUse(..)) if !data.stays => {
                if guest.driver.find(&guest.at).await? != Presence::Absent {
                    // It is ours after all: the host's next answer shows its state.
                    data.heard = true;
                    return Err(Fault::from(error).with_kind(FaultKind::Retry));
                }
                (data.heard, data.intent) = (false, None);
                use_next_address(&self.hosts, ctx, &guest, data, error).await
            }
            Err(error) if elsewhere && !data.stays => {
                use_other_node(&self.hosts, ctx, &guest, data, self.margin, error.into()).await
            }
            driven => Ok(driven?.unwrap_or(Outcome::Done)),
        }
    }

    async fn undo(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        if !data.heard && data.intent.is_none() {
            return Ok(Outcome::Done);
        }
        let guest = Guest::load(&self.hosts, ctx).await?;
        Ok(data.removal.advance(ctx, &guest).await?.unwrap_or(Outcome::Done))
    }
}

/// Checks everything that must be known before the host is asked to create anything: the specification, and whether the
/// number is free. Nothing here can create a guest, so a failure leaves none behind.
async fn check_before_create(ctx: &Context<'_>, guest: &Guest, data: &Data) -> Result<(GuestSpec, bool), Fault> {
    let spec = spec(ctx, guest, data).await?;
    let free = data.heard || guest.driver.is_number_free(guest.at.vmid).await?;
    Ok((spec, free))
}

/// Writes the host name, network and keys into the stopped guest.
#[derive(Debug)]
pub(super) struct PrepareGuest {
    pub(super) hosts: Arc<Hosts>,
}

#[async_trait]
impl Step<Data> for PrepareGuest {
    fn name(&self) -> &'static str {
        "prepare_guest"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        let guest = Guest::load(&self.hosts, ctx).await?;
        let spec = spec(ctx, &guest, data).await?;
        match guest.driver.prepare(&spec).await {
            Err(error @ hypervisor::Error::AddressInUse(..)) if !data.stays => {
                use_next_address(&self.hosts, ctx, &guest, data, error).await
            }
            prepared => Ok(prepared.map(|()| Outcome::Done)?),
        }
    }
}

/// Starts the guest for the first time.
#[derive(Debug)]
pub(super) struct StartNewGuest {
    pub(super) hosts: Arc<Hosts>,
}

#[async_trait]
impl Step<Data> for StartNewGuest {
    fn name(&self) -> &'static str {
        "start_guest"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        let guest = Guest::load(&self.hosts, ctx).await?;
        // Saved before anything is changed: the guest must not start with an address that it no longer has.
        if let Some((address, text)) = data.in_use.clone() {
            use_next_address(&self.hosts, ctx, &guest, data, hypervisor::Error::AddressInUse(address, text)).await?;
            let spec = spec(ctx, &guest, data).await?;
            guest.driver.prepare(&spec).await?;
            data.in_use = None;
            return Ok(Outcome::Again);
        }
        // Incus checks for address conflicts only when it starts a guest.
        match data.start.try_poll_or_submit(ctx, &*guest.driver, || guest.driver.start(&guest.at)).await {
            Err(hypervisor::Error::AddressInUse(address, text)) if !data.stays => {
                data.in_use = Some((address, text));
                Ok(Outcome::Again)
            }
            driven => Ok(driven?.unwrap_or(Outcome::Done)),
        }
    }
}

/// Sets root's password if the host could not do so at creation.
#[derive(Debug)]
pub(super) struct SetInitialPassword {
    pub(super) hosts: Arc<Hosts>,
}

#[async_trait]
impl Step<Data> for SetInitialPassword {
    fn name(&self) -> &'static str {
        "set_password"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        let guest = Guest::load(&self.hosts, ctx).await?;
        if !guest.driver.capabilities().password_at_create {
            let password = ctx.core.sealer.open_text(PASSWORD, &data.password)?;
            if let Err(error) = guest.driver.set_password(&guest.at, &password).await {
                // A guest that goes down can't run anything: that is the symptom, not the cause.
                guest.stays_up().await?;
                // A new system may be slow while it boots.
                let slow = matches!(error, hypervisor::Error::GuestHung(_));
                let fault = Fault::from(error);
                return Err(if slow { fault.with_kind(FaultKind::Retry) } else { fault });
            }
        }
        Ok(Outcome::Done)
    }
}

/// Hands the server over to the customer: status and email in one transaction with the operation's end.
#[derive(Debug)]
struct HandOver {
    hosts: Arc<Hosts>,
    url: String,
}

#[async_trait]
impl Step<Data> for HandOver {
    fn name(&self) -> &'static str {
        "hand_over"
    }

    async fn run(&self, ctx: &Context<'_>, _: &mut Data) -> Result<Outcome, Fault> {
        let guest = Guest::load(&self.hosts, ctx).await?;
        guest.check_running().await?;
        let mut tx = ctx.begin().await?;
        store::set_status(&mut tx, server_of(ctx)?, ServerState::Running).await?;
        let ready = store::ready_mail(&mut tx, server_of(ctx)?).await?;
        let held: Vec<_> =
            addresses::store::of_server(&mut tx, server_of(ctx)?).await?.into_iter().map(|a| a.address).collect();
        let mail = ServerReady {
            name: &ready.name,
            addresses: &held,
            tariff: &ready.tariff,
            os: &ready.os,
            root_login: ready.root_login,
            has_keys: ready.has_keys,
            url: &self.url,
        };
        let event = format!("server-ready:{}", guest.server.uuid);
        if let Some(email) = &ready.email {
            mail::service::queue(&mut tx, &event, email, &mail).await?;
        }
        Ok(Outcome::DoneIn(tx))
    }
}
