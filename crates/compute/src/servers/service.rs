//! Business logic for servers: access, orders, and operations on them.

use std::collections::HashMap;
use std::time::Duration;

use kernel::auth::Caller;
use kernel::core::Core;
use kernel::db;
use kernel::error::{Code, Error, Result};
use kernel::idempotency::Once;
use kernel::listing::{Window, list_error};
use kernel::operations;
use kernel::operations::model::OperationState;
use kernel::operations::service::WaitedOperation;
use kernel::secrets;
use secrecy::ExposeSecret;
use sqlx::PgConnection;
use uuid::Uuid;

use super::actions::ServerAction;
use super::labels::Selector;
use super::model::{Include, ListServers, ServerState, ServerView, Sort};
pub use super::order::order;
pub use super::rules::{accessible, accessible_by_number, authorize, let_show, lock, refused};
pub(super) use super::rules::{check_removal, seconds};
use super::store::{Filter, ListedServer, Whose};
pub(super) use super::submit::enqueue_behind;
pub use super::submit::{Accepted, StoredRequest, enqueue, submit, wait_for_task};
use super::submit::{begin, failed, is_over};
use super::workflows::{delete, password, power};
use super::{ServerAccess, Servers, store, subject};
use crate::hosts::Hosts;
use crate::ids::ServerId;

/// How long a password change waits for the guest.
const PASSWORD_WAIT: Duration = Duration::from_secs(15);
/// What is stored of a password change once its outcome is known.
const SET: &str = "success";
/// The same while it is not known whether the password is set.
const PENDING: &str = "pending";

/// The servers that the caller may see, or those in the window, and the total number of matches.
pub async fn list(
    servers: &Servers,
    caller: &Caller,
    query: &ListServers,
    window: Option<Window>,
) -> Result<(Vec<ServerView>, i64)> {
    let core = &servers.hosts.core;
    let of = match query.all {
        false => Whose::Account(caller.account),
        true if caller.sees_everything() => Whose::All,
        true if caller.is_reseller => Whose::Reseller(caller.account),
        true => return Err(Error::new(Code::Forbidden, "Only the provider and resellers may list others' servers.")),
    };
    if (query.host_id.is_some() || query.node.is_some()) && !caller.sees_everything() {
        return Err(Error::new(Code::Forbidden, "Only the provider can filter by host."));
    }
    if query.after.is_some() && query.sort.is_some_and(|sort| sort != Sort::Id) {
        return Err(Error::field("after", "Only a list sorted by `id` can be continued; page this one."));
    }
    if let Some(window) = window {
        window.check()?;
    }
    let _turn = core.turns.take(caller.account).await?;
    let only = subject::only(caller);
    let selector: Selector = match &query.labels {
        Some(labels) => labels.parse().map_err(|e: String| Error::field("labels", e))?,
        None => Selector::default(),
    };
    let filter = Filter {
        id: None,
        of,
        only: only.as_deref(),
        after: query.after,
        window,
        query: query.asks().then_some(query),
        selector: &selector,
    };
    let mut tx = db::begin_list_query(&core.db).await?;
    let rows = store::list(&mut *tx, &filter).await.map_err(list_error)?;
    let total = match rows.first() {
        Some(row) if query.after.is_none() => row.total,
        None if query.after.is_none() && window.is_none_or(|window| window.offset == 0) => 0,
        // No row has the total: it is of those that follow, or this is past the last page.
        _ => {
            let first = Filter { after: None, window: Some(Window::first(1)), ..filter };
            let first = store::list(&mut *tx, &first).await.map_err(list_error)?;
            first.first().map_or(0, |row| row.total)
        }
    };
    Ok((shown(servers, caller, &mut tx, rows, query.include).await.map_err(list_error)?, total))
}

/// These servers, as this caller may see them.
async fn shown(
    servers: &Servers,
    caller: &Caller,
    db: &mut PgConnection,
    rows: Vec<ListedServer>,
    include: Option<Include>,
) -> sqlx::Result<Vec<ServerView>> {
    let ids: Vec<ServerId> = rows.iter().map(|row| row.id).collect();
    let names: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let mut operations = operations::service::current(&mut *db, caller, subject::KIND, &names).await?;
    let alerts = servers.figures.open_alerts(db, &ids).await?;
    let mut stats = match include {
        Some(Include::Stats) => servers.figures.stats(db, &ids).await?,
        None => HashMap::new(),
    };
    let view = |row: ListedServer| {
        let (id, operation) = (row.id, operations.remove(&row.id.to_string()));
        row.view(caller, operation, alerts.get(&id).copied().unwrap_or_default(), stats.remove(&id))
    };
    Ok(rows.into_iter().map(view).collect())
}

/// One server, as this caller may see it.
pub async fn view(servers: &Servers, caller: &Caller, db: &mut PgConnection, id: ServerId) -> Result<ServerView> {
    let filter = Filter {
        id: Some(id),
        of: Whose::All,
        only: None,
        after: None,
        window: Some(Window::first(1)),
        query: None,
        selector: &Selector::default(),
    };
    let rows = store::list(&mut *db, &filter).await?;
    shown(servers, caller, db, rows, None).await?.pop().ok_or_else(|| Error::not_found("server"))
}

/// Enqueues a start, stop or restart.
pub async fn power(core: &Core, once: &Once, access: &ServerAccess, power: power::PowerAction) -> Result<Accepted> {
    submit(core, once, access, power.kind(), Some(power.under_way()), power::Data::default(), None).await
}

/// Deletes a server with everything that belongs to it. No operation if there was nothing left to do.
pub async fn delete(hosts: &Hosts, access: &ServerAccess) -> Result<Option<Uuid>> {
    let (core, action) = (&hosts.core, ServerAction::Delete);
    check_removal(hosts, access, action).await?;
    let mut tx = db::begin(&core.db).await?;
    let server = lock(&mut tx, access).await?;
    action.check(&access.caller, &server)?;
    let operation = if server.reserved {
        // It gets the deadline of an undo: what the host may have begun to destroy can't be called off.
        let deadline = seconds(core.config.undo_deadline_seconds);
        let data = delete::Data::new(store::wanted_up(&mut tx, server.id).await?);
        let under_way = ServerState::Deleting;
        let new = subject::operation(&server, delete::KIND, data, access.caller.user, deadline);
        let id = if access.caller.is_provider() {
            enqueue_behind(core, &mut tx, server.id, new, under_way, &["suspend", "unsuspend"]).await?
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
    Ok(operation)
}

/// A new root password.
#[derive(Debug)]
pub struct NewPassword {
    /// The operation that sets it.
    pub operation: Uuid,
    /// The password.
    pub password: String,
    /// Whether it is set in the guest already.
    pub set: bool,
}

/// Generates a new root password and sets it in the guest.
pub async fn change_password(hosts: &Hosts, once: &Once, access: &ServerAccess) -> Result<NewPassword> {
    let core = &hosts.core;
    let server = &access.thing;
    if !hosts.driver(server.host_id).await?.capabilities().set_password {
        return Err(Error::new(Code::Invalid, "This server's host can't change passwords."));
    }
    let new = secrets::readable_password();
    let data = password::Data { password: core.sealer.seal_text(password::PASSWORD, &new)? };
    let stored = begin(core, once, access, password::KIND, None, data, Some(new.expose_secret())).await?;
    let (operation, password) = (stored.operation, stored.generated.clone().unwrap_or_default());
    let status = if let Some(status) = &stored.answered {
        status.clone()
    } else {
        let status = match operations::service::wait(core, operation, PASSWORD_WAIT, |p| is_over(p.view.state)).await {
            Ok(WaitedOperation { view, .. })
                if matches!(view.state, OperationState::Failed | OperationState::Stuck) =>
            {
                return Err(failed(view.error));
            }
            Ok(WaitedOperation { view, .. }) if view.state == OperationState::Succeeded => SET,
            // It may well be set: the caller must have it.
            Ok(_) | Err(_) => PENDING,
        };
        stored.finish(core, once, status.to_owned()).await
    };
    Ok(NewPassword { operation, password, set: status == SET })
}
