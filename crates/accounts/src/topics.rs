//! The database's notifications about logins and tokens.

use kernel::auth::Caller;
use kernel::events::Topic;
use kernel::ids::{AccountId, UserId};
use uuid::Uuid;

/// Somebody's rights have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthChanged {
    /// A token was revoked or changed.
    Token(Uuid),
    /// A session ended.
    Session(Uuid),
    /// A user was disabled, or their role changed: as staff, or in an account.
    User(UserId),
    /// An account was suspended, handed over or the like.
    Account(AccountId),
}

impl AuthChanged {
    /// Whether this caller's rights may be those that have changed.
    pub fn affects(self, caller: &Caller) -> bool {
        match self {
            Self::Token(id) => caller.token == id,
            Self::Session(id) => caller.session == Some(id),
            // Staff lose what they have opened with what they may do.
            Self::User(id) => caller.user == id || caller.opened_by == Some(id),
            // A reseller's suspension is its customers', too, and it reaches what they own.
            Self::Account(id) => caller.account == id || caller.reseller == Some(id) || caller.is_reseller,
        }
    }
}

/// Somebody's rights have changed.
pub const AUTH_CHANGED: Topic<AuthChanged> = Topic::new("auth_changed", |payload| match payload.split_once(':')? {
    ("token", id) => id.parse().ok().map(AuthChanged::Token),
    ("session", id) => id.parse().ok().map(AuthChanged::Session),
    ("user", id) => id.parse().ok().map(AuthChanged::User),
    ("account", id) => id.parse().ok().map(AuthChanged::Account),
    _ => None,
});
