//! `/api/auth`: logins, sessions and API tokens.

pub(super) mod browser;

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use kernel::auth::{AccessRow, Admission, ClientAddress};
use kernel::error::{Error, Result};
use kernel::http::ErrorBody;
use kernel::http::auth::{AnyCaller, LoginCaller, UserCaller};
use kernel::http::extract::{Json, Path};
use kernel::idempotency::{Once, Post};
use secrecy::{ExposeSecret, SecretString};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Accounts;
use super::model::{
    ApiToken, ChangePassword, ConfirmAddress, CreatedApiToken, Login, Me, NewApiToken, RefreshSession, Register,
    SessionView, SignedIn, UpdateMe, User,
};
use super::service::{self, IssuedTokens, LoginOrigin, RefreshCarrier};

pub(super) fn routes() -> OpenApiRouter<Arc<Accounts>> {
    OpenApiRouter::new()
        .routes(routes!(register))
        .routes(routes!(login))
        .routes(routes!(refresh))
        .routes(routes!(logout))
        .routes(routes!(me, update_me))
        .routes(routes!(change_password))
        .routes(routes!(sessions, end_other_sessions))
        .routes(routes!(end_session))
        .routes(routes!(confirm))
        .routes(routes!(resend_confirmation))
        .routes(routes!(api_tokens, create_api_token))
        .routes(routes!(revoke_api_token))
        .merge(browser::routes())
}

/// Who may call what.
pub(super) const ACCESS: &[AccessRow] = &[
    ("POST", "/api/auth/register", Admission::Open),
    ("POST", "/api/auth/login", Admission::Open),
    ("POST", "/api/auth/refresh", Admission::Open),
    ("POST", "/api/auth/logout", Admission::Login),
    ("GET", "/api/auth/me", Admission::AnyToken),
    ("PATCH", "/api/auth/me", Admission::User),
    ("POST", "/api/auth/password", Admission::Login),
    ("GET", "/api/auth/sessions", Admission::Login),
    ("DELETE", "/api/auth/sessions", Admission::Login),
    ("DELETE", "/api/auth/sessions/{id}", Admission::Private),
    ("POST", "/api/auth/confirm", Admission::Open),
    ("POST", "/api/auth/confirm/mail", Admission::Login),
    ("GET", "/api/auth/tokens", Admission::Login),
    ("POST", "/api/auth/tokens", Admission::Login),
    ("DELETE", "/api/auth/tokens/{id}", Admission::Private),
    ("POST", "/api/auth/browser/register", Admission::Open),
    ("POST", "/api/auth/browser/login", Admission::Open),
    ("POST", "/api/auth/browser/refresh", Admission::Open),
    ("POST", "/api/auth/browser/logout", Admission::Open),
];

impl<S: Send + Sync> FromRequestParts<S> for LoginOrigin {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let address = ClientAddress::from_request_parts(parts, state).await?;
        let agent = parts.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        Ok(Self { address, user_agent: agent.to_owned(), carrier: RefreshCarrier::Body })
    }
}

impl From<IssuedTokens> for SignedIn {
    fn from(issued: IssuedTokens) -> Self {
        let text = |token: &SecretString| token.expose_secret().to_owned();
        Self {
            access_token: text(&issued.access),
            refresh_token: issued.refresh.as_ref().map(text).unwrap_or_default(),
            token_type: "Bearer",
            expires_in: issued.expires_in,
            user: issued.user,
        }
    }
}

/// Register as a customer, if the provider allows it
#[utoipa::path(post, path = "/auth/register", tag = "auth", operation_id = "registerUser", security(()),
    request_body = Register,
    responses((status = 201, body = SignedIn), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn register(
    State(accounts): State<Arc<Accounts>>,
    origin: LoginOrigin,
    Json(new): Json<Register>,
) -> Result<(StatusCode, Json<SignedIn>)> {
    Ok((StatusCode::CREATED, Json(service::register(&accounts, new, &origin).await?.into())))
}

/// Sign in
#[utoipa::path(post, path = "/auth/login", tag = "auth", operation_id = "logIn", security(()), request_body = Login,
    responses((status = 200, body = SignedIn), (status = 401, body = ErrorBody)))]
async fn login(
    State(accounts): State<Arc<Accounts>>,
    origin: LoginOrigin,
    Json(login): Json<Login>,
) -> Result<Json<SignedIn>> {
    Ok(Json(service::login(&accounts, login, &origin).await?.into()))
}

/// Exchange a refresh token for a new pair
#[utoipa::path(post, path = "/auth/refresh", tag = "auth", operation_id = "refreshSession", security(()),
    request_body = RefreshSession, responses((status = 200, body = SignedIn), (status = 401, body = ErrorBody)))]
async fn refresh(
    State(accounts): State<Arc<Accounts>>,
    address: ClientAddress,
    Json(refresh): Json<RefreshSession>,
) -> Result<Json<SignedIn>> {
    Ok(Json(service::refresh(&accounts, &refresh.refresh_token, RefreshCarrier::Body, address).await?.into()))
}

/// Any login, even one opened with a login link: its holder may end it.
struct AnyLogin(Uuid);

impl<S: Send + Sync> FromRequestParts<S> for AnyLogin {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let AnyCaller(caller) = AnyCaller::from_request_parts(parts, state).await?;
        match caller.session {
            Some(session) => Ok(Self(session)),
            None => LoginCaller::from_request_parts(parts, state).await.map(|login| Self(login.id)),
        }
    }
}

/// Sign out; the session's tokens stop working at once
#[utoipa::path(post, path = "/auth/logout", tag = "auth", operation_id = "logOut", responses((status = 204)))]
async fn logout(State(accounts): State<Arc<Accounts>>, AnyLogin(session): AnyLogin, once: Once) -> Result<StatusCode> {
    service::logout(&accounts, &once, session).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Get my user and the account that I am acting for
#[utoipa::path(get, path = "/auth/me", tag = "auth", operation_id = "getCurrentUser",
    responses((status = 200, body = Me)))]
async fn me(State(accounts): State<Arc<Accounts>>, AnyCaller(caller): AnyCaller) -> Result<Json<Me>> {
    Ok(Json(service::me(&accounts, &caller).await?))
}

/// Change my settings
#[utoipa::path(patch, path = "/auth/me", tag = "auth", operation_id = "updateCurrentUser", request_body = UpdateMe,
    responses((status = 200, body = User)))]
async fn update_me(
    State(accounts): State<Arc<Accounts>>,
    UserCaller(caller): UserCaller,
    Json(update): Json<UpdateMe>,
) -> Result<Json<User>> {
    Ok(Json(service::update_me(&accounts, caller.user, &update).await?))
}

/// Change my password; ends my other sessions and, on request, revokes my API tokens
#[utoipa::path(post, path = "/auth/password", tag = "auth", operation_id = "changePassword",
    request_body = ChangePassword, responses((status = 204)))]
async fn change_password(
    State(accounts): State<Arc<Accounts>>,
    session: LoginCaller,
    Post(once, change): Post<ChangePassword>,
) -> Result<StatusCode> {
    service::change_password(&accounts, &once, session.caller.user, session.id, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List my sessions
#[utoipa::path(get, path = "/auth/sessions", tag = "auth", operation_id = "listSessions",
    responses((status = 200, body = Vec<SessionView>), (status = 403, body = ErrorBody)))]
async fn sessions(State(accounts): State<Arc<Accounts>>, session: LoginCaller) -> Result<Json<Vec<SessionView>>> {
    Ok(Json(service::sessions(&accounts, session.caller.user, session.id).await?))
}

/// End all my other sessions
#[utoipa::path(delete, path = "/auth/sessions", tag = "auth", operation_id = "revokeOtherSessions",
    responses((status = 204)))]
async fn end_other_sessions(State(accounts): State<Arc<Accounts>>, session: LoginCaller) -> Result<StatusCode> {
    service::end_other_sessions(&accounts, session.caller.user, session.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// End one of my sessions
#[utoipa::path(delete, path = "/auth/sessions/{id}", tag = "auth", operation_id = "revokeSession",
    params(("id" = Uuid, Path, description = "The session's id")), responses((status = 204)))]
async fn end_session(
    State(accounts): State<Arc<Accounts>>,
    session: LoginCaller,
    Path(id): Path<Uuid>,
) -> Result<StatusCode> {
    service::end_session(&accounts, session.caller.user, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Confirm an email address with the code that was sent to it
#[utoipa::path(post, path = "/auth/confirm", tag = "auth", operation_id = "confirmAddress", security(()),
    request_body = ConfirmAddress, responses((status = 204)))]
async fn confirm(
    State(accounts): State<Arc<Accounts>>,
    address: ClientAddress,
    Json(confirm): Json<ConfirmAddress>,
) -> Result<StatusCode> {
    service::confirm(&accounts, &confirm.code, address).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Send the confirmation email again
#[utoipa::path(post, path = "/auth/confirm/mail", tag = "auth", operation_id = "sendConfirmation",
    responses((status = 204)))]
async fn resend_confirmation(
    State(accounts): State<Arc<Accounts>>,
    session: LoginCaller,
    once: Once,
) -> Result<StatusCode> {
    service::resend(&accounts, &once, session.caller.user).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List my API tokens
#[utoipa::path(get, path = "/auth/tokens", tag = "auth", operation_id = "listApiTokens",
    responses((status = 200, body = Vec<ApiToken>), (status = 403, body = ErrorBody)))]
async fn api_tokens(State(accounts): State<Arc<Accounts>>, session: LoginCaller) -> Result<Json<Vec<ApiToken>>> {
    Ok(Json(service::api_tokens(&accounts, session.caller.user).await?))
}

/// Create an API token; its secret is shown only once
#[utoipa::path(post, path = "/auth/tokens", tag = "auth", operation_id = "createApiToken", request_body = NewApiToken,
    responses((status = 201, body = CreatedApiToken)))]
async fn create_api_token(
    State(accounts): State<Arc<Accounts>>,
    session: LoginCaller,
    Post(once, new): Post<NewApiToken>,
) -> Result<(StatusCode, Json<CreatedApiToken>)> {
    let (who, session) = ((session.caller.user, session.caller.account), Some(session.id));
    Ok((StatusCode::CREATED, Json(service::create_api_token(&accounts, &once, who, session, new).await?)))
}

/// Revoke an API token
#[utoipa::path(delete, path = "/auth/tokens/{id}", tag = "auth", operation_id = "revokeApiToken",
    params(("id" = Uuid, Path, description = "The token's id")), responses((status = 204)))]
async fn revoke_api_token(
    State(accounts): State<Arc<Accounts>>,
    session: LoginCaller,
    Path(id): Path<Uuid>,
) -> Result<StatusCode> {
    service::revoke_api_token(&accounts, session.caller.user, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
