//! The native API, and what is served beside all APIs.

use std::borrow::Cow;
use std::collections::BTreeSet;

use axum::http::request::Parts;

use super::openapi;
use crate::dialect::Dialect;
use crate::limits::RateClass;

/// Where the native API is mounted.
pub(super) const MOUNT: &str = "/api";

/// The native API. Its routes are the features'.
#[derive(Debug)]
pub(super) struct Native {
    open: BTreeSet<String>,
}

impl Native {
    /// As this document describes it.
    pub(super) fn new(document: &utoipa::openapi::OpenApi) -> Self {
        Self { open: openapi::open_routes(document) }
    }
}

impl Dialect for Native {
    fn mount(&self) -> &'static str {
        MOUNT
    }

    fn is_cacheable(&self, path: &str) -> bool {
        path.starts_with("/api/docs")
    }

    fn is_open(&self, action: &str) -> bool {
        self.open.contains(action)
    }
}

/// What browsers and orchestrators open: pages, health, metrics. It needs no token and costs no query.
#[derive(Debug)]
pub(crate) struct Outside;

impl Dialect for Outside {
    fn mount(&self) -> &'static str {
        ""
    }

    fn token<'a>(&self, _: &'a Parts) -> Option<Cow<'a, str>> {
        None
    }

    fn rate_class(&self, route: &str) -> RateClass {
        // Too many requests for pages must not make the service look unhealthy.
        RateClass::Local(if route.starts_with("/health/") { "health" } else { "page" })
    }

    fn is_cacheable(&self, _: &str) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_tells_what_it_is_about() {
        let native = Native { open: BTreeSet::new() };
        for (route, path, expected) in [
            ("/api/server/create", "/api/server/create", (Some("server"), None)),
            ("/api/server/{id}/start", "/api/server/7/start", (Some("server"), Some("7"))),
            ("/api/auth/tokens", "/api/auth/tokens", (Some("tokens"), None)),
            ("/api/auth/tokens/{id}", "/api/auth/tokens/x", (Some("tokens"), Some("x"))),
            ("/api/auth/login", "/api/auth/login", (Some("login"), None)),
            ("/api/pools/{id}/reserve/{address}", "/api/pools/3/reserve/::1", (Some("pools"), Some("3"))),
        ] {
            let (kind, id) = native.subject(route, path);
            assert_eq!((kind, id.as_deref()), expected, "{route}");
        }
    }
}
