//! What each route has to answer to each kind of caller.

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
pub(super) type Row = (&'static str, &'static str, [To; ROLES]);
pub(super) const ROLES: usize = 9;

const OPEN: [To; ROLES] = [Ok; ROLES];
const ANYONE: [To; ROLES] = [SignIn, Ok, Ok, Ok, Ok, Ok, Ok, SignIn, SignIn];
const ACCOUNT_READ: [To; ROLES] = [SignIn, Ok, Ok, Ok, Ok, Forbidden, Forbidden, SignIn, SignIn];
const ACCOUNT_WRITE: [To; ROLES] = [SignIn, Ok, Ok, Ok, Forbidden, Forbidden, Forbidden, SignIn, SignIn];
const LOGIN: [To; ROLES] = ACCOUNT_WRITE;
const OWN_TOKEN: [To; ROLES] = [SignIn, Ok, Hidden, Hidden, Forbidden, Forbidden, Forbidden, SignIn, SignIn];
const PROVIDER: [To; ROLES] = [SignIn, Forbidden, Forbidden, Ok, Forbidden, Forbidden, Forbidden, SignIn, SignIn];
const OWNED_READ: [To; ROLES] = [SignIn, Ok, Hidden, Ok, Ok, Hidden, Ok, SignIn, SignIn];
const OWNED_WRITE: [To; ROLES] = [SignIn, Ok, Hidden, Ok, Forbidden, Hidden, Ok, SignIn, SignIn];

pub(super) const MATRIX: &[Row] = &[
    ("GET", "/health/live", OPEN),
    ("GET", "/health/ready", OPEN),
    ("GET", "/metrics", [Hidden; ROLES]),
    ("GET", "/console/socket", OPEN), // authorised by the ticket in its first message
    ("POST", "/api/auth/register", [Forbidden; ROLES]), // closed by default, for everyone
    ("POST", "/api/auth/login", OPEN),
    ("POST", "/api/auth/refresh", OPEN),
    ("POST", "/api/auth/logout", LOGIN),
    ("GET", "/api/auth/me", ANYONE),
    ("PATCH", "/api/auth/me", ACCOUNT_WRITE),
    ("POST", "/api/auth/password", LOGIN),
    ("GET", "/api/auth/sessions", LOGIN),
    ("DELETE", "/api/auth/sessions", LOGIN),
    (
        "DELETE",
        "/api/auth/sessions/{id}",
        [SignIn, Hidden, Hidden, Hidden, Forbidden, Forbidden, Forbidden, SignIn, SignIn],
    ),
    ("POST", "/api/auth/confirm", OPEN),
    ("POST", "/api/auth/confirm/mail", LOGIN),
    ("GET", "/api/auth/tokens", LOGIN),
    ("POST", "/api/auth/tokens", LOGIN),
    ("DELETE", "/api/auth/tokens/{id}", OWN_TOKEN),
    ("GET", "/api/tariffs", ACCOUNT_READ),
    ("POST", "/api/tariffs", PROVIDER),
    ("GET", "/api/tariffs/{id}", ACCOUNT_READ),
    ("PUT", "/api/tariffs/{id}", PROVIDER),
    ("DELETE", "/api/tariffs/{id}", PROVIDER),
    ("GET", "/api/images", ACCOUNT_READ),
    ("POST", "/api/images", PROVIDER),
    ("GET", "/api/images/{id}", ACCOUNT_READ),
    ("PUT", "/api/images/{id}", PROVIDER),
    ("DELETE", "/api/images/{id}", PROVIDER),
    ("GET", "/api/hosts", PROVIDER),
    ("POST", "/api/hosts", PROVIDER),
    ("GET", "/api/hosts/{id}", PROVIDER),
    ("PUT", "/api/hosts/{id}", PROVIDER),
    ("DELETE", "/api/hosts/{id}", PROVIDER),
    ("POST", "/api/hosts/{id}/check", PROVIDER),
    ("GET", "/api/hosts/{id}/unknown-guests", PROVIDER),
    ("POST", "/api/hosts/{id}/unknown-guests/{number}/adopt", PROVIDER),
    ("GET", "/api/address-pools", PROVIDER),
    ("POST", "/api/address-pools", PROVIDER),
    ("GET", "/api/address-pools/{id}", PROVIDER),
    ("PUT", "/api/address-pools/{id}", PROVIDER),
    ("DELETE", "/api/address-pools/{id}", PROVIDER),
    ("GET", "/api/address-pools/{id}/addresses", PROVIDER),
    ("POST", "/api/address-pools/{id}/reserve", PROVIDER),
    ("DELETE", "/api/address-pools/{id}/reserve/{address}", PROVIDER),
    ("GET", "/api/server", ANYONE),
    ("POST", "/api/server/create", ACCOUNT_WRITE),
    ("GET", "/api/server/{id}", OWNED_READ),
    ("DELETE", "/api/server/{id}", OWNED_WRITE),
    ("GET", "/api/server/{id}/status", OWNED_READ),
    ("GET", "/api/server/{id}/metrics", OWNED_READ),
    ("GET", "/api/server/{id}/traffic", OWNED_READ),
    ("POST", "/api/server/{id}/start", OWNED_WRITE),
    ("POST", "/api/server/{id}/stop", OWNED_WRITE),
    ("POST", "/api/server/{id}/restart", OWNED_WRITE),
    ("POST", "/api/server/{id}/password", OWNED_WRITE),
    ("GET", "/api/server/{id}/operations", OWNED_READ),
    ("PATCH", "/api/server/{id}", OWNED_WRITE),
    ("PUT", "/api/server/{id}/resize", OWNED_WRITE),
    ("POST", "/api/server/{id}/reinstall", OWNED_WRITE),
    ("POST", "/api/server/{id}/suspend", PROVIDER),
    ("POST", "/api/server/{id}/unsuspend", PROVIDER),
    ("GET", "/api/server/{id}/snapshots", OWNED_READ),
    ("POST", "/api/server/{id}/snapshots", OWNED_WRITE),
    ("DELETE", "/api/server/{id}/snapshots", OWNED_WRITE),
    ("POST", "/api/server/{id}/snapshots/rollback", OWNED_WRITE),
    ("GET", "/api/server/{id}/addresses", OWNED_READ),
    ("PUT", "/api/server/{id}/addresses/{address}", OWNED_WRITE),
    ("GET", "/api/ssh-keys", ACCOUNT_READ),
    ("POST", "/api/ssh-keys", ACCOUNT_WRITE),
    ("DELETE", "/api/ssh-keys/{id}", OWN_TOKEN),
    ("POST", "/api/server/console", OWNED_WRITE), // the server is named in the body
    ("GET", "/api/operations", PROVIDER),
    ("GET", "/api/operations/{id}", OWNED_READ),
    ("GET", "/api/operations/{id}/log", PROVIDER),
    ("POST", "/api/operations/{id}/retry", PROVIDER),
    ("POST", "/api/operations/{id}/abandon", PROVIDER),
    ("GET", "/api/mails", PROVIDER),
    ("POST", "/api/mails/{id}/retry", PROVIDER),
    ("GET", "/api/audit", ACCOUNT_READ),
    ("GET", "/api/audit/refused", ACCOUNT_READ),
    ("GET", "/api/alerts", ANYONE),
    ("GET", "/api/alerts/{id}", OWNED_READ),
    ("POST", "/api/alerts/{id}/acknowledge", OWNED_WRITE),
    ("GET", "/api/alert-rules", PROVIDER),
    ("PUT", "/api/alert-rules/{type}", PROVIDER),
    ("DELETE", "/api/alert-rules/{type}", PROVIDER),
    ("POST", "/api/alert-rules/{type}/mute", PROVIDER),
    ("DELETE", "/api/alert-rules/{type}/mute", PROVIDER),
    ("GET", "/api/tariffs/{id}/alert-rules", PROVIDER),
    ("PUT", "/api/tariffs/{id}/alert-rules/{type}", PROVIDER),
    ("DELETE", "/api/tariffs/{id}/alert-rules/{type}", PROVIDER),
    ("GET", "/api/server/{id}/alert-rules", OWNED_READ),
    ("PUT", "/api/server/{id}/alert-rules/{type}", OWNED_WRITE),
    ("DELETE", "/api/server/{id}/alert-rules/{type}", OWNED_WRITE),
    ("POST", "/api/server/{id}/mute", OWNED_WRITE),
    ("DELETE", "/api/server/{id}/mute", OWNED_WRITE),
];
