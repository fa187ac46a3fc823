//! Business logic for servers: access, orders, and operations on them.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use hypervisor::GuestKind;
use kernel::auth::Access;
use kernel::auth::Caller;
use kernel::core::Core;
use kernel::db;
use kernel::error::{Code, Error, Result};
use kernel::idempotency::{Once, OnceStart};
use kernel::operations::model::{OperationError, State};
use kernel::operations::service::WaitedOperation;
use kernel::operations::{self, NewOperation, WorkflowKind};
use kernel::secrets;
use kernel::stored;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::labels::Selector;
use super::model::{
    Action, CreateServer, CreatedServer, Deleted, ListServers, PasswordChanged, ServerRecord, ServerView, Status,
};
use super::store::{Filter, NewServer};
use super::workflows::{create, delete, password, power};
use super::{ServerAccess, placement, store};
use crate::addresses;
use crate::hosts::Hosts;
use crate::ids::{ServerId, UserId};
use crate::ssh_keys;
use crate::tariffs;

/// How long a response waits for the host's own task id.
const TASK_ID_WAIT: Duration = Duration::from_secs(2);
/// How long a request waits for its host to report that the guest is protected.
const PROTECTION_WAIT: Duration = Duration::from_secs(3);
/// How long a password change waits for the guest.
const PASSWORD_WAIT: Duration = Duration::from_secs(15);

/// 404 if the caller may not know that the server exists, 403 if it is theirs but the token's scopes don't allow this.
fn check(caller: &Caller, server: ServerId, owner: UserId, level: Access) -> Result<()> {
    let known = caller.is_provider() || owner == caller.user;
    if !known || !caller.scopes.allow_server(Access::Read, server) {
        return Err(Error::not_found("server"));
    }
    if !caller.scopes.allow_server(level, server) {
        return Err(Error::new(Code::Forbidden, "This token may read the server, but not change it."));
    }
    Ok(())
}

/// The same check for callers that have an id but no row. Deleted servers count: their history stays their owner's.
pub async fn authorize(core: &Core, caller: &Caller, server: ServerId, level: Access) -> Result<()> {
    let owner = store::owner(&core.db, server).await?.ok_or_else(|| Error::not_found("server"))?;
    check(caller, server, owner, level)
}

/// Which of their servers each of many callers may not access at this level, and why; all in one query.
pub async fn refused(
    core: &Core,
    asked: &[(Caller, Vec<ServerId>)],
    level: Access,
) -> Result<Vec<Vec<(ServerId, Error)>>> {
    let servers: BTreeSet<ServerId> = asked.iter().flat_map(|(_, servers)| servers).copied().collect();
    if servers.is_empty() {
        return Ok(asked.iter().map(|_| vec![]).collect());
    }
    let owners = store::owners(&core.db, &Vec::from_iter(servers)).await?;
    let refused = |caller: &Caller, server: ServerId| {
        let owner = owners.get(&server).ok_or_else(|| Error::not_found("server"));
        owner.and_then(|owner| check(caller, server, *owner, level)).err().map(|error| (server, error))
    };
    let of = |(caller, servers): &(Caller, Vec<ServerId>)| servers.iter().filter_map(|s| refused(caller, *s)).collect();
    Ok(asked.iter().map(of).collect())
}

/// A server that is not deleted, if the caller may access it at this level.
pub async fn reach(core: &Core, caller: &Caller, id: ServerId, level: Access) -> Result<ServerRecord> {
    permit(caller, store::live(&core.db, id).await?, level)
}

/// The same by guest number.
pub async fn accessible_by_number(core: &Core, caller: &Caller, number: i64, level: Access) -> Result<ServerRecord> {
    permit(caller, store::by_number(&core.db, number).await?, level)
}

fn permit(caller: &Caller, server: Option<ServerRecord>, level: Access) -> Result<ServerRecord> {
    let server = server.ok_or_else(|| Error::not_found("server"))?;
    check(caller, server.id, server.user_id, level)?;
    Ok(server)
}

/// The servers that the caller may see, and the total number of matches.
pub async fn list(core: &Core, caller: &Caller, query: &ListServers) -> Result<(Vec<ServerView>, i64)> {
    if query.all && !caller.is_provider() {
        return Err(Error::new(Code::Forbidden, "Only the provider may list everyone's servers."));
    }
    let _turn = core.turns.take(caller.user).await?;
    let only: Option<Vec<i64>> = caller.scopes.only_servers().map(|ids| ids.iter().map(|id| id.0).collect());
    // An account's own servers come unpaged, as the specification says; a whole fleet comes in pages.
    let limit = match (query.limit, query.page) {
        (None, None) if !query.all => None,
        (limit, _) => Some(limit.unwrap_or(20)),
    };
    let selector: Selector = match &query.labels {
        Some(labels) => labels.parse().map_err(|e: String| Error::field("labels", e))?,
        None => Selector::default(),
    };
    let filter = Filter {
        id: None,
        user: (!query.all).then_some(caller.user),
        only: only.as_deref(),
        limit,
        offset: (query.page.unwrap_or(1) - 1) * limit.unwrap_or(0),
        query: query.asks().then_some(query),
        selector: &selector,
    };
    let rows = store::list(&core.db, &filter).await?;
    let total = match rows.first() {
        Some((_, total)) => *total,
        // Past the last page there is no row that has the total.
        None if filter.offset > 0 => {
            let first = store::list(&core.db, &Filter { limit: Some(1), offset: 0, ..filter }).await?;
            first.first().map_or(0, |(_, total)| *total)
        }
        None => 0,
    };
    Ok((rows.into_iter().map(|(view, _)| view).collect(), total))
}

/// One server, as the API shows it.
pub async fn view(core: &Core, id: ServerId) -> Result<ServerView> {
    view_on(&core.db, id).await
}

/// The same within a transaction.
pub async fn view_on(db: impl PgExecutor<'_>, id: ServerId) -> Result<ServerView> {
    let filter = Filter {
        id: Some(id),
        user: None,
        only: None,
        limit: Some(1),
        offset: 0,
        query: None,
        selector: &Selector::default(),
    };
    let mut rows = store::list(db, &filter).await?;
    rows.pop().map(|(view, _)| view).ok_or_else(|| Error::not_found("server"))
}

/// Accepts an order: placement, addresses and operation in one transaction, so that either all of it exists or nothing.
pub async fn order(core: &Core, once: &Once, user: UserId, order: CreateServer) -> Result<CreatedServer> {
    let password = secrets::readable_password();
    let mut tx = match once.begin(core).await? {
        OnceStart::New(tx) => tx,
        OnceStart::Done(answer) => return Ok(answer),
    };
    let offer = store::offer(&mut tx, order.tariff_id)
        .await?
        .ok_or_else(|| Error::field("tariffId", "No such tariff is available."))?;
    let kind = store::image_kind(&mut tx, order.os_id)
        .await?
        .ok_or_else(|| Error::field("osId", "No such image is available."))?;
    GuestKind::try_from(stored::word(&offer.kind).unwrap_or(tariffs::Kind::Unknown))?;
    if kind != offer.kind {
        return Err(Error::field(
            "osId",
            format!("This image is for {kind} servers; the tariff is for {}.", offer.kind),
        ));
    }
    let ssh_keys = ssh_keys::service::together(&mut tx, user, &order.ssh_keys, &order.ssh_key_ids).await?;
    let (count, limit) = store::lock_limit(&mut tx, user).await?;
    if count >= limit {
        return Err(Error::new(
            Code::ResourceUnavailable,
            format!("Your account has {count} of at most {limit} servers; delete one or ask the provider for more."),
        ));
    }
    placement::lock(&mut tx).await?;
    if !placement::is_image_available(&mut tx, order.os_id).await? {
        return Err(Error::field("osId", "No host has this image at the moment."));
    }
    let candidates = placement::candidates(&mut tx, order.os_id, &offer).await?;
    let Some(first) = candidates.first() else {
        if placement::awaits_sweep(&mut tx).await? {
            return Err(Error::new(
                Code::ResourceUnavailable,
                "The provider's database was restored, and hosts are being checked before new servers are created; try \
                 again in a minute.",
            ));
        }
        return Err(Error::new(
            Code::ResourceUnavailable,
            "No host has the capacity for this tariff at the moment; choose a smaller one or try again later.",
        ));
    };
    let new = NewServer {
        user,
        tariff: order.tariff_id,
        image: order.os_id,
        host: first.host,
        node: &first.node,
        name: order.name.as_deref(),
        offer: &offer,
        ssh_keys: &ssh_keys,
    };
    let (id, number) = store::insert(&mut tx, &new).await?;
    let rest = core.config.address_rest();
    if !placement::settle(&mut tx, id, &candidates, rest).await? {
        let hosts: Vec<i64> = candidates.iter().map(|candidate| candidate.host.0).collect();
        return Err(no_address(addresses::store::rested_at(&mut tx, &hosts, rest).await?));
    }
    let data = create::Data::new(core.sealer.seal_text(create::PASSWORD, &password)?);
    let deadline = seconds(core.config.create_deadline_seconds);
    let operation = NewOperation { kind: create::KIND, server: id, data, user: Some(user), deadline };
    let operation_id = core.engine.enqueue(&mut tx, operation).await?;
    let answer = CreatedServer {
        id,
        status: Status::Creating,
        proxmox_id: number,
        ip_address: None,
        root_password: password.expose_secret().to_owned(),
        operation_id,
    };
    tx.finish(core, answer).await
}

/// The error for a new server without a free address on any host; `rested_at`: when the next resting one becomes
/// available.
fn no_address(rested_at: Option<DateTime<Utc>>) -> Error {
    let message = match rested_at {
        Some(at) => format!(
            "There is no free address at the moment: addresses that others released are not reused at once; the \
             next one becomes available at {}. Try again then, or ask the provider.",
            at.format("%Y-%m-%d %H:%M UTC")
        ),
        None => "There is no free address at the moment; try again later or ask the provider.".to_owned(),
    };
    Error::new(Code::ResourceUnavailable, message)
}

/// Enqueues a start, stop or restart.
pub async fn power(core: &Core, once: &Once, access: &ServerAccess, power: power::Power) -> Result<Action> {
    let data = power::Data::default();
    let SubmittedOperation { operation_id, task_id, .. } =
        submit(core, once, access, power.kind(), Some(power.under_way()), data, None).await?;
    Ok(Action { status: "success", action: power.name(), task_id, operation_id })
}

/// Deletes a server with everything that belongs to it.
pub async fn delete(hosts: &Hosts, access: &ServerAccess) -> Result<Deleted> {
    let core = &hosts.core;
    require_unprotected_on_host(hosts, access).await?;
    let mut tx = db::begin(&core.db).await?;
    let server = lock(&mut tx, access).await?;
    unprotected(&server)?;
    let operation_id = if server.reserved {
        // It gets the deadline of an undo: what the host may have begun to destroy can't be called off.
        let deadline = seconds(core.config.undo_deadline_seconds);
        let data = delete::Data::new(store::wanted_up(&mut tx, server.id).await?);
        let (user, under_way) = (Some(access.caller.user), Status::Deleting);
        let new = NewOperation { kind: delete::KIND, server: server.id, data, user, deadline };
        let id = if access.caller.is_provider() {
            enqueue_behind(core, &mut tx, new, under_way, &["suspend", "unsuspend"]).await?
        } else {
            let id = core.engine.enqueue(&mut tx, new).await?;
            store::set_status(&mut tx, server.id, under_way).await?;
            id
        };
        Some(id)
    } else {
        // Its creation was cleanly undone: there is nothing on the host to wait for.
        store::mark_deleted(&mut tx, server.id).await?;
        None
    };
    tx.commit().await?;
    Ok(Deleted { status: "deleted", operation_id })
}

/// Generates a new root password and sets it in the guest.
pub async fn change_password(hosts: &Hosts, once: &Once, access: &ServerAccess) -> Result<PasswordChanged> {
    let core = &hosts.core;
    let server = &access.server;
    if !hosts.driver(server.host_id).await?.capabilities().set_password {
        return Err(Error::new(Code::Invalid, "This server's host can't change passwords."));
    }
    let new = secrets::readable_password();
    let data = password::Data { password: core.sealer.seal_text(password::PASSWORD, &new)? };
    let taken_on = begin(core, once, access, password::KIND, None, data, Some(new.expose_secret())).await?;
    let id = taken_on.operation;
    let changed = |status, password| PasswordChanged { status, password, operation_id: id };
    let password = taken_on.made.clone().unwrap_or_default();
    if let Some(status) = taken_on.said {
        return Ok(changed(status, password));
    }
    let status = match operations::service::wait(core, id, PASSWORD_WAIT, |p| is_over(p.view.state)).await {
        Ok(WaitedOperation { view, .. }) if matches!(view.state, State::Failed | State::Stuck) => {
            return Err(failed(view.error));
        }
        Ok(WaitedOperation { view, .. }) if view.state == State::Succeeded => "success",
        // It may well be set: the caller must have it.
        Ok(_) | Err(_) => "pending",
    };
    Ok(changed(taken_on.say(core, once, status.to_owned()).await, password))
}

fn is_over(state: State) -> bool {
    state.is_ended() || state == State::Stuck
}

fn failed(error: Option<OperationError>) -> Error {
    let Some(error) = error else {
        return Error::new(Code::HostError, "The host failed to do this.");
    };
    let code = serde_json::from_value(serde_json::Value::String(error.code)).unwrap_or(Code::HostError);
    Error::new(code, error.message)
}

/// Locks the server's row and checks it again, since it may have been suspended or deleted after the request was
/// authorised.
pub async fn lock(tx: &mut PgConnection, access: &ServerAccess) -> Result<ServerRecord> {
    let server = store::lock(tx, access.server.id).await?.ok_or_else(|| Error::not_found("server"))?;
    require_not_suspended(&access.caller, &server)?;
    Ok(server)
}

/// Refuses changes to a suspended server by its owner, who may only view it.
pub fn require_not_suspended(caller: &Caller, server: &ServerRecord) -> Result<()> {
    match &server.suspend_reason {
        Some(reason) if !caller.is_provider() => {
            Err(Error::new(Code::Conflict, format!("The provider has suspended this server: {reason}")))
        }
        _ => Ok(()),
    }
}

/// Refuses operations that need the server's guest, if the host has none.
pub fn present(server: &ServerRecord) -> Result<()> {
    match (server.reserved, server.status) {
        (false, _) => Err(Error::new(Code::Conflict, "This server could not be created; delete it and order another.")),
        (true, Status::Failed) => {
            Err(Error::new(Code::Conflict, "This server could not be reinstalled; reinstall it again, or delete it."))
        }
        _ => Ok(()),
    }
}

/// Refuses destructive operations on a protected server.
pub(super) fn unprotected(server: &ServerRecord) -> Result<()> {
    match server.protected {
        true => Err(Error::new(Code::Conflict, "Deletion protection is on; switch it off first.")),
        false => Ok(()),
    }
}

/// The same for a guest that its host protects, if the host says so right away. Any other answer, or none, is left to
/// the operation, which asks again before it touches anything.
pub(super) async fn require_unprotected_on_host(hosts: &Hosts, access: &ServerAccess) -> Result<()> {
    let server = &access.server;
    require_not_suspended(&access.caller, server)?;
    unprotected(server)?;
    if !server.reserved {
        return Ok(());
    }
    let asked = async { hosts.driver(server.host_id).await.ok()?.check_delete(&server.guest()).await.err() };
    match tokio::time::timeout(PROTECTION_WAIT, asked).await {
        Ok(Some(error @ hypervisor::Error::Protected(_))) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Enqueues an operation and shows its status.
pub async fn enqueue<D: operations::Data>(
    core: &Core,
    tx: &mut PgConnection,
    access: &ServerAccess,
    kind: WorkflowKind,
    under_way: Option<Status>,
    data: D,
) -> Result<Uuid> {
    let deadline = seconds(core.config.operation_deadline_seconds);
    let server = access.server.id;
    let new = NewOperation { kind, server, data, user: Some(access.caller.user), deadline };
    let id = core.engine.enqueue(tx, new).await?;
    if let Some(status) = under_way {
        store::set_status(tx, server, status).await?;
    }
    Ok(id)
}

/// The same for operations that the owner can't prevent: it runs next, whatever is in progress, and its status is shown
/// when its turn comes. It replaces waiting operations of these kinds.
pub(super) async fn enqueue_behind<D: operations::Data>(
    core: &Core,
    tx: &mut PgConnection,
    new: NewOperation<D>,
    under_way: Status,
    instead_of: &[&str],
) -> Result<Uuid> {
    let server = new.server;
    let placed = core.engine.enqueue_behind(tx, new, instead_of).await?;
    if !placed.waits {
        store::set_status(tx, server, under_way).await?;
    }
    Ok(placed.id)
}

/// What is stored of an accepted request whose response waits briefly for its operation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TakenOn {
    operation: Uuid,
    /// A generated value that is part of the response: a password, a snapshot's name.
    made: Option<String>,
    /// The rest of the response (the host's task id, a status), once it is known.
    said: Option<String>,
}

impl TakenOn {
    /// An operation that has just been enqueued.
    pub fn new(operation: Uuid, made: Option<&str>) -> Self {
        Self { operation, made: made.map(str::to_owned), said: None }
    }

    /// Completes the response with `said`, or with what came first if two requests wait for the same operation. Storing
    /// it only serves retries: if that fails, the operation was accepted all the same.
    async fn say(self, core: &Core, once: &Once, said: String) -> String {
        let answer = Self { said: Some(said.clone()), ..self.clone() };
        match once.settle(core, &self, answer).await {
            Ok(kept) => kept.said.unwrap_or(said),
            Err(error) => {
                tracing::warn!(%error, operation = %self.operation, "a response could not be stored for retries");
                said
            }
        }
    }
}

/// Enqueues an operation on a server that exists on its host.
async fn begin<D: operations::Data>(
    core: &Core,
    once: &Once,
    access: &ServerAccess,
    kind: WorkflowKind,
    under_way: Option<Status>,
    data: D,
    made: Option<&str>,
) -> Result<TakenOn> {
    let mut tx = match once.begin(core).await? {
        OnceStart::New(tx) => tx,
        OnceStart::Done(answer) => return Ok(answer),
    };
    present(&lock(&mut tx, access).await?)?;
    let id = enqueue(core, &mut tx, access, kind, under_way, data).await?;
    tx.finish(core, TakenOn::new(id, made)).await
}

/// An accepted operation.
#[derive(Debug)]
pub struct SubmittedOperation {
    pub(crate) operation_id: Uuid,
    /// The host's own task id, or `operation:<id>` if the host has none (yet).
    pub task_id: String,
    /// A generated value that is part of the response.
    pub made: Option<String>,
}

/// Enqueues an operation on a server that exists on its host, and waits briefly for the host's own task id.
pub async fn submit<D: operations::Data>(
    core: &Core,
    once: &Once,
    access: &ServerAccess,
    kind: WorkflowKind,
    under_way: Option<Status>,
    data: D,
    made: Option<&str>,
) -> Result<SubmittedOperation> {
    let taken_on = begin(core, once, access, kind, under_way, data, made).await?;
    submitted(core, once, taken_on).await
}

/// Waits briefly for the host's own task id of an operation. One that has failed by then is an error.
pub async fn submitted(core: &Core, once: &Once, taken_on: TakenOn) -> Result<SubmittedOperation> {
    let (operation_id, made) = (taken_on.operation, taken_on.made.clone());
    if let Some(task_id) = taken_on.said {
        return Ok(SubmittedOperation { operation_id, task_id, made });
    }
    let known = |p: &WaitedOperation| p.host_task.is_some() || is_over(p.view.state);
    let task_id = match operations::service::wait(core, operation_id, TASK_ID_WAIT, known).await {
        Ok(WaitedOperation { view, .. }) if matches!(view.state, State::Failed | State::Stuck) => {
            return Err(failed(view.error));
        }
        Ok(WaitedOperation { host_task: Some(task), .. }) => task,
        // It was accepted, whether or not we can see its progress.
        Ok(_) | Err(_) => format!("operation:{operation_id}"),
    };
    let task_id = taken_on.say(core, once, task_id).await;
    Ok(SubmittedOperation { operation_id, task_id, made })
}

/// Leaves the status of a server whose operation was abandoned to the next sweep.
pub async fn let_show(tx: &mut PgConnection, server: ServerId) -> Result<()> {
    Ok(store::let_show(tx, server).await?)
}

pub(super) fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}
