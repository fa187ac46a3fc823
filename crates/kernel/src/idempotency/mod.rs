//! `Idempotency-Key`: a request that is retried because its response was lost gets the same response, and is done only
//! once.
//!
//! A POST's handler takes [`Once`] (or [`Post`], which includes the body) and passes it to the service, which makes its
//! change in [`Once::run`]: the changes, the key and the response are committed together or not at all.

mod feature;
mod service;
mod store;

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use garde::Validate;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::http::auth::{caller, core};
use crate::http::extract::{body, is_json, parse};
use crate::ids::{AccountId, UserId};
use crate::secrets::Fingerprint;

pub use feature::Idempotency;
pub use service::OnceCheck;

/// Name of the header.
pub const HEADER: &str = "Idempotency-Key";

/// A request that is done only once, however often it is sent. Without the header it is an ordinary request, and so is
/// every CLI command (`Once::default()`).
#[derive(Debug, Clone, Default)]
pub struct Once(Option<RequestKey>);

/// The user who made a request, their key, and the fingerprint that tells it from any other request.
#[derive(Debug, Clone)]
struct RequestKey {
    user: UserId,
    key: String,
    fingerprint: Fingerprint,
}

/// A POST's validated body, with its idempotency key.
#[derive(Debug)]
pub struct Post<T>(pub Once, pub T);

/// The caller and the key in the header: 1 to 255 printable ASCII characters.
fn named(request: &Request) -> Result<Option<(UserId, AccountId, String)>> {
    let Some(value) = request.headers().get(HEADER) else { return Ok(None) };
    let fine = |v: &&str| (1..=255).contains(&v.len()) && v.chars().all(|c| c.is_ascii_graphic() || c == ' ');
    match value.to_str().ok().filter(fine) {
        Some(key) => {
            let caller = caller(request.extensions())?;
            Ok(Some((caller.user, caller.account, key.to_owned())))
        }
        None => Err(Error::field(HEADER, "Must have 1 to 255 printable ASCII characters.")),
    }
}

/// Reads the key and the body, and makes a fingerprint of the whole request and the account it is made for.
async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<(Once, axum::body::Bytes)> {
    let core = Arc::clone(core(request.extensions())?);
    let (named, uri) = (named(&request)?, request.uri().to_string());
    let body = body(request, state).await?;
    let once = named.map(|(user, account, key)| RequestKey {
        user,
        key,
        fingerprint: core.sealer.fingerprint(&[b"request", &account.0.to_be_bytes(), uri.as_bytes(), &body]),
    });
    Ok((Once(once), body))
}

impl<S: Send + Sync> FromRequest<S> for Once {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        Ok(read(request, state).await?.0)
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Validate<Context = ()>> FromRequest<S> for Post<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        is_json(request.headers())?;
        let (once, body) = read(request, state).await?;
        Ok(Self(once, parse(&body)?))
    }
}
