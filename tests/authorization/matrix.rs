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
/// tokens for another server and for this one, a revoked token, an expired one.
pub(super) const ROLES: usize = 9;

/// Routes that answer otherwise than their rows say.
pub(super) const EXCEPTIONS: [(&str, &str, [To; ROLES]); 3] = [
    // It wants a token of its own, and does not exist without.
    ("GET", "/metrics", [Hidden; ROLES]),
    // Closed by default, for everyone.
    ("POST", "/api/auth/register", [Forbidden; ROLES]),
    // These tests name no login there: it would be a caller's. tests/accounts.rs ends logins.
    (
        "DELETE",
        "/api/auth/sessions/{id}",
        [SignIn, Hidden, Hidden, Hidden, Forbidden, Forbidden, Forbidden, SignIn, SignIn],
    ),
];

/// What a route has to answer to each caller.
pub(super) fn expected((method, path, admission): AccessRow) -> [To; ROLES] {
    if let Some((.., expected)) = EXCEPTIONS.iter().find(|(m, p, _)| (*m, *p) == (method, path)) {
        return *expected;
    }
    let read_only = if method == "GET" { Ok } else { Forbidden };
    let [owner, other, provider, read_only, elsewhere, here] = match admission {
        Admission::Open => return [Ok; ROLES],
        Admission::AnyToken => [Ok, Ok, Ok, read_only, Ok, Ok],
        Admission::Account => [Ok, Ok, Ok, read_only, Forbidden, Forbidden],
        Admission::Login => [Ok, Ok, Ok, Forbidden, Forbidden, Forbidden],
        Admission::Provider => [Forbidden, Forbidden, Ok, Forbidden, Forbidden, Forbidden],
        Admission::Private => [Ok, Hidden, Hidden, Forbidden, Forbidden, Forbidden],
        Admission::Owned => [Ok, Hidden, Ok, read_only, Hidden, Ok],
    };
    [SignIn, owner, other, provider, read_only, elsewhere, here, SignIn, SignIn]
}

/// The rows of each feature that has some, and of the kernel's own routes.
pub(super) fn rows(service: &Service) -> BTreeMap<&'static str, &'static [AccessRow]> {
    let features = service.features.all().iter().map(|feature| (feature.name(), feature.access()));
    features.filter(|(_, rows)| !rows.is_empty()).chain([("http", kernel::http::ACCESS)]).collect()
}
