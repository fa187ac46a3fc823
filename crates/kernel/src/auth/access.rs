//! Whom routes admit, as data: each feature has a row for each of its routes.

/// A route's method and path, and whom it admits.
pub type AccessRow = (&'static str, &'static str, Admission);

/// Whom a route admits. A token that may only read is refused wherever something would be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Everyone.
    Open,
    /// Every valid token; its scopes decide what the route shows.
    AnyToken,
    /// Tokens whose scopes cover the whole account.
    Account,
    /// Logins, not API tokens.
    Login,
    /// Providers.
    Provider,
    /// The account whose thing the path names: not even providers know of it.
    Private,
    /// Whoever may know the thing that the path or the body names: its owner, tokens for it, and providers.
    Owned,
}
