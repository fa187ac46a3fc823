//! Business logic for suspending servers, alone or with their account.

use kernel::audit;
use kernel::core::Core;
use kernel::error::{Code, Error, Result};
use kernel::idempotency::Once;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use super::model::{ServerRecord, ServerState};
use super::workflows::power::{self, PowerAction};
use super::{ServerAccess, service, store, subject};
use crate::ids::{AccountId, UserId};

/// A server that was suspended, or is so no longer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Suspended {
    /// The operation that stops or starts the server, unless there is nothing to do.
    #[serde(rename = "operationId")]
    pub operation: Option<Uuid>,
}

/// Suspends a server. Its owner is locked out at once, whatever they have started and whatever the host does; the guest
/// is stopped as soon as the current operation has ended. From then on it no longer ends with its account's suspension.
pub async fn suspend(core: &Core, once: &Once, access: &ServerAccess, reason: &str) -> Result<Suspended> {
    let user = Some(access.caller.user);
    let reason = reason.trim();
    audit::reason(reason);
    once.run(core, async |tx| {
        let server = service::lock(tx, access).await?;
        Ok(Suspended { operation: stop(core, tx, user, &server, reason, false).await? })
    })
    .await
}

/// Ends a suspension.
pub async fn unsuspend(core: &Core, once: &Once, access: &ServerAccess) -> Result<Suspended> {
    let user = Some(access.caller.user);
    once.run(core, async |tx| {
        let with_account = store::lock_suspension(tx, access.thing.account_id).await?;
        let server = service::lock(tx, access).await?;
        if server.suspend_reason.is_none() {
            return Err(Error::new(Code::Conflict, "This server is not suspended."));
        }
        if server.suspended_with_account {
            return Err(Error::new(Code::Conflict, "This server's account is suspended; unsuspend the account."));
        }
        if let Some(reason) = with_account {
            // It goes on with its account's.
            store::suspend(tx, server.id, &reason, false, true).await?;
            return Ok(Suspended { operation: None });
        }
        Ok(Suspended { operation: restore(core, tx, user, &server).await? })
    })
    .await
}

/// Suspends the servers of an account for this reason; with `None` those that were suspended with it are as they were.
pub(super) async fn suspend_all(
    core: &Core,
    tx: &mut PgConnection,
    user: Option<UserId>,
    account: AccountId,
    reason: Option<&str>,
) -> Result<()> {
    for server in store::lock_all_of(tx, account).await? {
        match reason {
            // It has stopped already: only the reason may be another one.
            Some(reason) if server.suspended_with_account => store::suspend(tx, server.id, reason, false, true).await?,
            Some(reason) if server.suspend_reason.is_none() => {
                stop(core, tx, user, &server, reason, true).await?;
            }
            None if server.suspended_with_account => drop(restore(core, tx, user, &server).await?),
            // Suspended for a reason of its own.
            _ => {}
        }
    }
    Ok(())
}

async fn stop(
    core: &Core,
    tx: &mut PgConnection,
    user: Option<UserId>,
    server: &ServerRecord,
    reason: &str,
    with_account: bool,
) -> Result<Option<Uuid>> {
    // A stopped server may show another status: its host does not report it, or an operation was abandoned.
    let needs_stop = server.reserved && !matches!(server.status, ServerState::Stopped | ServerState::Failed);
    let ran = needs_stop && (server.status == ServerState::Stopping || store::wanted_up(tx, server.id).await?);
    store::suspend(tx, server.id, reason, ran, with_account).await?;
    if !needs_stop {
        return Ok(None);
    }
    stop_or_start(core, tx, server, user, PowerAction::Suspend).await.map(Some)
}

async fn restore(
    core: &Core,
    tx: &mut PgConnection,
    user: Option<UserId>,
    server: &ServerRecord,
) -> Result<Option<Uuid>> {
    if !store::unsuspend(tx, server.id).await? {
        return Ok(None);
    }
    stop_or_start(core, tx, server, user, PowerAction::Unsuspend).await.map(Some)
}

async fn stop_or_start(
    core: &Core,
    tx: &mut PgConnection,
    server: &ServerRecord,
    user: Option<UserId>,
    power: PowerAction,
) -> Result<Uuid> {
    let data = power::Data::default();
    let deadline = service::seconds(core.config.operation_deadline_seconds);
    let new = subject::operation(server, power.kind(), data, user, deadline);
    // The later of the two requests is what the provider wants.
    service::enqueue_behind(core, tx, server.id, new, power.under_way(), &["suspend", "unsuspend"]).await
}
