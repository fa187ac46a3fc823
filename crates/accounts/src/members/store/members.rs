//! SQL for members of accounts.

use kernel::auth::MemberRole;
use kernel::db;
use kernel::ids::{AccountId, UserId};
use kernel::listing::{COUNTED, Window};
use sqlx::{PgConnection, PgExecutor, PgPool};

use crate::members::model::Member;
use crate::store::Result;

/// A page of an account's members whose name or address contains `text`, the owner first, with their total.
pub(crate) async fn list(
    db: &PgPool,
    account: AccountId,
    text: Option<&str>,
    window: Window,
) -> Result<(Vec<Member>, i64)> {
    let mut tx = db::begin_list_query(db).await?;
    macro_rules! members {
        ($run:ident, $query:ident, ($($of:tt)*), $what:literal, $rest:literal $(, $more:expr)*) => {
            sqlx::$query!(
                $($of)*
                "select " + $what + " from account_roles r join users u on u.id = r.user_id
                     join accounts a on a.id = r.account_id
                     left join account_members m on m.account_id = r.account_id and m.user_id = r.user_id
                 where r.account_id = $1
                   and ($2::text is null or strpos(lower(u.name), lower($2)) > 0
                        or strpos(lower(u.email), lower($2)) > 0)" + $rest,
                account.0,
                text
                $(, $more)*
            )
            .$run(&mut *tx)
            .await?
        };
    }
    let rows = members!(
        fetch_all,
        query_as,
        (Member,),
        r#"u.id as "user_id: UserId", u.email, u.name, r.role as "role!: MemberRole",
           coalesce(m.created_at, a.created_at) as "since!""#,
        " order by r.role <> 'owner', lower(u.email) limit $3 offset $4",
        window.limit,
        window.offset
    );
    let total =
        members!(fetch_one, query_scalar, (), r#"count(*) as "n!" from (select 1"#, " limit $3) counted", COUNTED);
    Ok((rows, total))
}

/// A member of an account, who may be its owner.
pub(crate) async fn find(db: impl PgExecutor<'_>, account: AccountId, user: UserId) -> Result<Option<Member>> {
    sqlx::query_as!(
        Member,
        r#"select u.id as "user_id: UserId", u.email, u.name, r.role as "role!: MemberRole",
                  coalesce(m.created_at, a.created_at) as "since!"
           from account_roles r join users u on u.id = r.user_id join accounts a on a.id = r.account_id
           left join account_members m on m.account_id = r.account_id and m.user_id = r.user_id
           where r.account_id = $1 and r.user_id = $2"#,
        account.0,
        user.0
    )
    .fetch_optional(db)
    .await
}

/// The number of an account's members, without its owner.
pub(crate) async fn count(tx: &mut PgConnection, account: AccountId) -> Result<i64> {
    sqlx::query_scalar!(r#"select count(*) as "n!" from account_members where account_id = $1"#, account.0)
        .fetch_one(tx)
        .await
}

/// Makes a user a member with this role, or gives a member another one.
pub(crate) async fn set(tx: &mut PgConnection, account: AccountId, user: UserId, role: MemberRole) -> Result<()> {
    sqlx::query!(
        "insert into account_members (account_id, user_id, role) values ($1, $2, $3)
         on conflict (account_id, user_id) do update set role = excluded.role",
        account.0,
        user.0,
        role.as_str()
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Removes a member.
pub(crate) async fn delete(tx: &mut PgConnection, account: AccountId, user: UserId) -> Result<()> {
    sqlx::query!("delete from account_members where account_id = $1 and user_id = $2", account.0, user.0)
        .execute(tx)
        .await
        .map(drop)
}
