//! `/api/users`, and the use of login links.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use kernel::auth::{AccessRow, Admission};
use kernel::error::Result;
use kernel::http::ErrorBody;
use kernel::http::auth::StaffCaller;
use kernel::http::extract::{Json, Path, Query};
use kernel::http::page::{Page, PageQuery};
use kernel::http::patch::Patch;
use kernel::idempotency::Post;
use kernel::ids::UserId;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::SupportCaller;
use super::model::{
    CreatedUser, LinkedSession, ListUsers, LoginLink, NewLoginLink, NewUser, UpdateUser, UseLoginLink, UserDetails,
    UserSummary,
};
use super::{links, service};
use crate::Accounts;
use crate::service::LoginOrigin;

pub(super) fn routes() -> OpenApiRouter<Arc<Accounts>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update, delete))
        .routes(routes!(end_sessions))
        .routes(routes!(create_link))
        .routes(routes!(open_link))
}

/// Who may call what.
pub(super) const ACCESS: &[AccessRow] = &[
    ("GET", "/api/users", Admission::Staff),
    ("POST", "/api/users", Admission::Staff),
    ("GET", "/api/users/{id}", Admission::Staff),
    ("PATCH", "/api/users/{id}", Admission::Staff),
    ("DELETE", "/api/users/{id}", Admission::Staff),
    ("DELETE", "/api/users/{id}/sessions", Admission::Staff),
    ("POST", "/api/users/{id}/login-link", Admission::Support),
    ("POST", "/api/auth/login-link", Admission::Open),
];

/// List all users (staff)
#[utoipa::path(get, path = "/users", tag = "users", operation_id = "listUsers", params(ListUsers),
    responses((status = 200, body = Page<UserSummary>), (status = 403, body = ErrorBody)))]
async fn list(
    State(accounts): State<Arc<Accounts>>,
    _: StaffCaller,
    Query(query): Query<ListUsers>,
) -> Result<Json<Page<UserSummary>>> {
    let page = PageQuery { page: query.page, limit: query.limit }.or_after(query.after.as_ref())?;
    let (users, total) = service::list(&accounts, &query, page.window()).await?;
    Ok(Json(Page::new(users, total, page).continued(|user| user.id)))
}

/// Create a user with an account of their own; a generated password is shown only once (provider)
#[utoipa::path(post, path = "/users", tag = "users", operation_id = "createUser", request_body = NewUser,
    responses((status = 201, body = CreatedUser)))]
async fn create(
    State(accounts): State<Arc<Accounts>>,
    StaffCaller(caller): StaffCaller,
    Post(once, new): Post<NewUser>,
) -> Result<(StatusCode, Json<CreatedUser>)> {
    if new.staff_role.is_some() {
        caller.check_login()?;
    }
    Ok((StatusCode::CREATED, Json(service::create(&accounts, &once, new).await?)))
}

/// Get a user and the accounts in which they have a role (staff)
#[utoipa::path(get, path = "/users/{id}", tag = "users", operation_id = "getUser",
    params(("id" = UserId, Path, description = "The user's id")),
    responses((status = 200, body = UserDetails), (status = 403, body = ErrorBody)))]
async fn get(
    State(accounts): State<Arc<Accounts>>,
    _: StaffCaller,
    Path(id): Path<UserId>,
) -> Result<Json<UserDetails>> {
    Ok(Json(service::get(&accounts, id).await?))
}

/// Rename a user, change their staff role, or disable or enable them (provider)
#[utoipa::path(patch, path = "/users/{id}", tag = "users", operation_id = "updateUser", request_body = UpdateUser,
    params(("id" = UserId, Path, description = "The user's id")),
    responses((status = 200, body = UserDetails), (status = 409, body = ErrorBody,
        description = "The user is yourself or the installation's last admin.")))]
async fn update(
    State(accounts): State<Arc<Accounts>>,
    StaffCaller(caller): StaffCaller,
    Path(id): Path<UserId>,
    Json(update): Json<UpdateUser>,
) -> Result<Json<UserDetails>> {
    if update.staff_role != Patch::Keep {
        caller.check_login()?;
    }
    Ok(Json(service::update(&accounts, Some(caller.user), id, &update).await?))
}

/// Delete a user and the accounts that they own (provider)
#[utoipa::path(delete, path = "/users/{id}", tag = "users", operation_id = "deleteUser",
    params(("id" = UserId, Path, description = "The user's id")),
    responses((status = 204), (status = 409, body = ErrorBody,
        description = "The user is yourself, the installation's last admin, or the owner of something in use.")))]
async fn delete(
    State(accounts): State<Arc<Accounts>>,
    StaffCaller(caller): StaffCaller,
    Path(id): Path<UserId>,
) -> Result<StatusCode> {
    service::delete(&accounts, Some(caller.user), id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// End all sessions of a user; their API tokens remain valid (provider)
#[utoipa::path(delete, path = "/users/{id}/sessions", tag = "users", operation_id = "revokeUserSessions",
    params(("id" = UserId, Path, description = "The user's id")), responses((status = 204)))]
async fn end_sessions(
    State(accounts): State<Arc<Accounts>>,
    _: StaffCaller,
    Path(id): Path<UserId>,
) -> Result<StatusCode> {
    service::end_sessions(&accounts, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Create a one-time link for signing in as a user, valid for half a minute (provider and support)
#[utoipa::path(post, path = "/users/{id}/login-link", tag = "users", operation_id = "createLoginLink",
    request_body = NewLoginLink, params(("id" = UserId, Path, description = "The user's id")),
    responses((status = 201, body = LoginLink), (status = 409, body = ErrorBody,
        description = "The user is disabled, or is a member of staff.")))]
async fn create_link(
    State(accounts): State<Arc<Accounts>>,
    SupportCaller(caller): SupportCaller,
    Path(id): Path<UserId>,
    Post(once, new): Post<NewLoginLink>,
) -> Result<(StatusCode, Json<LoginLink>)> {
    Ok((StatusCode::CREATED, Json(links::create(&accounts, &once, caller.user, id, new).await?)))
}

/// Sign in as a user with a login link; the session lasts an hour, and is read-only for support staff
#[utoipa::path(post, path = "/auth/login-link", tag = "auth", operation_id = "openLoginLink", security(()),
    request_body = UseLoginLink,
    responses((status = 200, body = LinkedSession), (status = 401, body = ErrorBody)))]
async fn open_link(
    State(accounts): State<Arc<Accounts>>,
    origin: LoginOrigin,
    Json(link): Json<UseLoginLink>,
) -> Result<Json<LinkedSession>> {
    Ok(Json(links::open(&accounts, &link.token, &origin).await?))
}
