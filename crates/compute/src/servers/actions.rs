//! What can be done with a server, and why not: one table, by which requests are refused and which each server shows.

use kernel::auth::{Access, Caller, Owner};
use kernel::error::{Code, Error, Result};
use kernel::operations;
use kernel::operations::model::OperationView;
use serde::Serialize;

use super::model::{ServerRecord, ServerState};
use super::subject;
use crate::ids::ServerId;

/// Something that is done with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerAction {
    /// What needs its guest: start, stop, restart, a new password, another size, snapshots.
    UseGuest,
    /// Opening its console.
    OpenConsole,
    /// Reinstalling it.
    Reinstall,
    /// Deleting it.
    Delete,
    /// Changing its name, labels or protection.
    Update,
}

/// What of a server decides about actions.
#[derive(Debug, Clone, Copy)]
pub struct ServerCondition<'a> {
    /// Its status.
    pub status: ServerState,
    /// Whether something of it may be on the host.
    pub reserved: bool,
    /// Whether deletion and reinstallation are refused.
    pub protected: bool,
    /// Why it is suspended.
    pub suspend_reason: Option<&'a str>,
}

impl<'a> From<&'a ServerRecord> for ServerCondition<'a> {
    fn from(server: &'a ServerRecord) -> Self {
        Self {
            status: server.status,
            reserved: server.reserved,
            protected: server.protected,
            suspend_reason: server.suspend_reason.as_deref(),
        }
    }
}

impl ServerAction {
    /// Refuses it if the server's condition does not allow it.
    pub fn check<'a>(self, caller: &Caller, server: impl Into<ServerCondition<'a>>) -> Result<()> {
        let server = server.into();
        require_not_suspended(caller, server)?;
        match self {
            Self::Update => Ok(()),
            Self::UseGuest => require_guest(server),
            Self::OpenConsole => require_console(server),
            Self::Delete => require_unprotected(server),
            Self::Reinstall => {
                require_unprotected(server)?;
                // After a failed reinstallation, it may be reinstalled again.
                if server.reserved { Ok(()) } else { require_guest(server) }
            }
        }
    }

    /// Whether it waits for no other operation: it needs none, or the owner can't prevent it.
    fn needs_no_turn(self, caller: &Caller) -> bool {
        match self {
            Self::Update | Self::OpenConsole => true,
            Self::Delete => caller.is_provider(),
            Self::UseGuest | Self::Reinstall => false,
        }
    }
}

/// Refuses changes to a suspended server by its owner, who may only view it.
fn require_not_suspended(caller: &Caller, server: ServerCondition<'_>) -> Result<()> {
    match server.suspend_reason {
        Some(reason) if !caller.is_provider() => {
            Err(Error::new(Code::Conflict, format!("This server is suspended: {reason}")))
        }
        _ => Ok(()),
    }
}

/// Refuses what needs the server's guest, if the host has none.
fn require_guest(server: ServerCondition<'_>) -> Result<()> {
    match (server.reserved, server.status) {
        (false, _) => Err(Error::new(Code::Conflict, "This server could not be created; delete it and order another.")),
        (true, ServerState::Failed) => {
            Err(Error::new(Code::Conflict, "This server could not be reinstalled; reinstall it again, or delete it."))
        }
        _ => Ok(()),
    }
}

fn require_unprotected(server: ServerCondition<'_>) -> Result<()> {
    match server.protected {
        true => Err(Error::new(Code::Conflict, "Deletion protection is on; switch it off first.")),
        false => Ok(()),
    }
}

/// Refuses a console that the server's status rules out.
pub(crate) fn require_console(server: ServerCondition<'_>) -> Result<()> {
    let words = match server.status {
        // Whether a server that is being resized, or whose status is unknown, is running is for the host to say.
        ServerState::Running | ServerState::Paused | ServerState::Resizing | ServerState::Unknown => return Ok(()),
        ServerState::Creating => "The server is still being created; its console will be available once it runs.",
        ServerState::Stopped => "The server is stopped; start it to open its console.",
        ServerState::Starting | ServerState::Restarting => "The server is starting; open its console in a moment.",
        ServerState::Restoring => "The server is being rolled back; open its console when that is done.",
        ServerState::Reinstalling => "The server is being reinstalled; open its console when that is done.",
        ServerState::Stopping => "The server is being stopped.",
        ServerState::Deleting | ServerState::Deleted => "The server is being deleted.",
        ServerState::Failed => return require_guest(server),
    };
    Err(Error::new(Code::Conflict, words))
}

/// Why the caller can't do something with a server now; null: they can, as far as is known without asking its host.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerActions {
    /// Starting it; a running server is left alone.
    pub start: Option<String>,
    /// Stopping it.
    pub stop: Option<String>,
    /// Restarting it.
    pub restart: Option<String>,
    /// Opening its console.
    pub console: Option<String>,
    /// Generating a new root password.
    pub password: Option<String>,
    /// Changing its size or tariff.
    pub resize: Option<String>,
    /// Taking and deleting snapshots.
    pub snapshot: Option<String>,
    /// Rolling it back to a snapshot.
    pub rollback: Option<String>,
    /// Reinstalling it.
    pub reinstall: Option<String>,
    /// Changing its name, labels or protection.
    pub update: Option<String>,
    /// Deleting it.
    pub delete: Option<String>,
}

impl ServerActions {
    /// What this caller may do with a server in this condition, while this operation holds it or waits for it.
    pub(super) fn of(
        caller: &Caller,
        (id, owner): (ServerId, Owner),
        server: ServerCondition<'_>,
        operation: Option<&OperationView>,
    ) -> Self {
        let about = subject::subject(id);
        let accessible = caller.check(subject::KIND, Some(&about), owner, Access::Write);
        let refusal = |action: ServerAction| {
            let refused = accessible.as_ref().err().map(|error| error.message.clone());
            refused.or_else(|| Some(action.check(caller, server).err()?.message)).or_else(|| {
                let operation = operation.filter(|_| !action.needs_no_turn(caller))?;
                Some(operations::locked(&about, &operation.kind, operation.id).message)
            })
        };
        let with_guest = refusal(ServerAction::UseGuest);
        Self {
            start: with_guest.clone(),
            stop: with_guest.clone(),
            restart: with_guest.clone(),
            console: refusal(ServerAction::OpenConsole),
            password: with_guest.clone(),
            resize: with_guest.clone(),
            snapshot: with_guest.clone(),
            rollback: with_guest,
            reinstall: refusal(ServerAction::Reinstall),
            update: refusal(ServerAction::Update),
            delete: refusal(ServerAction::Delete),
        }
    }
}
