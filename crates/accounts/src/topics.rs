//! What the database says of logins and tokens.

use uuid::Uuid;

use kernel::auth::Caller;
use kernel::events::Topic;
use kernel::ids::UserId;

/// Somebody's rights have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthChanged {
    /// A token was revoked or changed.
    Token(Uuid),
    /// A session ended.
    Session(Uuid),
    /// An account was disabled or its role changed.
    User(UserId),
}

impl AuthChanged {
    /// Whether this caller's rights are those that have changed.
    pub fn affects(self, caller: &Caller) -> bool {
        match self {
            Self::Token(id) => caller.token == id,
            Self::Session(id) => caller.session == Some(id),
            Self::User(id) => caller.user == id,
        }
    }
}

/// Somebody's rights have changed.
pub const AUTH_CHANGED: Topic<AuthChanged> = Topic::new("auth_changed", |payload| match payload.split_once(':')? {
    ("token", id) => id.parse().ok().map(AuthChanged::Token),
    ("session", id) => id.parse().ok().map(AuthChanged::Session),
    ("user", id) => id.parse().ok().map(AuthChanged::User),
    _ => None,
});
