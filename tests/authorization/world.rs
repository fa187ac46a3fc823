//! The callers, and what the paths of routes name.

use serde_json::{Value, json};

use crate::support::app::signed_in;
use crate::support::{Client, TestApp, wait_for};

pub(super) struct World {
    pub(super) server: i64,
    pub(super) vmid: i64,
    pub(super) operation: String,
    pub(super) token: String,
    pub(super) tariff: i64,
    pub(super) image: i64,
    pub(super) host: i64,
    pub(super) pool: i64,
    pub(super) ssh_key: i64,
    pub(super) alert: i64,
    pub(super) mail: String,
    /// The owner's account, and a member of it.
    pub(super) account: i64,
    pub(super) member: i64,
    /// A user of whom nothing else is known.
    pub(super) user: i64,
    /// The owner's token for this server.
    pub(super) here: Client,
}

impl World {
    pub(super) async fn new(app: &TestApp, host: i64) -> Self {
        let db = &app.db.pool;
        let name = uuid::Uuid::new_v4().simple().to_string();
        let scalar =
            async |sql: String| -> i64 { sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(db).await.unwrap() };
        let tariff = scalar(format!(
            "insert into tariffs (name, kind, cores, memory_mib, disk_gib, price)
             values ('{name}', 'lxc', 1, 128, 1, 1) returning id"
        ))
        .await;
        let image = scalar(format!("insert into images (name, kind) values ('{name}', 'lxc') returning id")).await;
        let pool = scalar(format!(
            "insert into address_pools (host_id, name, cidr, first_address, last_address, bridge)
             values ({host}, '{name}', '10.9.0.0/24', '10.9.0.2', '10.9.0.200', 'b') returning id"
        ))
        .await;
        scalar(format!("insert into addresses (pool_id, address) values ({pool}, '10.9.0.9') returning pool_id")).await;
        let server = scalar(format!(
            "insert into servers (uuid, account_id, tariff_id, image_id, host_id, node, guest_number, kind, name,
                                  status, cores, memory_mib, disk_gib)
             values (gen_random_uuid(), {}, {tariff}, {image}, {host}, 'n', nextval('guest_numbers'), 'lxc', 's',
                     'stopped', 1, 128, 1) returning id",
            app.customer_account
        ))
        .await;
        let operation: String = sqlx::query_scalar(
            "insert into operations (id, subject_kind, subject_id, lane, kind, state, data, deadline, ended_at)
             values (gen_random_uuid(), 'server', $1::bigint::text, 'host', 'start', 'succeeded', 'null', now(), now())
             returning id::text",
        )
        .bind(server)
        .fetch_one(db)
        .await
        .unwrap();
        let token: String = sqlx::query_scalar(
            "insert into tokens (id, kind, hash, user_id, name, account_id)
             values (gen_random_uuid(), 'api', $1, $2, 't', $3) returning id::text",
        )
        .bind(&rand::random::<[u8; 32]>()[..])
        .bind(app.customer_id)
        .bind(app.customer_account)
        .fetch_one(db)
        .await
        .unwrap();
        let ssh_key = scalar(format!(
            "insert into ssh_keys (account_id, name, public_key, fingerprint) values ({}, 'k', 'k', '{name}')
             returning id",
            app.customer_account
        ))
        .await;
        let mail: String = sqlx::query_scalar(
            "insert into mails (id, event, recipient, subject, text_body, html_body, state, last_error)
             values (gen_random_uuid(), $1, 'customer@example.com', 's', 't', 'h', 'failed', 'e') returning id::text",
        )
        .bind(&name)
        .fetch_one(db)
        .await
        .unwrap();
        let (secret, hash) = kernel::secrets::new_token("ink_t_");
        sqlx::query(
            "insert into tokens (id, kind, hash, user_id, name, scopes, account_id)
             values (gen_random_uuid(), 'api', $1, $2, 'here', array['write:server:' || $3::bigint], $4)",
        )
        .bind(&hash[..])
        .bind(app.customer_id.0)
        .bind(server)
        .bind(app.customer_account.0)
        .execute(db)
        .await
        .unwrap();
        let here = app.nobody.with_token(secrecy::ExposeSecret::expose_secret(&secret));
        let vmid = scalar(format!("select guest_number from servers where id = {server}")).await;
        let alert = scalar(format!(
            "insert into alerts (kind, subject, server_id, host_id, level, value, raised_at)
             values ('cpu', 'server:{server}', {server}, {host}, 'critical', 1, now()) returning id"
        ))
        .await;
        for (table, columns, rest) in [
            (
                "alert_rules",
                "tariff_id, server_id, kind, enabled, warning, critical, clear, sustain_s, clear_sustain_s",
                ", true, 0.9, 0.95, 0.85, 60, 60",
            ),
            ("alert_mutes", "server_id, kind, until", ", now() + interval '1 day'"),
        ] {
            let keys: &[String] = match table {
                "alert_rules" => &["null, null".into(), format!("{tariff}, null"), format!("null, {server}")],
                _ => &["null".into(), server.to_string()],
            };
            for key in keys {
                let sql = format!("insert into {table} ({columns}) values ({key}, 'cpu'{rest}) on conflict do nothing");
                sqlx::query(sqlx::AssertSqlSafe(sql)).execute(db).await.unwrap();
            }
        }
        let user = scalar(format!(
            "with u as (insert into users (email, password_hash) values ('{name}@example.com', '-') returning id)
             insert into accounts (name, owner_id) select '{name}', id from u returning owner_id"
        ))
        .await;
        let account = app.customer_account.0;
        let member = scalar(format!(
            "insert into account_members (account_id, user_id, role) values ({account}, {user}, 'viewer')
             returning user_id"
        ))
        .await;
        Self {
            server,
            vmid,
            operation,
            token,
            tariff,
            image,
            host,
            pool,
            here,
            ssh_key,
            alert,
            mail,
            account,
            member,
            user,
        }
    }

    pub(super) fn fill(&self, path: &str) -> String {
        let id = match path {
            p if p.starts_with("/api/auth/tokens/") => self.token.clone(),
            // Not a login's id: tests/accounts.rs ends real ones.
            p if p.starts_with("/api/auth/sessions/") => self.token.clone(),
            p if p.starts_with("/api/tariffs/") => self.tariff.to_string(),
            p if p.starts_with("/api/images/") => self.image.to_string(),
            p if p.starts_with("/api/hosts/") => self.host.to_string(),
            p if p.starts_with("/api/address-pools/") => self.pool.to_string(),
            p if p.starts_with("/api/ssh-keys/") => self.ssh_key.to_string(),
            p if p.starts_with("/api/operations/") => self.operation.clone(),
            p if p.starts_with("/api/alerts/") => self.alert.to_string(),
            p if p.starts_with("/api/mails/") => self.mail.clone(),
            p if p.starts_with("/api/accounts/") => self.account.to_string(),
            p if p.starts_with("/api/users/") => self.user.to_string(),
            _ => self.server.to_string(),
        };
        path.replace("{id}", &id)
            .replace("{address}", "10.9.0.9")
            .replace("{type}", "cpu")
            .replace("{number}", "4711")
            .replace("{userId}", &self.member.to_string())
    }

    pub(super) fn body(&self, method: &str, path: &str) -> Option<Value> {
        match (method, path) {
            ("POST", "/api/auth/register" | "/api/auth/browser/register") => {
                Some(json!({ "email": "a@example.com", "password": "a long password" }))
            }
            ("POST", "/api/server/console") => Some(json!({ "vmid": self.vmid })),
            ("POST" | "PUT" | "PATCH", _) => Some(json!({ "no such field": true })),
            ("DELETE", "/api/server/{id}/snapshots") => Some(json!({ "no such field": true })),
            _ => None,
        }
    }
}

/// A host that doesn't answer: authorisation comes before any call to a host.
pub(super) async fn host(app: &TestApp) -> i64 {
    let config = json!({ "socket": "/nowhere/incus.socket", "project": "p", "storagePool": "s" });
    let host = json!({ "name": "h", "kind": "incus", "config": config, "force": true });
    app.provider.post("/api/hosts", host).await.expect(201).body["id"].as_i64().unwrap()
}

/// Those who act for the owner's account, or look at it.
pub(super) struct Others {
    pub(super) members: [Client; 4],
    pub(super) reseller: Client,
    pub(super) support: Client,
    pub(super) billing: Client,
}

impl Others {
    pub(super) async fn new(app: &TestApp) -> Self {
        let account = app.customer_account;
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
            "with u as (insert into users (email, staff_role, password_hash)
                        select name || '@example.com',
                               case name when 'support' then 'support' when 'ledger' then 'billing' end,
                               (select password_hash from users where email = 'customer@example.com')
                        from unnest('{{admin,member,billing,viewer,reseller,support,ledger}}'::text[]) name
                        returning id, email)
             insert into accounts (name, owner_id, kind, server_limit)
             select email, id, case email when 'reseller@example.com' then 'reseller' else 'customer' end, null from u;
             insert into account_members (account_id, user_id, role)
             select {account}, id, split_part(email, '@', 1) from users
             where email in ('admin@example.com', 'member@example.com', 'billing@example.com', 'viewer@example.com');
             update accounts set parent_id = (select id from accounts where kind = 'reseller') where id = {account};"
        )))
        .execute(&app.db.pool)
        .await
        .unwrap();
        let own = async |who: &str| signed_in(&app.db, &app.nobody, &format!("{who}@example.com")).await;
        let acting = async |who: &str| own(who).await.acting_for(account);
        Self {
            members: [acting("admin").await, acting("member").await, acting("billing").await, acting("viewer").await],
            reseller: own("reseller").await,
            support: own("support").await,
            billing: own("ledger").await,
        }
    }
}

/// The owner's API tokens.
pub(super) struct Tokens {
    pub(super) read_only: Client,
    pub(super) elsewhere: Client,
    pub(super) revoked: Client,
    pub(super) ended: Client,
}

impl Tokens {
    pub(super) async fn new(app: &TestApp) -> Self {
        let (revoked, id) = token(app, "write").await;
        app.customer.delete(&format!("/api/auth/tokens/{id}")).await.expect(204);
        let (ended, id) = token(app, "write").await;
        ended.get("/api/server").await.expect(200);
        sqlx::query("update tokens set expires_at = now() where id = $1::uuid")
            .bind(id)
            .execute(&app.db.pool)
            .await
            .unwrap();
        // The service is notified; from then on the token is looked up again.
        wait_for("a token's expiry", async || match ended.get("/api/server").await.status {
            200 => None,
            status => Some(status),
        })
        .await;
        let (read_only, elsewhere) = (token(app, "read").await.0, token(app, "write:server:999999").await.0);
        Self { read_only, elsewhere, revoked, ended }
    }
}

pub(super) async fn token(app: &TestApp, scope: &str) -> (Client, String) {
    let made = app.customer.post("/api/auth/tokens", json!({ "name": "t", "scopes": [scope] })).await.expect(201);
    (app.nobody.with_token(made.body["token"].as_str().unwrap()), made.body["id"].as_str().unwrap().to_owned())
}
