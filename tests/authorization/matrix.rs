//! What the rows of the features mean for each kind of caller.

use std::collections::BTreeMap;

use innkeeper::run::Service;
use kernel::auth::{AccessRow, Admission};

/// The result of a route's authorisation for a caller. `Ok` is whatever comes after it, bad input included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    Ok,
    /// 401
    SignIn,
    /// 403
    Forbidden,
    /// 404
    Hidden,
}
use To::{Forbidden, Hidden, Ok, SignIn};

/// Nobody, the owner of what the path names, another customer, the provider, the owner's read-only token, the owner's
/// tokens for another server and for this one, a revoked token, an expired one; members who act for the owner's
/// account: admin, member, billing, viewer; the owner of its reseller; staff of the provider: support, billing.
pub(super) const ROLES: usize = 16;

const FROM_ABOVE: [To; ROLES] = [
    SignIn, Forbidden, Hidden, Ok, Forbidden, Forbidden, Forbidden, SignIn, SignIn, Forbidden, Forbidden, Forbidden,
    Forbidden, Ok, Forbidden, Forbidden,
];

/// Routes that answer otherwise than their rows say.
pub(super) const EXCEPTIONS: &[(&str, &str, [To; ROLES])] = &[
    // It wants a token of its own, and does not exist without.
    ("GET", "/metrics", [Hidden; ROLES]),
    // Closed by default, for everyone.
    ("POST", "/api/auth/register", [Forbidden; ROLES]),
    ("POST", "/api/auth/browser/register", [Forbidden; ROLES]),
    // These tests name no login there: it would be a caller's. tests/accounts.rs ends logins.
    (
        "DELETE",
        "/api/auth/sessions/{id}",
        [
            SignIn, Hidden, Hidden, Hidden, Forbidden, Forbidden, Forbidden, SignIn, SignIn, Hidden, Hidden, Hidden,
            Hidden, Hidden, Hidden, Hidden,
        ],
    ),
    // Only from above: by the provider and the reseller.
    ("POST", "/api/accounts/{id}/suspend", FROM_ABOVE),
    ("POST", "/api/accounts/{id}/unsuspend", FROM_ABOVE),
    // Not even by its admins.
    (
        "DELETE",
        "/api/accounts/{id}",
        [
            SignIn, Ok, Hidden, Ok, Forbidden, Forbidden, Forbidden, SignIn, SignIn, Forbidden, Forbidden, Forbidden,
            Forbidden, Ok, Forbidden, Forbidden,
        ],
    ),
    // No scope names a key.
    (
        "DELETE",
        "/api/ssh-keys/{id}",
        [
            SignIn, Ok, Hidden, Ok, Forbidden, Hidden, Hidden, SignIn, SignIn, Ok, Ok, Hidden, Forbidden, Ok,
            Forbidden, Hidden,
        ],
    ),
];

/// What a route has to answer to each caller.
pub(super) fn expected((method, path, admission): AccessRow) -> [To; ROLES] {
    if let Some((.., expected)) = EXCEPTIONS.iter().find(|(m, p, _)| (*m, *p) == (method, path)) {
        return *expected;
    }
    // Of those who may only look.
    let look = if method == "GET" { Ok } else { Forbidden };
    let no = Forbidden;
    let [owner, other, provider, read_only, elsewhere, here] = match admission {
        Admission::Open => return [Ok; ROLES],
        Admission::AnyToken | Admission::Member => [Ok, Ok, Ok, look, Ok, Ok],
        Admission::User | Admission::Account => [Ok, Ok, Ok, look, no, no],
        Admission::Login => [Ok, Ok, Ok, no, no, no],
        Admission::Provider | Admission::Support | Admission::Staff => [no, no, Ok, no, no, no],
        Admission::Private => [Ok, Hidden, Hidden, no, no, no],
        Admission::Owned => [Ok, Hidden, Ok, look, Hidden, Ok],
        Admission::Managed => [Ok, Hidden, Ok, look, no, no],
    };
    let [admin, member, billing, viewer, reseller, support, ledger] = match admission {
        Admission::Open | Admission::AnyToken | Admission::User | Admission::Login => [Ok; 7],
        Admission::Member | Admission::Account => [Ok, Ok, no, look, Ok, Ok, Ok],
        Admission::Provider => [no, no, no, no, no, look, no],
        Admission::Support => [no, no, no, no, no, Ok, no],
        Admission::Staff => [no, no, no, no, no, look, look],
        Admission::Private => [Hidden; 7],
        Admission::Owned => [Ok, Ok, Hidden, look, Ok, look, Hidden],
        Admission::Managed => [Ok, look, look, look, Ok, look, look],
    };
    [
        SignIn, owner, other, provider, read_only, elsewhere, here, SignIn, SignIn, admin, member, billing, viewer,
        reseller, support, ledger,
    ]
}

/// The rows of each feature that has some, and of the kernel's own routes.
pub(super) fn rows(service: &Service) -> BTreeMap<&'static str, &'static [AccessRow]> {
    let features = service.features.all().iter().map(|feature| (feature.name(), feature.access()));
    features.filter(|(_, rows)| !rows.is_empty()).chain([("http", kernel::http::ACCESS)]).collect()
}
