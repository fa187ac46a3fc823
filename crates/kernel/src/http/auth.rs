//! Authorisation as extractors: every handler has to name who may call it.
//!
//! Safe methods (GET) require read access, all others require write access.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, Method, header};
use uuid::Uuid;

use crate::auth::{Access, Authenticator, Caller, ClientAddress, StaffRole, scopes_forbid};
use crate::core::Core;
use crate::dialect;
use crate::error::{Code, Error, Result};
use crate::ids::AccountId;

/// The header that names the account a request is made for.
pub const ACCOUNT: &str = "X-Account";

/// Any authenticated caller, whatever the token's scopes and the user's role. The handler must limit what they see.
#[derive(Debug, Clone)]
pub struct AnyCaller(pub Caller);

/// A user of any role, with a token whose scopes cover the whole account: for what is the user's own or everybody's.
#[derive(Debug, Clone)]
pub struct UserCaller(pub Caller);

/// A member whose role allows this with what the account owns, whatever the token's scopes: these limit what they see.
#[derive(Debug, Clone)]
pub struct MemberCaller(pub Caller);

/// A member whose role allows this with what the account owns, with a token whose scopes cover the whole account.
#[derive(Debug, Clone)]
pub struct AccountCaller(pub Caller);

/// A login session, not an API token: for anything that would let a leaked token gain access (other tokens, the
/// password).
#[derive(Debug, Clone)]
pub struct LoginCaller {
    /// The caller.
    pub caller: Caller,
    /// The session's id.
    pub id: Uuid,
}

/// A provider, with a token whose scopes cover the whole account. Where nothing is changed, support staff as well.
#[derive(Debug, Clone)]
pub struct ProviderCaller(pub Caller);

/// Staff of the provider, with a token whose scopes cover the whole account: any of them where nothing is changed, and
/// providers everywhere.
#[derive(Debug, Clone)]
pub struct StaffCaller(pub Caller);

/// What every part of the service shares, of the service that a request came to.
pub fn core(extensions: &Extensions) -> Result<&Arc<Core>> {
    extensions.get().ok_or_else(|| Error::internal(anyhow::anyhow!("the request did not come through the router")))
}

/// The access level that a method requires.
pub fn level(method: &Method) -> Access {
    if method.is_safe() { Access::Read } else { Access::Write }
}

/// The caller of a request, authenticated once on its way in: rate limits and the audit log need to know it as well.
#[derive(Debug, Clone)]
pub enum RequestIdentity {
    /// No token was sent.
    Nobody,
    /// The token is valid.
    Somebody(Caller),
    /// The token is invalid or can't be looked up. The first extractor to ask takes the error, which ends the request.
    Refused(Arc<Mutex<Option<Error>>>),
}

impl RequestIdentity {
    /// Reads the token, as the request's dialect shows it, and looks up its owner.
    pub async fn of(core: &Core, authenticator: &dyn Authenticator, request: &Parts) -> Self {
        let dialect = dialect::of(&request.extensions);
        let Some(token) = dialect.token(request) else { return Self::Nobody };
        let address = ClientAddress::of(&request.extensions, &request.headers, core);
        let caller = async { authenticator.authenticate(&token, dialect.account(request)?, address).await };
        match caller.await {
            Ok(caller) => Self::Somebody(caller),
            Err(error) => Self::Refused(Arc::new(Mutex::new(Some(error)))),
        }
    }
}

/// The token of `Authorization: Bearer <token>`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    bearer_of(headers.get(header::AUTHORIZATION)?.to_str().ok()?)
}

/// The account of `X-Account: <id>`.
pub fn named_account(headers: &HeaderMap) -> Result<Option<AccountId>> {
    let Some(value) = headers.get(ACCOUNT) else { return Ok(None) };
    let id = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|id: &AccountId| id.0 > 0);
    id.map(Some).ok_or_else(|| Error::new(Code::Malformed, format!("{ACCOUNT} must be the id of an account.")))
}

/// The token of a text such as `Bearer <token>`.
pub fn bearer_of(text: &str) -> Option<&str> {
    let (scheme, token) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The caller of a request, or the reason they have to sign in first.
pub fn caller(extensions: &Extensions) -> Result<&Caller> {
    let refused = match extensions.get::<RequestIdentity>() {
        Some(RequestIdentity::Somebody(caller)) => return Ok(caller),
        Some(RequestIdentity::Refused(error)) => error.lock().unwrap_or_else(PoisonError::into_inner).take(),
        Some(RequestIdentity::Nobody) | None => None,
    };
    Err(refused.unwrap_or_else(|| Error::new(Code::Unauthenticated, dialect::of(extensions).sign_in())))
}

impl<S: Send + Sync> FromRequestParts<S> for AnyCaller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        caller(&parts.extensions).cloned().map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for UserCaller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let AnyCaller(caller) = AnyCaller::from_request_parts(parts, state).await?;
        if caller.scopes.allow(level(&parts.method)) { Ok(Self(caller)) } else { Err(scopes_forbid()) }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for MemberCaller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let AnyCaller(caller) = AnyCaller::from_request_parts(parts, state).await?;
        caller.check_role(level(&parts.method))?;
        Ok(Self(caller))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for AccountCaller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let AnyCaller(caller) = AnyCaller::from_request_parts(parts, state).await?;
        caller.check_account(level(&parts.method))?;
        Ok(Self(caller))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for LoginCaller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let AnyCaller(caller) = AnyCaller::from_request_parts(parts, state).await?;
        let id = caller.check_login()?;
        Ok(Self { caller, id })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ProviderCaller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let UserCaller(caller) = UserCaller::from_request_parts(parts, state).await?;
        let may = if parts.method.is_safe() { caller.sees_everything() } else { caller.is_provider() };
        if may { Ok(Self(caller)) } else { Err(provider_only()) }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for StaffCaller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let UserCaller(caller) = UserCaller::from_request_parts(parts, state).await?;
        let is_staff = !matches!(caller.staff, None | Some(StaffRole::Unknown));
        let may = if parts.method.is_safe() { is_staff } else { caller.is_provider() };
        if may { Ok(Self(caller)) } else { Err(provider_only()) }
    }
}

fn provider_only() -> Error {
    Error::new(Code::Forbidden, "Only the provider may do this.")
}
