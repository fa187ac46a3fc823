//! The one error type of every driver: what a caller can act on, and the host's own words.

use std::net::IpAddr;

/// What a driver call returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a host did not do what was asked. `detail` texts are the host's own words, for the provider.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection could be made: the request was certainly not heard. Retry.
    #[error("the host can't be reached: {0}")]
    Unreachable(String),
    /// The request was sent and no answer came: it may have been carried out. Look before repeating.
    #[error("the host did not answer, so the outcome is unknown: {0}")]
    OutcomeUnknown(String),
    /// The host does not take our credentials: they are wrong, or it can't look them up at the moment.
    #[error("the host refused our credentials: {0}")]
    Unauthorized(String),
    /// The host knows us and answers that we lack a right. Asking again gives the same answer.
    #[error("our credentials lack a right on the host: {0}")]
    Forbidden(String),
    /// The guest, snapshot, image or other thing named is not there.
    #[error("not found on the host: {0}")]
    NotFound(String),
    /// The name or number is taken by something that is not this guest.
    #[error("already exists on the host: {0}")]
    AlreadyExists(String),
    /// Something else on the host has this address, which was to be the guest's. The text is the host's own.
    #[error("the address {0} is in use on the host: {1}")]
    AddressInUse(IpAddr, String),
    /// Another task of the host holds the guest or a storage for the moment. Retry.
    #[error("the host is busy with it: {0}")]
    Locked(String),
    /// A lock that nothing on the host is at work on: it stays until a person lifts it. The text says how.
    #[error("locked on the host, and nothing is at work on it: {0}")]
    StaleLock(String),
    /// The host protects the guest from deletion. The text says what switches that off.
    #[error("protected from deletion on its host: {0}")]
    Protected(String),
    /// The guest's state does not allow this now (deleting what runs, exec in what is stopped).
    #[error("not possible in the guest's present state: {0}")]
    Conflict(String),
    /// A guest has the name or number but not our marker. Nothing was changed.
    #[error("that guest does not carry our marker: {0}")]
    NotOurs(String),
    /// The host is out of disk, memory or another finite thing.
    #[error("the host is out of room: {0}")]
    Exhausted(String),
    /// The guest's own disk is full: the host has room, the guest has none left of what it was given.
    #[error("the guest's own disk is full: {0}")]
    DiskFull(String),
    /// The guest did not do in time, or to its end, what was run in it: its own failure, and nobody else's. It may have
    /// been done.
    #[error("the guest did not do it in time: {0}")]
    GuestHung(String),
    /// The values asked for can't be had there (a smaller disk, a bad name).
    #[error("the host can't do that: {0}")]
    Invalid(String),
    /// This kind of host, storage or guest lacks the ability.
    #[error("not supported there: {0}")]
    Unsupported(String),
    /// The host tried and failed, or answered something that makes no sense.
    #[error("the host failed: {0}")]
    Failed(String),
}

impl Error {
    /// Whether the same call may well succeed a little later with nobody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::OutcomeUnknown(_) | Self::Locked(_))
    }

    /// Whether the host can't have heard the request.
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
