//! Authorisation as extractors: a handler can't be written without naming who may call it.
//!
//! GET asks for the right to read, every other method for the right to write.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, Method, header};
use uuid::Uuid;

use super::ClientAddress;
use crate::auth::{Authenticator, Caller, Level};
use crate::core::Core;
use crate::error::{Code, Error, Result};

/// Anyone who is signed in, whatever their token may do. What they see must be narrowed by the handler.
#[derive(Debug, Clone)]
pub struct Anyone(pub Caller);

/// An account's own matters: any role, with a token that reaches the whole account.
#[derive(Debug, Clone)]
pub struct Account(pub Caller);

/// A login, not an API token: for what would let a leaked token grow (other tokens, the password).
#[derive(Debug, Clone)]
pub struct Session {
    /// Who.
    pub caller: Caller,
    /// Which login.
    pub id: Uuid,
}

/// A provider, with a token that reaches the whole account.
#[derive(Debug, Clone)]
pub struct Provider(pub Caller);

/// What every part of the service shares, of the service that a request came to.
pub fn core(extensions: &Extensions) -> Result<&Arc<Core>> {
    extensions.get().ok_or_else(|| Error::internal(anyhow::anyhow!("the request did not come through the router")))
}

/// The right that a method asks for.
pub fn level(method: &Method) -> Level {
    if method.is_safe() { Level::Read } else { Level::Write }
}

fn narrow() -> Error {
    Error::new(Code::Forbidden, "This token's scopes do not reach that far.")
}

/// Who a request is from, found out once, on its way in: limits and the audit log want to know it as well.
#[derive(Debug, Clone)]
pub(crate) enum Identity {
    /// It shows no token.
    Nobody,
    /// Its token is good.
    Somebody(Caller),
    /// Its token is not, or can't be looked up. The reason is for whoever asks first: it ends the request.
    Refused(Arc<Mutex<Option<Error>>>),
}

impl Identity {
    /// Reads the bearer token and asks whose it is.
    pub(crate) async fn of(
        core: &Core,
        authenticator: &dyn Authenticator,
        extensions: &Extensions,
        headers: &HeaderMap,
    ) -> Self {
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        let Some(token) = token else { return Self::Nobody };
        match authenticator.authenticate(token, ClientAddress::of(extensions, headers, core)).await {
            Ok(caller) => Self::Somebody(caller),
            Err(error) => Self::Refused(Arc::new(Mutex::new(Some(error)))),
        }
    }
}

/// Who a request is from, or why it has to sign in first.
pub(crate) fn caller(extensions: &Extensions) -> Result<&Caller> {
    let refused = match extensions.get::<Identity>() {
        Some(Identity::Somebody(caller)) => return Ok(caller),
        Some(Identity::Refused(error)) => error.lock().unwrap_or_else(PoisonError::into_inner).take(),
        Some(Identity::Nobody) | None => None,
    };
    Err(refused.unwrap_or_else(|| {
        Error::new(Code::Unauthenticated, "Sign in first: send the header Authorization: Bearer <token>.")
    }))
}

impl<S: Send + Sync> FromRequestParts<S> for Anyone {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        caller(&parts.extensions).cloned().map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Account {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let Anyone(caller) = Anyone::from_request_parts(parts, state).await?;
        if caller.scopes.allow(level(&parts.method)) { Ok(Self(caller)) } else { Err(narrow()) }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Session {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let Anyone(caller) = Anyone::from_request_parts(parts, state).await?;
        match caller.session {
            Some(id) => Ok(Self { caller, id }),
            None => Err(Error::new(Code::Forbidden, "An API token may not do this; sign in with your password.")),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Provider {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let Account(caller) = Account::from_request_parts(parts, state).await?;
        match caller.is_provider() {
            true => Ok(Self(caller)),
            false => Err(Error::new(Code::Forbidden, "Only the provider may do this.")),
        }
    }
}
