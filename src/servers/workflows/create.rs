//! Making a server: guest, files, first start, password; then it is the customer's, and a mail says so.

mod another;

use std::net::IpAddr;

use std::sync::Arc;

use async_trait::async_trait;
use hypervisor::{GuestAddress, GuestNetwork, GuestSpec, Presence};
use serde::{Deserialize, Serialize};

use self::another::{another_address, another_node, another_number};
use super::guest::{Guest, HostWork, Removal};
use crate::addresses;
use crate::error::Code;
use crate::hosts;
use crate::hosts::Hosts;
use crate::mail;
use crate::operations::{self, Context, Fault, FaultKind, Kind, Outcome, Step, Workflow};
use crate::resize::model::Size;
use crate::secrets::Sealed;
use crate::servers::mail::ServerReady;
use crate::servers::model::Status;
use crate::servers::placement::Candidate;
use crate::servers::store;

/// The workflow.
pub const KIND: Kind = Kind { name: "create", first_step: "reserve" };
/// What the password is sealed for.
pub const PASSWORD: &str = "root-password";

/// What it keeps between steps.
#[derive(Debug, Serialize, Deserialize)]
pub struct Data {
    password: Sealed,
    /// The claim under which the host was about to be asked. See [`CreateGuest`].
    intent: Option<i64>,
    /// Whether the host may have heard of the guest.
    heard: bool,
    /// How many numbers were found taken.
    #[serde(default)]
    taken: u32,
    /// How many addresses the host had for something else.
    #[serde(default)]
    passed_over: u32,
    /// The address that the host has for something else, as it said, of a guest that is there: to be prepared with another.
    #[serde(default)]
    in_use: Option<(IpAddr, String)>,
    /// Nodes that said that they can't make it.
    #[serde(default)]
    refused: Vec<Candidate>,
    /// It is made anew in its own place, and in no other.
    #[serde(default)]
    stays: bool,
    create: HostWork,
    start: HostWork,
    removal: Removal,
}

impl operations::Data for Data {
    fn sealed(&mut self) -> Vec<(&'static str, &mut Sealed)> {
        vec![(PASSWORD, &mut self.password)]
    }
}

impl Data {
    /// The first data, with root's password sealed.
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
            removal: Removal::default(),
        }
    }

    /// The same for a server that has its place already.
    pub(super) fn anew(password: Sealed) -> Self {
        Self { stays: true, ..Self::new(password) }
    }
}

/// The steps.
pub fn workflow(hosts: &Arc<Hosts>) -> Workflow<Data> {
    let hosts = || Arc::clone(hosts);
    Workflow {
        kind: KIND,
        steps: vec![
            Box::new(Reserve),
            Box::new(CreateGuest { hosts: hosts() }),
            Box::new(PrepareGuest { hosts: hosts() }),
            Box::new(StartGuest { hosts: hosts() }),
            Box::new(SetPassword { hosts: hosts() }),
            Box::new(HandOver { hosts: hosts() }),
        ],
    }
}

/// What to say where there is nothing to make a server from.
pub(super) fn image_gone() -> Fault {
    Fault::new(FaultKind::Fail, Code::HostError, "The image is no longer on the server's host.")
}

/// What the server's guest is to be.
async fn spec(ctx: &Context<'_>, guest: &Guest, data: &Data) -> Result<GuestSpec, Fault> {
    let image = store::image_source(&ctx.core.db, ctx.server).await?.ok_or_else(image_gone)?;
    spec_of(ctx, guest, data, image, &guest.server.ssh_keys).await
}

/// The same from this image and with these keys.
pub(super) async fn spec_of(
    ctx: &Context<'_>,
    guest: &Guest,
    data: &Data,
    image: String,
    keys: &[String],
) -> Result<GuestSpec, Fault> {
    let mut db = ctx.core.db.acquire().await?;
    let held = addresses::store::of_server(&mut db, ctx.server).await?;
    let server = &guest.server;
    let management = hosts::service::guest_key(ctx.core, server.host_id).await?;
    Ok(GuestSpec {
        guest: guest.at.clone(),
        hostname: server.name.clone(),
        image,
        limits: Size::of(server).limits(),
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

/// The order's own transaction has taken room and addresses; going back gives them up, last of all, when nothing is
/// left on the host that could use them.
#[derive(Debug)]
struct Reserve;

#[async_trait]
impl Step<Data> for Reserve {
    fn name(&self) -> &'static str {
        "reserve"
    }

    async fn run(&self, _: &Context<'_>, _: &mut Data) -> Result<Outcome, Fault> {
        Ok(Outcome::Done)
    }

    async fn undo(&self, ctx: &Context<'_>, _: &mut Data) -> Result<Outcome, Fault> {
        let mut tx = ctx.begin().await?;
        addresses::store::release(&mut tx, ctx.server).await?;
        store::unreserve(&mut tx, ctx.server, Status::Failed).await?;
        Ok(Outcome::DoneIn(tx))
    }
}

/// Makes the guest on the host.
///
/// Whether the host may have heard of it decides whether going back needs the host: an order for a host that was down
/// all the time is undone at once. So the intent is saved before each first call, under this claim's number. A call
/// that surely made nothing takes it back; an intent of another claim means that somebody else may have called.
#[derive(Debug)]
pub(super) struct CreateGuest {
    pub(super) hosts: Arc<Hosts>,
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
        let (spec, free) = match before(ctx, &guest, data).await {
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
            return another_number(ctx, &guest, data, taken.into()).await;
        }
        let (mut unsent, mut misplaced) = (false, false);
        let driven = data
            .create
            .try_drive(ctx, &*guest.driver, || async {
                let task = guest.driver.create(&spec).await;
                // Refused for what somebody else has there, it was not made either.
                let refused = |e: &hypervisor::Error| {
                    matches!(e, hypervisor::Error::AlreadyExists(_) | hypervisor::Error::AddressInUse(..))
                };
                unsent = task.as_ref().is_err_and(|e| e.is_unsent() || refused(e));
                // What it is made from is not to be had on this node.
                misplaced = matches!(task, Err(hypervisor::Error::NotFound(_)));
                task
            })
            .await;
        if unsent && !data.heard {
            data.intent = None;
        } else {
            data.heard = true;
        }
        match driven {
            Err(error @ hypervisor::Error::AlreadyExists(_)) => another_number(ctx, &guest, data, error.into()).await,
            Err(error @ hypervisor::Error::AddressInUse(..)) if !data.stays => {
                if guest.driver.find(&guest.at).await? != Presence::Absent {
                    // It is ours after all: the host's next answer says how it stands.
                    data.heard = true;
                    return Err(Fault::from(error).with_kind(FaultKind::Retry));
                }
                (data.heard, data.intent) = (false, None);
                another_address(ctx, &guest, data, error).await
            }
            Err(error) if misplaced && !data.stays => another_node(&self.hosts, ctx, &guest, data, error.into()).await,
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

/// What must be known before the host is asked to make anything: what to make, and whether the number is free. Nothing
/// of it can make a guest, so a failure here leaves none.
async fn before(ctx: &Context<'_>, guest: &Guest, data: &Data) -> Result<(GuestSpec, bool), Fault> {
    let spec = spec(ctx, guest, data).await?;
    let free = data.heard || guest.driver.is_number_free(guest.at.vmid).await?;
    Ok((spec, free))
}

/// Writes host name, network and keys into the stopped guest.
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
                another_address(ctx, &guest, data, error).await
            }
            prepared => Ok(prepared.map(|()| Outcome::Done)?),
        }
    }
}

/// Starts it for the first time.
#[derive(Debug)]
pub(super) struct StartGuest {
    pub(super) hosts: Arc<Hosts>,
}

#[async_trait]
impl Step<Data> for StartGuest {
    fn name(&self) -> &'static str {
        "start_guest"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        let guest = Guest::load(&self.hosts, ctx).await?;
        // Saved before anything is changed: it is not to start with an address that is not its own any more.
        if let Some((address, text)) = data.in_use.clone() {
            another_address(ctx, &guest, data, hypervisor::Error::AddressInUse(address, text)).await?;
            let spec = spec(ctx, &guest, data).await?;
            guest.driver.prepare(&spec).await?;
            data.in_use = None;
            return Ok(Outcome::Again);
        }
        // Incus looks at the addresses of others not before it starts a guest.
        match data.start.try_drive(ctx, &*guest.driver, || guest.driver.start(&guest.at)).await {
            Err(hypervisor::Error::AddressInUse(address, text)) if !data.stays => {
                data.in_use = Some((address, text));
                Ok(Outcome::Again)
            }
            driven => Ok(driven?.unwrap_or(Outcome::Done)),
        }
    }
}

/// Sets root's password where the host could not do so at creation.
#[derive(Debug)]
pub(super) struct SetPassword {
    pub(super) hosts: Arc<Hosts>,
}

#[async_trait]
impl Step<Data> for SetPassword {
    fn name(&self) -> &'static str {
        "set_password"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        let guest = Guest::load(&self.hosts, ctx).await?;
        if !guest.driver.capabilities().password_at_create {
            let password = ctx.core.sealer.open_text(PASSWORD, &data.password)?;
            if let Err(error) = guest.driver.set_password(&guest.at, &password).await {
                // That nothing can be run in it is not what is wrong with a guest that goes down.
                guest.stays_up().await?;
                // A new system may well be slow while it boots.
                let slow = matches!(error, hypervisor::Error::GuestHung(_));
                let fault = Fault::from(error);
                return Err(if slow { fault.with_kind(FaultKind::Retry) } else { fault });
            }
        }
        Ok(Outcome::Done)
    }
}

/// Gives it to the customer: status and mail in one transaction with the operation's end.
#[derive(Debug)]
struct HandOver {
    hosts: Arc<Hosts>,
}

#[async_trait]
impl Step<Data> for HandOver {
    fn name(&self) -> &'static str {
        "hand_over"
    }

    async fn run(&self, ctx: &Context<'_>, _: &mut Data) -> Result<Outcome, Fault> {
        let guest = Guest::load(&self.hosts, ctx).await?;
        guest.stayed_up().await?;
        let mut tx = ctx.begin().await?;
        store::set_status(&mut tx, ctx.server, Status::Running).await?;
        let ready = store::ready(&mut tx, ctx.server).await?;
        let held: Vec<_> =
            addresses::store::of_server(&mut tx, ctx.server).await?.into_iter().map(|a| a.address).collect();
        let mail = ServerReady {
            name: &ready.name,
            addresses: &held,
            tariff: &ready.tariff,
            os: &ready.os,
            root_login: ready.root_login,
            has_keys: ready.has_keys,
            url: &ctx.core.config.public_url,
        };
        let event = format!("server-ready:{}", guest.server.uuid);
        if let Some(email) = &ready.email {
            mail::service::queue(&mut tx, &event, email, &mail).await?;
        }
        Ok(Outcome::DoneIn(tx))
    }
}
