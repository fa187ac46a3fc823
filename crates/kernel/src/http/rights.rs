//! Authenticates the caller when a request's head arrives, and again when its body is complete: that may be half a
//! minute later, and access may have been revoked meanwhile.

use std::sync::Arc;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use bytes::BytesMut;
use futures_util::{StreamExt, stream};

use super::auth::RequestIdentity;
use crate::auth::Authenticator;
use crate::core::Core;
use crate::dialect;

/// What finds out who asks.
#[derive(Debug, Clone)]
pub(super) struct Authentication {
    pub core: Arc<Core>,
    pub authenticator: Arc<dyn Authenticator>,
}

impl Authentication {
    async fn identity(&self, request: &Parts) -> RequestIdentity {
        RequestIdentity::of(&self.core, &*self.authenticator, request).await
    }
}

/// Authenticates the caller, once for everything that needs to know.
pub(super) async fn identify(State(doors): State<Authentication>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let identity = doors.identity(&parts).await;
    parts.extensions.insert(identity);
    next.run(Request::from_parts(parts, body)).await
}

/// Waits for the body of an authenticated request, then authenticates the caller again. Every other check on the way to
/// the handler runs after this.
pub(super) async fn reauthenticate(State(doors): State<Authentication>, request: Request, next: Next) -> Response {
    let known = matches!(request.extensions().get::<RequestIdentity>(), Some(RequestIdentity::Somebody(_)));
    if !known || request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    let body = collect(body.into_data_stream(), dialect::body_limit(&parts.extensions)).await;
    let identity = doors.identity(&parts).await;
    parts.extensions.insert(identity);
    next.run(Request::from_parts(parts, body)).await
}

/// Reads the whole body, or a little more than the limit; whatever reads it next finds what is wrong with it.
async fn collect(mut body: BodyDataStream, limit: usize) -> Body {
    let mut whole = BytesMut::new();
    while let Some(part) = body.next().await {
        match part {
            Ok(part) => whole.extend_from_slice(&part),
            Err(error) => {
                let before = stream::iter([Ok(whole.freeze()), Err(error)]);
                return Body::from_stream(before);
            }
        }
        if whole.len() > limit {
            let before = stream::iter([Ok::<Bytes, axum::Error>(whole.freeze())]);
            return Body::from_stream(before.chain(body));
        }
    }
    Body::from(whole.freeze())
}
