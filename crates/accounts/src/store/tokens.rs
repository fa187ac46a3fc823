//! SQL for access and API tokens.

use chrono::{DateTime, Utc};
use kernel::auth::{Caller, MemberRole, Scopes, StaffRole};
use kernel::ids::{AccountId, UserId};
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::Result;
use crate::members::model::AccountKind;
use crate::model::ApiToken;

/// A live access or API token, with its user and the account that they act for.
pub(crate) struct TokenRow {
    pub id: Uuid,
    pub user: UserId,
    pub staff: Option<StaffRole>,
    pub session: Option<Uuid>,
    pub opened_by: Option<UserId>,
    pub read_only: bool,
    pub scopes: Vec<String>,
    pub account: Option<AccountId>,
    pub role: Option<MemberRole>,
    pub kind: Option<AccountKind>,
    pub reseller: Option<AccountId>,
    pub from_above: bool,
    pub token_account: Option<AccountId>,
    pub suspended: Option<String>,
    pub stale_use: bool,
    /// Seconds until it expires, if it does.
    pub seconds_left: Option<f64>,
}

impl TokenRow {
    /// Who shows it; `None` if there is no account that they could act for.
    pub(crate) fn caller(&self) -> Option<Caller> {
        Some(Caller {
            user: self.user,
            staff: self.staff,
            account: self.account?,
            role: self.role?,
            is_reseller: self.kind == Some(AccountKind::Reseller),
            reseller: self.reseller,
            from_above: self.from_above,
            token_account: self.token_account,
            suspended: self.suspended.clone(),
            token: self.id,
            session: self.session,
            opened_by: self.opened_by,
            scopes: scopes(self.session, self.read_only, &self.scopes),
        })
    }
}

/// What a token may do. A login may do everything, unless it is there only to look.
fn scopes(session: Option<Uuid>, read_only: bool, stored: &[String]) -> Scopes {
    match (session, read_only) {
        (Some(_), false) => Scopes::All,
        (Some(_), true) => Scopes::from_stored(&["read".to_owned()]),
        (None, _) => Scopes::from_stored(stored),
    }
}

/// The live token with this hash, acting for this account; without one for its own. A login that staff opened lives
/// only as long as they are staff who may open one, and its user is not.
pub(crate) async fn live_token(db: &PgPool, hash: &[u8; 32], account: Option<AccountId>) -> Result<Option<TokenRow>> {
    sqlx::query_as!(
        TokenRow,
        r#"select t.id, t.user_id as "user: UserId", u.staff_role as "staff: StaffRole", t.session_id as session,
                  s.opened_by as "opened_by?: UserId", t.scopes,
                  coalesce(s.read_only or o.staff_role <> 'admin', false) as "read_only!",
                  a.account_id as "account?: AccountId", a.role as "role?: MemberRole",
                  a.kind as "kind?: AccountKind", a.parent_id as "reseller?: AccountId",
                  coalesce(a.from_above, false) as "from_above!", t.account_id as "token_account: AccountId",
                  a.suspend_reason as "suspended?",
                  (t.kind = 'api' and (t.last_used_at is null
                      or t.last_used_at not between now() - interval '1 minute' and now()))
                      as "stale_use!",
                  extract(epoch from least(t.expires_at, s.expires_at) - now())::float8 as seconds_left
           from tokens t join users u on u.id = t.user_id left join sessions s on s.id = t.session_id
           left join users o on o.id = s.opened_by
           left join lateral acting_for(u.id, u.staff_role, t.account_id, $2) a on true
           where t.hash = $1 and t.kind in ('access', 'api') and t.revoked_at is null
             and (t.expires_at is null or t.expires_at > now())
             and (s.id is null or (s.revoked_at is null and s.expires_at > now()))
             and u.disabled_at is null
             and (s.opened_by is null or (o.disabled_at is null and o.staff_role in ('admin', 'support')
                                          and u.staff_role is null))"#,
        &hash[..],
        account.map(|id| id.0)
    )
    .fetch_optional(db)
    .await
}

/// Those callers that are still authenticated, with their current rights in the account that each acts for. A login
/// lives as long as its session, even if the access token it was opened with has expired; an API token has a lifetime
/// of its own.
pub(crate) async fn live_callers(db: &PgPool, callers: &[Caller]) -> Result<Vec<Caller>> {
    let tokens: Vec<Uuid> = callers.iter().map(|c| c.token).collect();
    let sessions: Vec<Option<Uuid>> = callers.iter().map(|c| c.session).collect();
    let accounts: Vec<i64> = callers.iter().map(|c| c.account.0).collect();
    let rows = sqlx::query!(
        r#"select distinct g.token as "token!", g.session, u.id as "user: UserId", u.staff_role as "staff: StaffRole",
                  s.opened_by as "opened_by?: UserId",
                  coalesce(s.read_only or o.staff_role <> 'admin', false) as "read_only!",
                  coalesce(t.scopes, '{}') as "scopes!", a.account_id as "account!: AccountId",
                  a.role as "role!: MemberRole", a.kind = 'reseller' as "is_reseller!",
                  a.parent_id as "reseller?: AccountId", a.from_above as "from_above!",
                  t.account_id as "token_account?: AccountId", a.suspend_reason as "suspended?"
           from unnest($1::uuid[], $2::uuid[], $3::bigint[]) as g (token, session, account)
           left join tokens t on t.id = g.token
           left join sessions s on s.id = g.session
           left join users o on o.id = s.opened_by
           join users u on u.id = coalesce(s.user_id, t.user_id)
           cross join lateral acting_for(u.id, u.staff_role, t.account_id, g.account) a
           where u.disabled_at is null and t.revoked_at is null
             and (s.opened_by is null or (o.disabled_at is null and o.staff_role in ('admin', 'support')
                                          and u.staff_role is null))
             and case when g.session is null then t.id is not null and (t.expires_at is null or t.expires_at > now())
                      else s.revoked_at is null and s.expires_at > now() end"#,
        &tokens,
        &sessions as &[Option<Uuid>],
        &accounts
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| Caller {
            user: r.user,
            staff: r.staff,
            account: r.account,
            role: r.role,
            is_reseller: r.is_reseller,
            reseller: r.reseller,
            from_above: r.from_above,
            token_account: r.token_account,
            suspended: r.suspended,
            token: r.token,
            session: r.session,
            opened_by: r.opened_by,
            scopes: scopes(r.session, r.read_only, &r.scopes),
        })
        .collect())
}

/// Records that an API token was used. Skipped if the row is locked: that transaction records something better.
pub(crate) async fn touch_token(db: &PgPool, token: Uuid) -> Result<()> {
    sqlx::query!(
        "update tokens set last_used_at = now()
         where id = (select id from tokens where id = $1 for no key update skip locked)",
        token
    )
    .execute(db)
    .await
    .map(drop)
}

pub(crate) async fn insert_api_token(
    db: impl PgExecutor<'_>,
    (user, account): (UserId, AccountId),
    hash: &[u8; 32],
    name: &str,
    scopes: &[String],
    expires_at: Option<DateTime<Utc>>,
) -> Result<ApiToken> {
    sqlx::query_as!(
        ApiToken,
        r#"insert into tokens (id, kind, hash, user_id, name, scopes, expires_at, account_id)
           values ($1, 'api', $2, $3, $4, $5, $6, $7)
           returning id, name as "name!", account_id as "account_id!: AccountId", scopes, created_at, expires_at,
                     last_used_at"#,
        Uuid::now_v7(),
        &hash[..],
        user.0,
        name,
        scopes,
        expires_at,
        account.0
    )
    .fetch_one(db)
    .await
}

pub(crate) async fn api_tokens(db: impl PgExecutor<'_>, user: UserId) -> Result<Vec<ApiToken>> {
    sqlx::query_as!(
        ApiToken,
        r#"select id, name as "name!", account_id as "account_id!: AccountId", scopes, created_at, expires_at,
                  last_used_at
           from tokens
           where user_id = $1 and kind = 'api' and revoked_at is null and (expires_at is null or expires_at > now())
           order by id"#,
        user.0
    )
    .fetch_all(db)
    .await
}

/// Revokes a user's own API token; false if it does not exist.
pub(crate) async fn revoke_api_token(tx: &mut PgConnection, user: UserId, token: Uuid) -> Result<bool> {
    let done = sqlx::query!(
        "update tokens set revoked_at = now() where id = $1 and user_id = $2 and kind = 'api' and revoked_at is null",
        token,
        user.0
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Revokes the API tokens of an account: all of them, or those of one user.
pub(crate) async fn revoke_of_account(tx: &mut PgConnection, account: AccountId, user: Option<UserId>) -> Result<()> {
    sqlx::query!(
        "update tokens set revoked_at = now()
         where account_id = $1 and ($2::bigint is null or user_id = $2) and kind = 'api' and revoked_at is null",
        account.0,
        user.map(|id| id.0)
    )
    .execute(tx)
    .await
    .map(drop)
}
