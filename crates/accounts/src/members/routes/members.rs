//! `/api/accounts/{id}/members`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use kernel::auth::ClientAddress;
use kernel::error::Result;
use kernel::http::ErrorBody;
use kernel::http::extract::{Json, Path, Query};
use kernel::http::page::{Page, PageQuery};
use kernel::idempotency::Post;
use kernel::ids::{AccountId, UserId};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Accounts;
use crate::members::access::{AccountAccess, KnownAccount};
use crate::members::model::{ListMembers, Member, NewMember, UpdateMember};
use crate::members::service;

pub(super) fn routes() -> OpenApiRouter<Arc<Accounts>> {
    OpenApiRouter::new().routes(routes!(list, add)).routes(routes!(update, remove))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MemberPath {
    user_id: UserId,
}

/// List the members of an account
#[utoipa::path(get, path = "/accounts/{id}/members", tag = "accounts", operation_id = "listAccountMembers",
    params(("id" = AccountId, Path, description = "The account's id"), ListMembers),
    responses((status = 200, body = Page<Member>), (status = 403, body = ErrorBody)))]
async fn list(
    State(accounts): State<Arc<Accounts>>,
    access: AccountAccess,
    Query(query): Query<ListMembers>,
) -> Result<Json<Page<Member>>> {
    let page = PageQuery { page: query.page, limit: query.limit };
    let (members, total) = service::members(&accounts, &access.account, &query, page.window()).await?;
    Ok(Json(Page::new(members, total, page)))
}

/// Add a user to an account; not with an API token
#[utoipa::path(post, path = "/accounts/{id}/members", tag = "accounts", operation_id = "addAccountMember",
    request_body = NewMember, params(("id" = AccountId, Path, description = "The account's id")),
    responses((status = 201, body = Member), (status = 507, body = ErrorBody)))]
async fn add(
    State(accounts): State<Arc<Accounts>>,
    access: AccountAccess,
    from: ClientAddress,
    Post(once, new): Post<NewMember>,
) -> Result<(StatusCode, Json<Member>)> {
    access.caller.check_login()?;
    Ok((StatusCode::CREATED, Json(service::add_member(&accounts, &once, &access, from, new).await?)))
}

/// Change a member's role; not with an API token
#[utoipa::path(patch, path = "/accounts/{id}/members/{userId}", tag = "accounts",
    operation_id = "updateAccountMember", request_body = UpdateMember,
    params(("id" = AccountId, Path, description = "The account's id"),
        ("userId" = UserId, Path, description = "The user's id")),
    responses((status = 200, body = Member), (status = 409, body = ErrorBody)))]
async fn update(
    State(accounts): State<Arc<Accounts>>,
    access: AccountAccess,
    Path(MemberPath { user_id }): Path<MemberPath>,
    Json(update): Json<UpdateMember>,
) -> Result<Json<Member>> {
    access.caller.check_login()?;
    Ok(Json(service::update_member(&accounts, &access.account, user_id, update.role).await?))
}

/// Remove a member, or leave an account
#[utoipa::path(delete, path = "/accounts/{id}/members/{userId}", tag = "accounts",
    operation_id = "deleteAccountMember",
    params(("id" = AccountId, Path, description = "The account's id"),
        ("userId" = UserId, Path, description = "The user's id")),
    responses((status = 204), (status = 409, body = ErrorBody)))]
async fn remove(
    State(accounts): State<Arc<Accounts>>,
    KnownAccount(access): KnownAccount,
    Path(MemberPath { user_id }): Path<MemberPath>,
) -> Result<StatusCode> {
    // Members may always leave.
    if access.caller.user != user_id {
        access.check_manages()?;
    }
    service::remove_member(&accounts, &access.account, user_id).await?;
    Ok(StatusCode::NO_CONTENT)
}
