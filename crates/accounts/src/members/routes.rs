//! `/api/accounts`.

mod members;

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use kernel::auth::{AccessRow, Admission, ClientAddress};
use kernel::error::Result;
use kernel::http::ErrorBody;
use kernel::http::auth::UserCaller;
use kernel::http::extract::{Json, Query};
use kernel::http::page::{Page, PageQuery};
use kernel::idempotency::{Once, Post};
use kernel::ids::AccountId;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{AccountAccess, AccountFromAbove};
use super::model::{AccountView, CreatedAccount, ListAccounts, NewAccount, SuspendAccount, UpdateAccount};
use super::service;
use crate::Accounts;

pub(super) fn routes() -> OpenApiRouter<Arc<Accounts>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update, delete))
        .routes(routes!(suspend))
        .routes(routes!(unsuspend))
        .merge(members::routes())
}

/// Who may call what.
pub(super) const ACCESS: &[AccessRow] = &[
    ("GET", "/api/accounts", Admission::User),
    ("POST", "/api/accounts", Admission::User),
    ("GET", "/api/accounts/{id}", Admission::Managed),
    ("PATCH", "/api/accounts/{id}", Admission::Managed),
    ("DELETE", "/api/accounts/{id}", Admission::Managed),
    ("POST", "/api/accounts/{id}/suspend", Admission::Managed),
    ("POST", "/api/accounts/{id}/unsuspend", Admission::Managed),
    ("GET", "/api/accounts/{id}/members", Admission::Managed),
    ("POST", "/api/accounts/{id}/members", Admission::Managed),
    ("PATCH", "/api/accounts/{id}/members/{userId}", Admission::Managed),
    ("DELETE", "/api/accounts/{id}/members/{userId}", Admission::Managed),
];

/// List the accounts that I can act for: mine, my customers' and, for staff, all
#[utoipa::path(get, path = "/accounts", tag = "accounts", operation_id = "listAccounts", params(ListAccounts),
    responses((status = 200, body = Page<AccountView>), (status = 403, body = ErrorBody)))]
async fn list(
    State(accounts): State<Arc<Accounts>>,
    UserCaller(caller): UserCaller,
    Query(query): Query<ListAccounts>,
) -> Result<Json<Page<AccountView>>> {
    let page = PageQuery { page: query.page, limit: query.limit }.or_after(query.after.as_ref())?;
    let (rows, total) = service::list(&accounts, &caller, &query, page.window()).await?;
    Ok(Json(Page::new(rows, total, page).continued(|account| account.id)))
}

/// Create an account (provider), or a customer with a new user as its owner (reseller)
#[utoipa::path(post, path = "/accounts", tag = "accounts", operation_id = "createAccount", request_body = NewAccount,
    responses((status = 201, body = CreatedAccount)))]
async fn create(
    State(accounts): State<Arc<Accounts>>,
    UserCaller(caller): UserCaller,
    from: ClientAddress,
    Post(once, new): Post<NewAccount>,
) -> Result<(StatusCode, Json<CreatedAccount>)> {
    Ok((StatusCode::CREATED, Json(service::create(&accounts, &once, &caller, from, new).await?)))
}

/// Get an account
#[utoipa::path(get, path = "/accounts/{id}", tag = "accounts", operation_id = "getAccount",
    params(("id" = AccountId, Path, description = "The account's id")),
    responses((status = 200, body = AccountView), (status = 403, body = ErrorBody)))]
async fn get(access: AccountAccess) -> Json<AccountView> {
    Json(access.account.seen_as(access.role))
}

/// Change an account; only the provider can transfer it to another member
#[utoipa::path(patch, path = "/accounts/{id}", tag = "accounts", operation_id = "updateAccount",
    request_body = UpdateAccount, params(("id" = AccountId, Path, description = "The account's id")),
    responses((status = 200, body = AccountView), (status = 409, body = ErrorBody)))]
async fn update(
    State(accounts): State<Arc<Accounts>>,
    access: AccountAccess,
    Json(update): Json<UpdateAccount>,
) -> Result<Json<AccountView>> {
    Ok(Json(service::update(&accounts, &access, update).await?))
}

/// Delete an account that has nothing in use (its owner, its reseller, the provider)
#[utoipa::path(delete, path = "/accounts/{id}", tag = "accounts", operation_id = "deleteAccount",
    params(("id" = AccountId, Path, description = "The account's id")),
    responses((status = 204), (status = 409, body = ErrorBody,
        description = "The account has something in use or has customers, or it is its owner's only account and \
            the owner asks for this or may not be deleted with it.")))]
async fn delete(State(accounts): State<Arc<Accounts>>, access: AccountAccess) -> Result<StatusCode> {
    service::delete(&accounts, &access).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Suspend an account: everything that it or its customers own is stopped (its reseller, the provider)
#[utoipa::path(post, path = "/accounts/{id}/suspend", tag = "accounts", operation_id = "suspendAccount",
    request_body = SuspendAccount, params(("id" = AccountId, Path, description = "The account's id")),
    responses((status = 200, body = AccountView)))]
async fn suspend(
    State(accounts): State<Arc<Accounts>>,
    AccountFromAbove(access): AccountFromAbove,
    Post(once, suspension): Post<SuspendAccount>,
) -> Result<Json<AccountView>> {
    Ok(Json(service::set_suspension(&accounts, &once, &access, Some(&suspension.reason)).await?))
}

/// End the suspension of an account: everything returns to its previous state (its reseller, the provider)
#[utoipa::path(post, path = "/accounts/{id}/unsuspend", tag = "accounts", operation_id = "unsuspendAccount",
    params(("id" = AccountId, Path, description = "The account's id")), responses((status = 200, body = AccountView)))]
async fn unsuspend(
    State(accounts): State<Arc<Accounts>>,
    AccountFromAbove(access): AccountFromAbove,
    once: Once,
) -> Result<Json<AccountView>> {
    Ok(Json(service::set_suspension(&accounts, &once, &access, None).await?))
}
