//! The only error type of the service: a closed list of codes, a sentence for the person who can act on it, and the
//! cause for the log. `http` turns it into a response.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

/// Result type of the service's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The closed list of error codes, as clients see them. `docs/errors.md` explains each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// 400: the request could not be read.
    Malformed,
    /// 401: no token, or one that is invalid or has expired.
    Unauthenticated,
    /// 403: authenticated, but this role or token may not do it.
    Forbidden,
    /// 404: it does not exist, or is not yours.
    NotFound,
    /// 405: the path exists, but not with this method.
    MethodNotAllowed,
    /// 408: the request body did not arrive in time.
    Timeout,
    /// 409: something with that name exists.
    AlreadyExists,
    /// 409: another operation holds the server; `details.operationId` is its id.
    Locked,
    /// 409: the current state does not allow it.
    Conflict,
    /// 413: the body exceeds the size limit.
    TooLarge,
    /// 415: the body is not JSON.
    UnsupportedMediaType,
    /// 422: well-formed but invalid; `details.fields` has a message per field.
    Invalid,
    /// 429: too many requests; `Retry-After` says when to retry.
    RateLimited,
    /// 500: internal error.
    Internal,
    /// 502: the host refused or failed.
    HostError,
    /// 503: the host can't be reached.
    HostUnreachable,
    /// 503: it took too long.
    TooSlow,
    /// 503: our database is unreachable or too busy. Nothing was changed.
    DatabaseUnavailable,
    /// 503: the database connection was lost during the commit: it may or may not have been done.
    OutcomeUnknown,
    /// 507: no capacity or no free address, or the account has reached a limit.
    ResourceUnavailable,
}

impl Code {
    /// The HTTP status of the code.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Timeout => 408,
            Self::AlreadyExists | Self::Locked | Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::HostError => 502,
            Self::HostUnreachable | Self::TooSlow | Self::DatabaseUnavailable | Self::OutcomeUnknown => 503,
            Self::ResourceUnavailable => 507,
        }
    }

    /// The code as text, as it is stored in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "MALFORMED",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::Forbidden => "FORBIDDEN",
            Self::NotFound => "NOT_FOUND",
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::Timeout => "TIMEOUT",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::Locked => "LOCKED",
            Self::Conflict => "CONFLICT",
            Self::TooLarge => "TOO_LARGE",
            Self::UnsupportedMediaType => "UNSUPPORTED_MEDIA_TYPE",
            Self::Invalid => "INVALID",
            Self::RateLimited => "RATE_LIMITED",
            Self::Internal => "INTERNAL",
            Self::HostError => "HOST_ERROR",
            Self::HostUnreachable => "HOST_UNREACHABLE",
            Self::TooSlow => "TOO_SLOW",
            Self::DatabaseUnavailable => "DATABASE_UNAVAILABLE",
            Self::OutcomeUnknown => "OUTCOME_UNKNOWN",
            Self::ResourceUnavailable => "RESOURCE_UNAVAILABLE",
        }
    }
}

/// An error to report to a client.
#[derive(Debug)]
pub struct Error {
    /// The error's code.
    pub code: Code,
    /// What happened and what to do about it, in a sentence.
    pub message: String,
    /// Details for programs: `fields`, `operationId`, ….
    pub details: Option<Value>,
    /// When to retry.
    pub retry_after: Option<Duration>,
    /// The cause, only for the log.
    pub cause: Option<anyhow::Error>,
}

impl Error {
    /// An error with this code and message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: None, retry_after: None, cause: None }
    }

    /// 404 for a kind of object. The message is the same whether it is missing or belongs to someone else.
    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("There is no such {what}."))
    }

    /// 422 for one field.
    pub fn field(field: &str, message: impl Into<String>) -> Self {
        Self::fields(BTreeMap::from([(field.to_owned(), message.into())]))
    }

    /// 422 for several fields.
    pub fn fields(fields: BTreeMap<String, String>) -> Self {
        let message = fields
            .iter()
            .map(|(field, message)| if field.is_empty() { message.clone() } else { format!("{field}: {message}") })
            .collect::<Vec<_>>()
            .join(" ");
        Self { details: Some(json!({ "fields": fields })), ..Self::new(Code::Invalid, message) }
    }

    /// 500. The cause goes to the log, not to the client.
    pub fn internal(cause: impl Into<anyhow::Error>) -> Self {
        Self {
            cause: Some(cause.into()),
            ..Self::new(Code::Internal, "Something went wrong on our side. Quote the request id to support.")
        }
    }

    /// 503 for a lost response to COMMIT. It has no `Retry-After`: programs would repeat the request without checking.
    pub fn outcome_unknown(cause: impl Into<anyhow::Error>) -> Self {
        Self {
            cause: Some(cause.into()),
            ..Self::new(
                Code::OutcomeUnknown,
                "The database connection was lost at the last moment, so this may or may not have been done. \
                 Check before you retry.",
            )
        }
    }

    /// An error after the commit, while reading back the result: it must not say that nothing was changed.
    #[must_use]
    pub fn after_commit(self) -> Self {
        match self.code {
            Code::DatabaseUnavailable => Self {
                code: Code::OutcomeUnknown,
                message: "This was done, but the database connection was lost before it could be shown.".to_owned(),
                retry_after: None,
                ..self
            },
            _ => self,
        }
    }

    /// Adds details for programs.
    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)?;
        if let Some(cause) = &self.cause {
            write!(f, " ({cause:#})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Whether a database error means that the database is unreachable or too busy, and not that the statement is wrong.
pub fn is_database_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed
        // A connection that broke in the middle of a message.
        | sqlx::Error::Protocol(_) => true,
        // 57P0x: the server is shutting down or starting up; 53: out of disk, memory or connections; 08: the connection
        // broke; 25006: it accepts no writes (a standby, or one that is set read-only); 58030: its disk fails. 40P01,
        // 40001: chosen to give way to another transaction. The others are the limits in `db`: waiting for a lock, a
        // statement's duration, a transaction's idle time.
        sqlx::Error::Database(e) => e.code().is_some_and(|c| {
            ["57P", "08", "53"].iter().any(|class| c.starts_with(class))
                || matches!(&*c, "25006" | "58030" | "40P01" | "40001" | "55P03" | "57014" | "25P03" | "25P04")
        }),
        _ => false,
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if is_database_away(&error) {
            return Self {
                retry_after: Some(Duration::from_secs(5)),
                cause: Some(error.into()),
                ..Self::new(
                    Code::DatabaseUnavailable,
                    "Our database is unreachable, accepts no changes or is too busy at the moment. Nothing was \
                     changed; try again in a few seconds.",
                )
            };
        }
        Self::internal(error)
    }
}

impl From<hypervisor::Error> for Error {
    fn from(error: hypervisor::Error) -> Self {
        use hypervisor::Error as H;
        let (code, message) = match &error {
            H::Unreachable(_) | H::OutcomeUnknown(_) => (Code::HostUnreachable, "This server's host can't be reached."),
            H::Locked(_) => (Code::Locked, "The host is busy with this server; try again in a moment."),
            H::AlreadyExists(_) => (Code::AlreadyExists, "The host already has an object with this name or number."),
            H::AddressInUse(..) => {
                (Code::Conflict, "Something else on the host uses this server's address; the provider has to fix this.")
            }
            H::Exhausted(_) => (Code::ResourceUnavailable, "The host is out of capacity."),
            H::StaleLock(_) => (
                Code::Locked,
                "This server is locked on its host although nothing is running there: the provider has to unlock it.",
            ),
            H::Forbidden(_) => {
                (Code::HostError, "The host refused this: a permission is missing, which the provider has to grant.")
            }
            H::Protected(command) => {
                let message = format!(
                    "This server is protected from deletion on its host. The provider can switch that off there \
                     ({command})."
                );
                return Self { cause: Some(error.into()), ..Self::new(Code::Conflict, message) };
            }
            H::DiskFull(_) => (
                Code::Conflict,
                "The server's own disk is full: delete files in it or give it a bigger disk, then try again.",
            ),
            H::GuestHung(_) => (
                Code::Conflict,
                "The server's operating system did not do this in time, so it may or may not have been done. Check \
                 whether it hangs, or restart the server, then try again.",
            ),
            H::Conflict(_) => (Code::Conflict, "The server's current state does not allow this."),
            H::Unsupported(_) => (Code::Invalid, "This server's host does not support this."),
            _ => (Code::HostError, "The host refused or failed to do this."),
        };
        Self { cause: Some(error.into()), ..Self::new(code, message) }
    }
}
