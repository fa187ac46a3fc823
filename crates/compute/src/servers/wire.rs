//! Responses of the server-management API that have a shape of their own. They may have more fields than its
//! specification, never fewer.

use kernel::error::{Error, Result};
use serde::Serialize;
use uuid::Uuid;

use super::model::ServerState;
use super::order::OrderedServer;
use super::service::{Accepted, NewPassword};
use super::suspension::Suspended;
use crate::ids::ServerId;

/// `status` of every request that was accepted.
pub const SUCCESS: &str = "success";

/// The host's own task id, or the operation's id if the host has none (yet).
pub fn task_id(accepted: &Accepted) -> String {
    accepted.host_task.clone().unwrap_or_else(|| format!("operation:{}", accepted.operation))
}

/// The response to an order.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedServer {
    /// The new server's id.
    pub id: ServerId,
    /// `creating`.
    pub status: ServerState,
    /// The guest's number.
    pub proxmox_id: i64,
    /// Null: `GET /api/server/{id}` has it once the server has been created.
    pub ip_address: Option<String>,
    /// Root's password, shown only once.
    pub root_password: String,
    /// The operation that creates it, for `GET /api/operations/{id}`.
    pub operation_id: Uuid,
}

impl From<OrderedServer> for CreatedServer {
    fn from(ordered: OrderedServer) -> Self {
        Self {
            id: ordered.id,
            status: ServerState::Creating,
            proxmox_id: ordered.number,
            ip_address: None,
            root_password: ordered.password,
            operation_id: ordered.operation,
        }
    }
}

/// The response to start, stop and restart.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PowerAccepted {
    /// `success`: the request was accepted.
    pub status: &'static str,
    /// `start`, `stop` or `restart`.
    pub action: &'static str,
    /// The host's own task id, or the operation's id if the host has none (yet).
    pub task_id: String,
    /// The operation, for `GET /api/operations/{id}`.
    pub operation_id: Uuid,
}

impl PowerAccepted {
    /// The response to an accepted `action`.
    pub(super) fn new(action: &'static str, accepted: &Accepted) -> Self {
        Self { status: SUCCESS, action, task_id: task_id(accepted), operation_id: accepted.operation }
    }
}

/// The response to a deletion.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeletedServer {
    /// `deleted`: the request was accepted; the status is `deleting` until the guest is gone.
    pub status: &'static str,
    /// The operation, for `GET /api/operations/{id}`; null if there was nothing left to do.
    pub operation_id: Option<Uuid>,
}

impl DeletedServer {
    /// The response to an accepted deletion.
    pub(super) fn new(operation_id: Option<Uuid>) -> Self {
        Self { status: "deleted", operation_id }
    }
}

/// The response to a change of root's password.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PasswordChanged {
    /// `success`: the password is set in the guest. `pending`: the host is slow, and the operation continues.
    pub status: &'static str,
    /// Root's new password, shown only once.
    pub password: String,
    /// The operation, for `GET /api/operations/{id}`.
    pub operation_id: Uuid,
}

impl From<NewPassword> for PasswordChanged {
    fn from(new: NewPassword) -> Self {
        let status = if new.set { SUCCESS } else { "pending" };
        Self { status, password: new.password, operation_id: new.operation }
    }
}

/// The response to a reinstallation.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reinstalling {
    /// `success`: the request was accepted.
    pub status: &'static str,
    /// The host's own task id, or the operation's id if the host has none (yet).
    pub task_id: String,
    /// Root's new password, shown only once.
    pub root_password: String,
    /// The operation, for `GET /api/operations/{id}`.
    pub operation_id: Uuid,
}

impl TryFrom<Accepted> for Reinstalling {
    type Error = Error;

    fn try_from(accepted: Accepted) -> Result<Self> {
        let (task_id, operation_id) = (task_id(&accepted), accepted.operation);
        let password = accepted.generated.ok_or_else(|| Error::internal(anyhow::anyhow!("no password was stored")))?;
        Ok(Self { status: SUCCESS, task_id, root_password: password, operation_id })
    }
}

/// The response to suspending or unsuspending a server.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Suspension {
    /// `success`: it takes effect immediately.
    pub status: &'static str,
    /// `suspend` or `unsuspend`.
    pub action: &'static str,
    /// The operation that stops or starts the server; null if there is nothing to do.
    pub operation_id: Option<Uuid>,
}

impl Suspension {
    /// The response to an accepted `action`.
    pub(super) fn new(action: &'static str, suspended: &Suspended) -> Self {
        Self { status: SUCCESS, action, operation_id: suspended.operation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_that_older_versions_stored_are_read() {
        let ordered = r#"{"id":7,"status":"creating","proxmoxId":1000,"ipAddress":null,"rootPassword":"secret",
            "operationId":"00000000-0000-0000-0000-000000000001"}"#;
        let created = CreatedServer::from(serde_json::from_str::<OrderedServer>(ordered).unwrap());
        assert_eq!(serde_json::to_value(created).unwrap(), serde_json::from_str::<serde_json::Value>(ordered).unwrap());
        let stored = r#"{"status":"success","action":"suspend","operationId":null}"#;
        let suspension = Suspension::new("suspend", &serde_json::from_str::<Suspended>(stored).unwrap());
        assert_eq!(serde_json::to_string(&suspension).unwrap(), stored);
    }
}
