//! How an API speaks. Each API that the service serves is a dialect: its own routes, errors, credentials and limits,
//! over the same services. The native API, below `/api`, is one of them, and all defaults are its habits.

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::MatchedPath;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::http::{self, ErrorBody, Outside, auth};
use crate::ids::AccountId;
use crate::limits::{Allowance, RateClass};

/// One API as its clients know it. A route is given as it is registered, mount included, and is empty for an address
/// that has none.
pub trait Dialect: Debug + Send + Sync + 'static {
    /// The path that it is mounted at.
    fn mount(&self) -> &'static str;

    /// Its routes below that path, with their own state. They call services, never stores.
    fn routes(self: Arc<Self>) -> Router {
        Router::new()
    }

    /// The token that a request carries.
    fn token<'a>(&self, request: &'a Parts) -> Option<Cow<'a, str>> {
        auth::bearer(&request.headers).map(Cow::Borrowed)
    }

    /// The account that a request is made for, if it names one.
    fn account(&self, request: &Parts) -> Result<Option<AccountId>> {
        auth::named_account(&request.headers)
    }

    /// The message for a client without a token.
    fn sign_in(&self) -> &'static str {
        "Sign in first: send the header Authorization: Bearer <token>."
    }

    /// `WWW-Authenticate` of a 401, if it has one.
    fn challenge(&self) -> Option<HeaderValue> {
        Some(HeaderValue::from_static("Bearer"))
    }

    /// The response to a failed request. Headers that any API has are added to it.
    fn failure(&self, error: &Error, request_id: Option<&str>) -> Response {
        (http::status(error.code), Json(ErrorBody::of(error, request_id))).into_response()
    }

    /// What a request to this route counts against.
    fn rate_class(&self, _route: &str) -> RateClass {
        RateClass::Shared
    }

    /// How a response says what is left of its rate limit.
    fn rate_headers(&self, left: &Allowance) -> Vec<(HeaderName, HeaderValue)> {
        [
            ("x-ratelimit-limit", left.limit),
            ("x-ratelimit-remaining", left.remaining),
            ("x-ratelimit-reset", left.reset.as_secs()),
        ]
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from(value)))
        .into()
    }

    /// The largest body that this route takes, in bytes.
    fn body_limit(&self, _route: &str) -> usize {
        256 * 1024
    }

    /// How long a request to this route may take.
    fn time_limit(&self, _route: &str, config: &Config) -> Duration {
        Duration::from_secs(config.request_seconds.into())
    }

    /// Whether browsers may cache what is at this path: nothing that is anyone's own.
    fn is_cacheable(&self, _path: &str) -> bool {
        false
    }

    /// Whether this action (`POST /api/auth/login`) needs no authentication. The audit log records requests of
    /// unauthenticated clients only for such actions.
    fn is_open(&self, _action: &str) -> bool {
        false
    }

    /// The kind and id of what a request is about, for the audit log: the part of the route before the first id, or
    /// else the last part that is not a verb.
    fn subject<'a>(&self, route: &'a str, path: &str) -> (Option<&'a str>, Option<String>) {
        let parts = self.mount().split('/').count();
        let mut before = None;
        for (part, value) in route.split('/').zip(path.split('/')).skip(parts) {
            if part.starts_with('{') {
                return (before, Some(value.chars().take(200).collect()));
            }
            before = Some(part).filter(|part| *part != "create").or(before);
        }
        (before, None)
    }
}

/// The dialect that a request came to.
pub fn of(extensions: &Extensions) -> Arc<dyn Dialect> {
    extensions.get::<Arc<dyn Dialect>>().cloned().unwrap_or_else(|| Arc::new(Outside))
}

/// The largest body that a request may have.
pub(crate) fn body_limit(extensions: &Extensions) -> usize {
    of(extensions).body_limit(route(extensions))
}

/// The route that a request came to.
pub fn route(extensions: &Extensions) -> &str {
    extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str)
}
