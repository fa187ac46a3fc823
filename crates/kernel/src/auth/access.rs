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
    /// Users of every role, by tokens whose scopes cover the whole account.
    User,
    /// Members whose role allows this with what the account owns; scopes decide what the route shows.
    Member,
    /// The same, by tokens whose scopes cover the whole account.
    Account,
    /// Logins, not API tokens.
    Login,
    /// Providers; support staff where nothing is changed.
    Provider,
    /// Providers; any staff where nothing is changed.
    Staff,
    /// Providers and support staff.
    Support,
    /// The user who owns the object that the path names; it is hidden even from providers.
    Private,
    /// Everyone who may know the object that the path or the body names: members of the account that owns it and of its
    /// reseller, as far as their role goes, tokens for it, and staff.
    Owned,
    /// Everyone who may know the account that the path names: its members, those of its reseller, and staff. Owners,
    /// admins, the reseller and providers may change it.
    Managed,
}
