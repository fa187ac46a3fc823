//! Authorisation as extractors: a handler can't be written without naming who may call it.
//!
//! GET asks for the right to read, every other method for the right to write.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Method, header};
use uuid::Uuid;

use crate::accounts::Level;
use crate::accounts::model::Caller;
use crate::accounts::service;
use crate::app::App;
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

/// The right that a method asks for.
pub fn level(method: &Method) -> Level {
    if method.is_safe() { Level::Read } else { Level::Write }
}

fn narrow() -> Error {
    Error::new(Code::Forbidden, "This token's scopes do not reach that far.")
}

impl FromRequestParts<Arc<App>> for Anyone {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self> {
        let token = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or_else(|| {
                Error::new(Code::Unauthenticated, "Sign in first: send the header Authorization: Bearer <token>.")
            })?;
        service::authenticate(app, token).await.map(Self)
    }
}

impl FromRequestParts<Arc<App>> for Account {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self> {
        let Anyone(caller) = Anyone::from_request_parts(parts, app).await?;
        if caller.scopes.allow(level(&parts.method)) { Ok(Self(caller)) } else { Err(narrow()) }
    }
}

impl FromRequestParts<Arc<App>> for Session {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self> {
        let Anyone(caller) = Anyone::from_request_parts(parts, app).await?;
        match caller.session {
            Some(id) => Ok(Self { caller, id }),
            None => Err(Error::new(Code::Forbidden, "An API token may not do this; sign in with your password.")),
        }
    }
}

impl FromRequestParts<Arc<App>> for Provider {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self> {
        let Account(caller) = Account::from_request_parts(parts, app).await?;
        match caller.is_provider() {
            true => Ok(Self(caller)),
            false => Err(Error::new(Code::Forbidden, "Only the provider may do this.")),
        }
    }
}
