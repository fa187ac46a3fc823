//! `/api/auth/browser`: logins of browsers, whose refresh token is in a cookie.

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kernel::auth::ClientAddress;
use kernel::error::{Code, Error, Result};
use kernel::http::ErrorBody;
use kernel::http::extract::Json;
use secrecy::ExposeSecret;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::model::{BrowserSession, Login, Register};
use crate::service::{self, IssuedTokens, LoginOrigin, RefreshCarrier};
use crate::{Accounts, cookies};

pub(super) fn routes() -> OpenApiRouter<Arc<Accounts>> {
    OpenApiRouter::new()
        .routes(routes!(register))
        .routes(routes!(login))
        .routes(routes!(refresh))
        .routes(routes!(logout))
}

/// Only for our own pages: other sites can neither use the cookie nor have it set. What is no browser has no cookie that
/// it did not sign in for, and sends neither header.
struct OwnSite;

impl FromRequestParts<Arc<Accounts>> for OwnSite {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, accounts: &Arc<Accounts>) -> Result<Self> {
        // Sent by every browser of today over HTTPS and on loopback; the origin also by older ones.
        let is_own = match (parts.headers.get("sec-fetch-site"), parts.headers.get(header::ORIGIN)) {
            (Some(site), _) => site == "same-origin",
            (None, Some(origin)) => accounts.settings.is_own_origin(origin),
            (None, None) => true,
        };
        match is_own {
            true => Ok(Self),
            false => Err(Error::new(Code::Forbidden, "Browsers can only sign in and out from our own pages.")),
        }
    }
}

/// The response to a login or refresh: the access token in the body, the refresh token, if it is a new one, in the
/// cookie.
fn signed_in(accounts: &Accounts, status: StatusCode, issued: IssuedTokens) -> Result<Response> {
    let mut headers = HeaderMap::new();
    if let Some(token) = &issued.refresh {
        headers.insert(header::SET_COOKIE, cookies::set(&accounts.settings, token, issued.session_expires_in)?);
    }
    let body = BrowserSession {
        access_token: issued.access.expose_secret().to_owned(),
        token_type: "Bearer",
        expires_in: issued.expires_in,
        session_expires_in: issued.session_expires_in,
        user: issued.user,
    };
    Ok((status, headers, Json(body)).into_response())
}

fn of_browser(origin: LoginOrigin) -> LoginOrigin {
    LoginOrigin { carrier: RefreshCarrier::Cookie, ..origin }
}

/// Register from a page of this site, if the provider allows it
///
/// The refresh token is in the cookie `ink_session`, which scripts can't read.
#[utoipa::path(post, path = "/auth/browser/register", tag = "auth", operation_id = "registerInBrowser", security(()),
    request_body = Register,
    responses((status = 201, body = BrowserSession), (status = 403, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
async fn register(
    State(accounts): State<Arc<Accounts>>,
    _: OwnSite,
    origin: LoginOrigin,
    Json(new): Json<Register>,
) -> Result<Response> {
    let issued = service::register(&accounts, new, &of_browser(origin)).await?;
    signed_in(&accounts, StatusCode::CREATED, issued)
}

/// Sign in from a page of this site
///
/// The refresh token is in the cookie `ink_session`, which scripts can't read.
#[utoipa::path(post, path = "/auth/browser/login", tag = "auth", operation_id = "logInBrowser", security(()),
    request_body = Login,
    responses((status = 200, body = BrowserSession), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody)))]
async fn login(
    State(accounts): State<Arc<Accounts>>,
    _: OwnSite,
    origin: LoginOrigin,
    Json(login): Json<Login>,
) -> Result<Response> {
    let issued = service::login(&accounts, login, &of_browser(origin)).await?;
    signed_in(&accounts, StatusCode::OK, issued)
}

/// Exchange the cookie for an access token and the next cookie
///
/// Of tabs that send the same cookie at once, all get an access token, and one of them the next cookie. A cookie that is
/// no longer valid is deleted.
#[utoipa::path(post, path = "/auth/browser/refresh", tag = "auth", operation_id = "refreshBrowserSession", security(()),
    responses((status = 200, body = BrowserSession), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody)))]
async fn refresh(
    State(accounts): State<Arc<Accounts>>,
    _: OwnSite,
    address: ClientAddress,
    headers: HeaderMap,
) -> Result<Response> {
    let refreshed = match cookies::read(&headers) {
        Some(token) => service::refresh(&accounts, &token, RefreshCarrier::Cookie, address).await,
        None => Err(Error::new(Code::Unauthenticated, "This browser is not signed in.")),
    };
    match refreshed {
        Ok(issued) => signed_in(&accounts, StatusCode::OK, issued),
        Err(error) if error.code == Code::Unauthenticated => {
            Ok(([(header::SET_COOKIE, cookies::cleared(&accounts.settings)?)], error).into_response())
        }
        Err(error) => Err(error),
    }
}

/// Sign out from a page of this site; the login's tokens stop working at once, and its cookie is deleted
#[utoipa::path(post, path = "/auth/browser/logout", tag = "auth", operation_id = "logOutBrowser", security(()),
    responses((status = 204), (status = 403, body = ErrorBody)))]
async fn logout(State(accounts): State<Arc<Accounts>>, _: OwnSite, headers: HeaderMap) -> Result<Response> {
    if let Some(token) = cookies::read(&headers) {
        service::end_by_refresh_token(&accounts, &token).await?;
    }
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookies::cleared(&accounts.settings)?)]).into_response())
}
