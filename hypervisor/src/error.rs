//! The error type of all drivers: what a caller can act on, and the host's own message.

use std::net::IpAddr;

/// Result of a driver call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the text of every [`Error::StaleLock`] begins with.
pub const STALE_LOCK: &str = "locked on the host, but no task is working on it";

/// Why a host did not do what was requested. The texts are the host's own messages, for the provider.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection could be established: the host certainly did not receive the request. Retry.
    #[error("the host can't be reached: {0}")]
    Unreachable(String),
    /// The request was sent but not answered: it may have been carried out. Check before repeating it.
    #[error("the host did not respond, so the outcome is unknown: {0}")]
    OutcomeUnknown(String),
    /// The host does not accept our credentials: they are wrong, or it can't verify them right now.
    #[error("the host refused our credentials: {0}")]
    Unauthorized(String),
    /// The credentials are valid but lack a privilege. Retrying gives the same answer.
    #[error("our credentials lack a privilege on the host: {0}")]
    Forbidden(String),
    /// The guest, snapshot, image or other object does not exist.
    #[error("not found on the host: {0}")]
    NotFound(String),
    /// The name or number is taken by something other than this guest.
    #[error("already exists on the host: {0}")]
    AlreadyExists(String),
    /// Something else on the host uses the address that the guest was to get. The text is the host's own.
    #[error("the address {0} is in use on the host: {1}")]
    AddressInUse(IpAddr, String),
    /// Another task on the host currently holds the guest or a storage. Retry.
    #[error("busy on the host: {0}")]
    Locked(String),
    /// A stale lock: no task on the host holds it, so it stays until an operator removes it. The text says how.
    #[error("{STALE_LOCK}: {0}")]
    StaleLock(String),
    /// The host protects the guest from deletion. The text says how to switch that off.
    #[error("protected from deletion on its host: {0}")]
    Protected(String),
    /// The guest's state does not allow this now (deleting a running guest, exec in a stopped one).
    #[error("not possible in the guest's current state: {0}")]
    Conflict(String),
    /// A guest has the name or number, but not our marker. Nothing was changed.
    #[error("the guest does not carry our marker: {0}")]
    NotOurs(String),
    /// The host has run out of disk, memory or another finite resource.
    #[error("the host is out of resources: {0}")]
    Exhausted(String),
    /// The guest's own disk is full: not the host's storage, but the guest's share of it.
    #[error("the guest's own disk is full: {0}")]
    DiskFull(String),
    /// A command in the guest did not finish, or not in time. This is the guest's own fault; the command may have taken
    /// effect.
    #[error("the guest did not finish in time: {0}")]
    GuestHung(String),
    /// The host can't do this with the requested values (a smaller disk, a bad name).
    #[error("the host can't do that: {0}")]
    Invalid(String),
    /// This kind of host, storage or guest lacks the feature.
    #[error("not supported by the host: {0}")]
    Unsupported(String),
    /// The host tried and failed, or gave a nonsensical answer.
    #[error("the host failed: {0}")]
    Failed(String),
}

impl Error {
    /// Whether the same call may well succeed a little later without any intervention.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::OutcomeUnknown(_) | Self::Locked(_))
    }

    /// Whether the host can't have received the request.
    pub fn is_unsent(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    /// The same error with more of the host's words.
    #[must_use]
    pub fn with_detail(self, detail: &str) -> Self {
        if detail.is_empty() {
            return self;
        }
        let more = |text: String| format!("{text}\n{detail}");
        match self {
            Self::Unreachable(t) => Self::Unreachable(more(t)),
            Self::OutcomeUnknown(t) => Self::OutcomeUnknown(more(t)),
            Self::Unauthorized(t) => Self::Unauthorized(more(t)),
            Self::Forbidden(t) => Self::Forbidden(more(t)),
            Self::StaleLock(t) => Self::StaleLock(more(t)),
            Self::Protected(t) => Self::Protected(more(t)),
            Self::NotFound(t) => Self::NotFound(more(t)),
            Self::AlreadyExists(t) => Self::AlreadyExists(more(t)),
            Self::AddressInUse(address, t) => Self::AddressInUse(address, more(t)),
            Self::Locked(t) => Self::Locked(more(t)),
            Self::Conflict(t) => Self::Conflict(more(t)),
            Self::NotOurs(t) => Self::NotOurs(more(t)),
            Self::Exhausted(t) => Self::Exhausted(more(t)),
            Self::DiskFull(t) => Self::DiskFull(more(t)),
            Self::GuestHung(t) => Self::GuestHung(more(t)),
            Self::Invalid(t) => Self::Invalid(more(t)),
            Self::Unsupported(t) => Self::Unsupported(more(t)),
            Self::Failed(t) => Self::Failed(more(t)),
        }
    }
}
