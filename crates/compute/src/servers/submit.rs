//! Operations on servers: enqueued with the request that asked for them, and waited for a moment.

use std::time::Duration;

use kernel::core::Core;
use kernel::error::{Code, Error, Result};
use kernel::idempotency::Once;
use kernel::operations::model::{OperationError, OperationState};
use kernel::operations::service::WaitedOperation;
use kernel::operations::{self, NewOperation, WorkflowKind};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use super::actions::ServerAction;
use super::model::{ServerRecord, ServerState};
use super::rules::{lock, seconds};
use super::{ServerAccess, store, subject};
use crate::ids::{ServerId, UserId};

/// How long a response waits for the host's own task id.
const TASK_ID_WAIT: Duration = Duration::from_secs(2);

pub(super) fn is_over(state: OperationState) -> bool {
    state.is_ended() || state == OperationState::Stuck
}

pub(super) fn failed(error: Option<OperationError>) -> Error {
    let Some(error) = error else {
        return Error::new(Code::HostError, "The host failed to do this.");
    };
    let code = serde_json::from_value(serde_json::Value::String(error.code)).unwrap_or(Code::HostError);
    Error::new(code, error.message)
}

/// Enqueues an operation on a locked server and shows its status.
pub async fn enqueue<D: operations::Data>(
    core: &Core,
    tx: &mut PgConnection,
    server: &ServerRecord,
    user: UserId,
    kind: WorkflowKind,
    under_way: Option<ServerState>,
    data: D,
) -> Result<Uuid> {
    let deadline = seconds(core.config.operation_deadline_seconds);
    let new = subject::operation(server, kind, data, user, deadline);
    let id = core.engine.enqueue(tx, new).await?;
    if let Some(status) = under_way {
        store::set_status(tx, server.id, status).await?;
    }
    Ok(id)
}

/// The same for operations that the owner can't prevent: it runs next, whatever is in progress, and its status is shown
/// when its turn comes. It replaces waiting operations of these kinds.
pub(super) async fn enqueue_behind<D: operations::Data>(
    core: &Core,
    tx: &mut PgConnection,
    server: ServerId,
    new: NewOperation<D>,
    under_way: ServerState,
    instead_of: &[&str],
) -> Result<Uuid> {
    let placed = core.engine.enqueue_behind(tx, new, instead_of).await?;
    if !placed.waits {
        store::set_status(tx, server, under_way).await?;
    }
    Ok(placed.id)
}

/// What is stored of an accepted request whose response waits briefly for its operation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredRequest {
    pub(super) operation: Uuid,
    /// A generated value that is part of the response: a password, a snapshot's name.
    #[serde(rename = "made")]
    pub(super) generated: Option<String>,
    /// The rest of the response (the host's task id, a status), once it is known.
    #[serde(rename = "said")]
    pub(super) answered: Option<String>,
}

impl StoredRequest {
    /// An operation that has just been enqueued.
    pub fn new(operation: Uuid, generated: Option<&str>) -> Self {
        Self { operation, generated: generated.map(str::to_owned), answered: None }
    }

    /// Completes the response with `text`, or with what came first if two requests wait for the same operation. Storing
    /// it only serves retries: if that fails, the operation was accepted all the same.
    pub(super) async fn finish(self, core: &Core, once: &Once, text: String) -> String {
        let answer = Self { answered: Some(text.clone()), ..self.clone() };
        match once.settle(core, &self, answer).await {
            Ok(kept) => kept.answered.unwrap_or(text),
            Err(error) => {
                tracing::warn!(%error, operation = %self.operation, "a response could not be stored for retries");
                text
            }
        }
    }
}

/// Enqueues an operation on a server that exists on its host.
pub(super) async fn begin<D: operations::Data>(
    core: &Core,
    once: &Once,
    access: &ServerAccess,
    kind: WorkflowKind,
    under_way: Option<ServerState>,
    data: D,
    generated: Option<&str>,
) -> Result<StoredRequest> {
    once.run(core, async |tx| {
        let server = lock(tx, access).await?;
        ServerAction::UseGuest.check(&access.caller, &server)?;
        let id = enqueue(core, tx, &server, access.caller.user, kind, under_way, data).await?;
        Ok(StoredRequest::new(id, generated))
    })
    .await
}

/// An accepted request.
#[derive(Debug)]
pub struct Accepted {
    /// Its operation.
    pub operation: Uuid,
    /// The host's own task id, if the host has one (yet).
    pub host_task: Option<String>,
    /// A generated value that is part of the response.
    pub generated: Option<String>,
}

/// Enqueues an operation on a server that exists on its host, and waits briefly for the host's own task id.
pub async fn submit<D: operations::Data>(
    core: &Core,
    once: &Once,
    access: &ServerAccess,
    kind: WorkflowKind,
    under_way: Option<ServerState>,
    data: D,
    generated: Option<&str>,
) -> Result<Accepted> {
    let stored = begin(core, once, access, kind, under_way, data, generated).await?;
    wait_for_task(core, once, stored).await
}

/// Waits briefly for the host's own task id of an operation. One that has failed by then is an error.
pub async fn wait_for_task(core: &Core, once: &Once, stored: StoredRequest) -> Result<Accepted> {
    let (operation, generated) = (stored.operation, stored.generated.clone());
    // Stored in its place: a retry does not wait again for what did not come in time.
    let none = format!("operation:{operation}");
    let task = if let Some(task) = &stored.answered {
        task.clone()
    } else {
        let known = |p: &WaitedOperation| p.host_task.is_some() || is_over(p.view.state);
        let task = match operations::service::wait(core, operation, TASK_ID_WAIT, known).await {
            Ok(WaitedOperation { view, .. })
                if matches!(view.state, OperationState::Failed | OperationState::Stuck) =>
            {
                return Err(failed(view.error));
            }
            Ok(WaitedOperation { host_task: Some(task), .. }) => task,
            // It was accepted, whether or not we can see its progress.
            Ok(_) | Err(_) => none.clone(),
        };
        stored.finish(core, once, task).await
    };
    Ok(Accepted { operation, host_task: Some(task).filter(|task| *task != none), generated })
}
