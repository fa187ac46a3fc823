//! What is true once a writing request was reported as done, as SQL.

use reqwest::Method;
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};

use crate::client::Response;
use crate::writes::Write;

/// What one answer promised.
pub struct Told {
    /// The request, for people.
    pub what: String,
    /// Whether it stays so: no later request of the list takes it back.
    pub lasts: bool,
    sql: String,
    values: [String; 5],
}

impl Told {
    /// Whether it is so now, for everybody.
    pub async fn is_true(&self, db: &PgPool) -> bool {
        let [id, made, tag, secret, alert] = &self.values;
        let asked = sqlx::query_scalar(AssertSqlSafe(self.sql.as_str())).bind(id).bind(made).bind(tag);
        asked.bind(secret).bind(alert).fetch_one(db).await.unwrap_or_else(|error| panic!("{}: {error}", self.what))
    }
}

/// What an answer promises that reports success.
pub fn told(write: &Write, answer: &Response) -> Told {
    let what = format!("{} {}", write.method, write.route);
    let (lasts, condition) = promise(&write.method, write.route);
    let body = &answer.body;
    let made = ["id", "operationId"].iter().map(|key| &body[*key]).chain([&body["user"]["id"]]);
    let made = made.filter(|id| !id.is_null()).map(plain).next().unwrap_or_default();
    let ticket = body["url"].as_str().and_then(|url| url.rsplit_once('#')).map(|(_, ticket)| ticket);
    let cookie = write.by.headers.get("cookie").and_then(|cookie| cookie.to_str().ok()?.split('=').nth(1));
    let secret = body["accessToken"].as_str().or(ticket).or(write.by.token.as_deref()).or(cookie).unwrap_or_default();
    let values = [write.id.as_str(), &made, write.world.tag, secret, write.world.alert].map(str::to_owned);
    Told { what, lasts, sql: format!("select {condition}"), values }
}

fn plain(id: &Value) -> String {
    id.as_str().map_or_else(|| id.to_string(), str::to_owned)
}

/// In all of these, `$1` is what the path names, `$2` what the answer says was made or begun, `$3` the end of the
/// names, `$4` the secret in the answer or else the token of the request, `$5` the alert of the rules.
const SECRET: &str = "sha256(convert_to($4, 'UTF8'))";

/// It is there.
fn made(table: &str) -> String {
    format!("exists (select from {table} where id::text = $2)")
}

/// It was changed so that this holds.
fn has(table: &str, condition: &str) -> String {
    format!("exists (select from {table} where id::text = $1 and {condition})")
}

/// It is no longer there.
fn gone(table: &str) -> String {
    format!("not exists (select from {table} where id::text = $1)")
}

/// This holds for the user who asked.
fn me(condition: &str) -> String {
    format!("exists (select from users u join tokens t on t.user_id = u.id where t.hash = {SECRET} and {condition})")
}

/// Whether it lasts, and what it is.
fn promise(method: &Method, route: &str) -> (bool, String) {
    let exists = |rows: &str| format!("exists (select from {rows})");
    let none = |rows: &str| format!("not exists (select from {rows})");
    let token = exists(&format!("tokens where hash = {SECRET}"));
    let member = "account_members m join users u on u.id = m.user_id
                  where m.account_id::text = $1 and u.email = 'fellow' || $3 || '@example.com'";
    let reserved = "addresses where pool_id::text = $1 and server_id is null";
    let own_rule = "alert_rules where kind = $5 and tariff_id is null and server_id is null";
    let tariff_rule = "alert_rules where kind = $5 and tariff_id::text = $1";
    let server_rule = "alert_rules where kind = $5 and server_id::text = $1";
    let (own_mute, server_mute) =
        ("alert_mutes where kind = $5 and server_id is null", "alert_mutes where server_id::text = $1");
    let lasts = |condition: String| (true, condition);
    let passes = |condition: String| (false, condition);
    match format!("{method} {route}").as_str() {
        "POST /api/auth/register" | "POST /api/auth/browser/register" | "POST /api/users" => lasts(made("users")),
        "POST /api/auth/login"
        | "POST /api/auth/refresh"
        | "POST /api/auth/login-link"
        | "POST /api/auth/browser/login"
        | "POST /api/auth/browser/refresh" => lasts(token),
        "POST /api/auth/logout" | "POST /api/auth/browser/logout" => lasts(exists(&format!(
            "sessions s join tokens t on t.session_id = s.id where t.hash = {SECRET} and s.revoked_at is not null"
        ))),
        "POST /api/auth/confirm" => {
            lasts(exists("users where email = 'doubtful' || $3 || '@example.com' and confirmed_at is not null"))
        }
        "POST /api/auth/confirm/mail" => {
            lasts(me("exists (select from address_confirmations c where c.user_id = u.id)"))
        }
        "DELETE /api/auth/sessions/{id}" => lasts(has("sessions", "revoked_at is not null")),
        "DELETE /api/auth/sessions" => {
            let other = "sessions s where s.user_id = u.id and s.id <> t.session_id and s.revoked_at is null";
            lasts(me(&none(other)))
        }
        "PATCH /api/auth/me" => lasts(me("u.alert_mails = 'critical'")),
        "POST /api/auth/tokens" => lasts(made("tokens")),
        "DELETE /api/auth/tokens/{id}" => lasts(has("tokens", "revoked_at is not null")),
        "POST /api/auth/password" => {
            lasts(me("u.password_hash <> (select password_hash from users where email = 'provider@example.com')"))
        }
        "PATCH /api/users/{id}" => lasts(has("users", "name = 'Idle'")),
        "POST /api/users/{id}/login-link" => lasts(exists("login_links where user_id::text = $1")),
        "DELETE /api/users/{id}/sessions" => lasts(none("sessions where user_id::text = $1 and revoked_at is null")),
        "DELETE /api/users/{id}" => lasts(none("users where id::text = $1 and deleted_at is null")),
        "POST /api/accounts" => lasts(made("accounts")),
        "PATCH /api/accounts/{id}" => lasts(has("accounts", "name = 'Renamed'")),
        "POST /api/accounts/{id}/suspend" => passes(has("accounts", "suspended_at is not null")),
        "POST /api/accounts/{id}/unsuspend" => lasts(has("accounts", "suspended_at is null")),
        "POST /api/accounts/{id}/members" => passes(exists(&format!("{member} and m.role = 'viewer'"))),
        "PATCH /api/accounts/{id}/members/{userId}" => passes(exists(&format!("{member} and m.role = 'admin'"))),
        "DELETE /api/accounts/{id}/members/{userId}" => lasts(none(member)),
        "DELETE /api/accounts/{id}" => lasts(none("accounts where id::text = $1 and deleted_at is null")),
        "POST /api/tariffs" => lasts(made("tariffs")),
        "PUT /api/tariffs/{id}" => passes(has("tariffs", "price = 2")),
        "DELETE /api/tariffs/{id}" => lasts(gone("tariffs")),
        "PUT /api/tariffs/{id}/alert-rules/{type}" => passes(exists(tariff_rule)),
        "DELETE /api/tariffs/{id}/alert-rules/{type}" => lasts(none(tariff_rule)),
        "POST /api/images" => lasts(made("images")),
        "PUT /api/images/{id}" => passes(has("images", "not enabled")),
        "DELETE /api/images/{id}" => lasts(gone("images")),
        "POST /api/hosts" => lasts(made("hosts")),
        "PUT /api/hosts/{id}" => passes(has("hosts", "not enabled")),
        "DELETE /api/hosts/{id}" => lasts(gone("hosts")),
        "POST /api/hosts/{id}/check" => lasts(has("hosts", "seen_at is not null")),
        "POST /api/address-pools" => lasts(made("address_pools")),
        "PUT /api/address-pools/{id}" => passes(has("address_pools", "not enabled")),
        "POST /api/address-pools/{id}/reserve" => passes(exists(reserved)),
        "DELETE /api/address-pools/{id}/reserve/{address}" => lasts(none(reserved)),
        "DELETE /api/address-pools/{id}" => lasts(gone("address_pools")),
        "POST /api/ssh-keys" => lasts(made("ssh_keys")),
        "DELETE /api/ssh-keys/{id}" => lasts(gone("ssh_keys")),
        "POST /api/alerts/{id}/acknowledge" => lasts(has("alerts", "acknowledged_at is not null")),
        "PUT /api/alert-rules/{type}" => passes(exists(own_rule)),
        "DELETE /api/alert-rules/{type}" => lasts(none(own_rule)),
        "POST /api/alert-rules/{type}/mute" => passes(exists(own_mute)),
        "DELETE /api/alert-rules/{type}/mute" => lasts(none(own_mute)),
        "PUT /api/server/{id}/alert-rules/{type}" => passes(exists(server_rule)),
        "DELETE /api/server/{id}/alert-rules/{type}" => lasts(none(server_rule)),
        "POST /api/server/{id}/mute" => passes(exists(server_mute)),
        "DELETE /api/server/{id}/mute" => lasts(none(server_mute)),
        "POST /api/operations/{id}/retry" => lasts(has("operations", "state <> 'stuck'")),
        "POST /api/operations/{id}/abandon" => lasts(has("operations", "state = 'failed'")),
        "POST /api/mails/{id}/retry" => lasts(has("mails", "state <> 'failed'")),
        "POST /api/server/create" | "POST /api/hosts/{id}/unknown-guests/{number}/adopt" => lasts(made("servers")),
        "POST /api/server/console" => passes(exists(&format!("consoles where ticket = {SECRET}"))),
        "PATCH /api/server/{id}" => lasts(has("servers", "labels ->> 'tier' = 'web'")),
        "PUT /api/server/{id}/addresses/{address}" => {
            passes(exists("addresses where server_id::text = $1 and reverse_dns = 'mail.example.com'"))
        }
        "POST /api/server/{id}/suspend" => passes(has("servers", "suspended_at is not null")),
        "POST /api/server/{id}/unsuspend" => lasts(has("servers", "suspended_at is null")),
        // Whatever else changes a server is accepted as an operation.
        other if route.starts_with("/api/server/{id}") => {
            assert!(["POST", "PUT", "DELETE"].contains(&method.as_str()), "{other}: what does it promise?");
            lasts(made("operations"))
        }
        other => panic!("{other}: what does it promise?"),
    }
}
