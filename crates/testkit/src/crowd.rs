//! Twenty accounts with a member in every role. The first is a reseller, whose customers are the next two.

use kernel::ids::AccountId;
use sqlx::AssertSqlSafe;

use crate::app::signed_in;
use crate::{Client, TestApp};

/// Every role in an account.
pub const MEMBER_ROLES: [&str; 5] = ["owner", "admin", "member", "billing", "viewer"];

/// The number of accounts.
pub const ACCOUNTS: usize = 20;

/// The accounts of a crowd, the reseller first.
pub struct Crowd {
    pub accounts: Vec<AccountId>,
}

impl Crowd {
    /// Adds them to the service's database. No account has a limit.
    pub async fn new(app: &TestApp) -> Self {
        let db = &app.db.pool;
        let roles = MEMBER_ROLES.join(",");
        sqlx::raw_sql(AssertSqlSafe(format!(
            "insert into users (email, password_hash, confirmed_at)
             select role || '-' || n || '@example.com', '-', now()
             from generate_series(0, {ACCOUNTS} - 1) n, unnest('{{{roles}}}'::text[]) role;
             -- Their own accounts come later, so that nobody's account of the crowd is the one that they act for
             -- anyway.
             insert into accounts (kind, name, owner_id, server_limit)
             select case when n = 0 then 'reseller' else 'customer' end, 'account ' || n, u.id, null
             from generate_series(0, {ACCOUNTS} - 1) n join users u on u.email = 'owner-' || n || '@example.com'
             order by n;
             insert into accounts (name, owner_id)
             select email, id from users where email ~ '^(admin|member|billing|viewer)-\\d+@';
             update users u set account_id = a.id from accounts a where a.owner_id = u.id;
             insert into account_members (account_id, user_id, role)
             select a.id, u.id, split_part(u.email, '-', 1)
             from accounts a join users u on u.email ~ ('^(admin|member|billing|viewer)-' || substr(a.name, 9) || '@')
             where a.name like 'account %';
             update accounts set parent_id = (select id from accounts where name = 'account 0')
             where name in ('account 1', 'account 2');"
        )))
        .execute(db)
        .await
        .expect("the crowd");
        let accounts: Vec<i64> =
            sqlx::query_scalar("select id from accounts where name like 'account %' order by substr(name, 9)::int")
                .fetch_all(db)
                .await
                .expect("its accounts");
        Self { accounts: accounts.into_iter().map(AccountId).collect() }
    }

    /// The member of an account in a role, acting for it.
    pub async fn member(&self, app: &TestApp, account: usize, role: &str) -> Client {
        let client = signed_in(&app.db, &app.nobody, &format!("{role}-{account}@example.com")).await;
        client.acting_for(self.accounts[account])
    }
}
