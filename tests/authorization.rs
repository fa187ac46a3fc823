//! Who may call what: every route × every method × every role. A route that is missing here fails the test.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::app::login;
use crate::support::parts::Part;
use crate::support::{Client, TestApp};

/// The result of a route's authorisation for a caller. `Ok` is whatever comes after it, bad input included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Ok,
    /// 401
    SignIn,
    /// 403
    Forbidden,
    /// 404
    Hidden,
}
use To::{Forbidden, Hidden, Ok, SignIn};

/// Nobody, the owner of what the path names, another customer, the provider, the owner's read-only token, the owner's
/// tokens for another server and for this one, a revoked token, an expired one.
type Row = (&'static str, &'static str, [To; ROLES]);
const ROLES: usize = 9;

const OPEN: [To; ROLES] = [Ok; ROLES];
const ANYONE: [To; ROLES] = [SignIn, Ok, Ok, Ok, Ok, Ok, Ok, SignIn, SignIn];
const ACCOUNT_READ: [To; ROLES] = [SignIn, Ok, Ok, Ok, Ok, Forbidden, Forbidden, SignIn, SignIn];
const ACCOUNT_WRITE: [To; ROLES] = [SignIn, Ok, Ok, Ok, Forbidden, Forbidden, Forbidden, SignIn, SignIn];
const LOGIN: [To; ROLES] = ACCOUNT_WRITE;
const OWN_TOKEN: [To; ROLES] = [SignIn, Ok, Hidden, Hidden, Forbidden, Forbidden, Forbidden, SignIn, SignIn];
const PROVIDER: [To; ROLES] = [SignIn, Forbidden, Forbidden, Ok, Forbidden, Forbidden, Forbidden, SignIn, SignIn];
const OWNED_READ: [To; ROLES] = [SignIn, Ok, Hidden, Ok, Ok, Hidden, Ok, SignIn, SignIn];
const OWNED_WRITE: [To; ROLES] = [SignIn, Ok, Hidden, Ok, Forbidden, Hidden, Ok, SignIn, SignIn];

const MATRIX: &[Row] = &[
    ("GET", "/health/live", OPEN),
    ("GET", "/health/ready", OPEN),
    ("GET", "/metrics", [Hidden; ROLES]),
    ("GET", "/console/socket", OPEN), // authorised by the ticket in its first message
    ("POST", "/api/auth/register", [Forbidden; ROLES]), // closed by default, for everyone
    ("POST", "/api/auth/login", OPEN),
    ("POST", "/api/auth/refresh", OPEN),
    ("POST", "/api/auth/logout", LOGIN),
    ("GET", "/api/auth/me", ANYONE),
    ("PATCH", "/api/auth/me", ACCOUNT_WRITE),
    ("POST", "/api/auth/password", LOGIN),
    ("GET", "/api/auth/sessions", LOGIN),
    ("DELETE", "/api/auth/sessions", LOGIN),
    (
        "DELETE",
        "/api/auth/sessions/{id}",
        [SignIn, Hidden, Hidden, Hidden, Forbidden, Forbidden, Forbidden, SignIn, SignIn],
    ),
    ("POST", "/api/auth/confirm", OPEN),
    ("POST", "/api/auth/confirm/mail", LOGIN),
    ("GET", "/api/auth/tokens", LOGIN),
    ("POST", "/api/auth/tokens", LOGIN),
    ("DELETE", "/api/auth/tokens/{id}", OWN_TOKEN),
    ("GET", "/api/tariffs", ACCOUNT_READ),
    ("POST", "/api/tariffs", PROVIDER),
    ("GET", "/api/tariffs/{id}", ACCOUNT_READ),
    ("PUT", "/api/tariffs/{id}", PROVIDER),
    ("DELETE", "/api/tariffs/{id}", PROVIDER),
    ("GET", "/api/images", ACCOUNT_READ),
    ("POST", "/api/images", PROVIDER),
    ("GET", "/api/images/{id}", ACCOUNT_READ),
    ("PUT", "/api/images/{id}", PROVIDER),
    ("DELETE", "/api/images/{id}", PROVIDER),
    ("GET", "/api/hosts", PROVIDER),
    ("POST", "/api/hosts", PROVIDER),
    ("GET", "/api/hosts/{id}", PROVIDER),
    ("PUT", "/api/hosts/{id}", PROVIDER),
    ("DELETE", "/api/hosts/{id}", PROVIDER),
    ("POST", "/api/hosts/{id}/check", PROVIDER),
    ("GET", "/api/hosts/{id}/unknown-guests", PROVIDER),
    ("POST", "/api/hosts/{id}/unknown-guests/{number}/adopt", PROVIDER),
    ("GET", "/api/address-pools", PROVIDER),
    ("POST", "/api/address-pools", PROVIDER),
    ("GET", "/api/address-pools/{id}", PROVIDER),
    ("PUT", "/api/address-pools/{id}", PROVIDER),
    ("DELETE", "/api/address-pools/{id}", PROVIDER),
    ("GET", "/api/address-pools/{id}/addresses", PROVIDER),
    ("POST", "/api/address-pools/{id}/reserve", PROVIDER),
    ("DELETE", "/api/address-pools/{id}/reserve/{address}", PROVIDER),
    ("GET", "/api/server", ANYONE),
    ("POST", "/api/server/create", ACCOUNT_WRITE),
    ("GET", "/api/server/{id}", OWNED_READ),
    ("DELETE", "/api/server/{id}", OWNED_WRITE),
    ("GET", "/api/server/{id}/status", OWNED_READ),
    ("GET", "/api/server/{id}/metrics", OWNED_READ),
    ("GET", "/api/server/{id}/traffic", OWNED_READ),
    ("POST", "/api/server/{id}/start", OWNED_WRITE),
    ("POST", "/api/server/{id}/stop", OWNED_WRITE),
    ("POST", "/api/server/{id}/restart", OWNED_WRITE),
    ("POST", "/api/server/{id}/password", OWNED_WRITE),
    ("GET", "/api/server/{id}/operations", OWNED_READ),
    ("PATCH", "/api/server/{id}", OWNED_WRITE),
    ("PUT", "/api/server/{id}/resize", OWNED_WRITE),
    ("POST", "/api/server/{id}/reinstall", OWNED_WRITE),
    ("POST", "/api/server/{id}/suspend", PROVIDER),
    ("POST", "/api/server/{id}/unsuspend", PROVIDER),
    ("GET", "/api/server/{id}/snapshots", OWNED_READ),
    ("POST", "/api/server/{id}/snapshots", OWNED_WRITE),
    ("DELETE", "/api/server/{id}/snapshots", OWNED_WRITE),
    ("POST", "/api/server/{id}/snapshots/rollback", OWNED_WRITE),
    ("GET", "/api/server/{id}/addresses", OWNED_READ),
    ("PUT", "/api/server/{id}/addresses/{address}", OWNED_WRITE),
    ("GET", "/api/ssh-keys", ACCOUNT_READ),
    ("POST", "/api/ssh-keys", ACCOUNT_WRITE),
    ("DELETE", "/api/ssh-keys/{id}", OWN_TOKEN),
    ("POST", "/api/server/console", OWNED_WRITE), // the server is named in the body
    ("GET", "/api/operations", PROVIDER),
    ("GET", "/api/operations/{id}", OWNED_READ),
    ("GET", "/api/operations/{id}/log", PROVIDER),
    ("POST", "/api/operations/{id}/retry", PROVIDER),
    ("POST", "/api/operations/{id}/abandon", PROVIDER),
    ("GET", "/api/mails", PROVIDER),
    ("POST", "/api/mails/{id}/retry", PROVIDER),
    ("GET", "/api/audit", ACCOUNT_READ),
    ("GET", "/api/audit/refused", ACCOUNT_READ),
    ("GET", "/api/alerts", ANYONE),
    ("GET", "/api/alerts/{id}", OWNED_READ),
    ("POST", "/api/alerts/{id}/acknowledge", OWNED_WRITE),
    ("GET", "/api/alert-rules", PROVIDER),
    ("PUT", "/api/alert-rules/{type}", PROVIDER),
    ("DELETE", "/api/alert-rules/{type}", PROVIDER),
    ("POST", "/api/alert-rules/{type}/mute", PROVIDER),
    ("DELETE", "/api/alert-rules/{type}/mute", PROVIDER),
    ("GET", "/api/tariffs/{id}/alert-rules", PROVIDER),
    ("PUT", "/api/tariffs/{id}/alert-rules/{type}", PROVIDER),
    ("DELETE", "/api/tariffs/{id}/alert-rules/{type}", PROVIDER),
    ("GET", "/api/server/{id}/alert-rules", OWNED_READ),
    ("PUT", "/api/server/{id}/alert-rules/{type}", OWNED_WRITE),
    ("DELETE", "/api/server/{id}/alert-rules/{type}", OWNED_WRITE),
    ("POST", "/api/server/{id}/mute", OWNED_WRITE),
    ("DELETE", "/api/server/{id}/mute", OWNED_WRITE),
];

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_is_in_the_matrix() {
    let app = TestApp::new().await;
    let document = app.nobody.get("/api/openapi.json").await.expect(200).body;
    let mut routes = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys().filter(|m| *m != "parameters") {
            routes.insert((method.to_uppercase(), path.clone()));
        }
    }
    let listed: BTreeSet<_> = MATRIX.iter().map(|(m, p, _)| (m.to_string(), p.to_string())).collect();
    assert_eq!(routes, listed, "every route has a row here, and every row a route");
}

mod every_route_admits_only_the_right_callers {
    for_each_part!(super::walk);
}

async fn walk(part: Part) {
    let app = TestApp::new().await;
    // Only the answers matter, not what becomes of the operations.
    app.db.allow_unfinished();
    let host = host(&app).await;
    let tokens = Tokens::new(&app).await;
    for (method, path, expected) in MATRIX.iter().filter(|(_, path, _)| part.has(path)) {
        let mut world = World::new(&app, host).await;
        for (n, to) in expected.iter().enumerate() {
            if *method != "GET" && n > 0 && expected[n - 1] == Ok {
                // The previous cell may have deleted or locked something.
                world = World::new(&app, host).await;
            }
            let callers: [&Client; ROLES] = [
                &app.nobody,
                &app.customer,
                &app.other,
                &app.provider,
                &tokens.read_only,
                &tokens.elsewhere,
                &world.here,
                &tokens.revoked,
                &tokens.ended,
            ];
            let logs_out = path.ends_with("/logout");
            let fresh;
            let caller = if logs_out && matches!(n, 1..=3) {
                let who = ["customer", "other", "provider"][n - 1];
                fresh = login(&app.nobody, &format!("{who}@example.com")).await;
                &fresh
            } else {
                callers[n]
            };
            let answer = caller.send(method.parse().unwrap(), &world.fill(path), world.body(method, path)).await;
            let got = match answer.status {
                401 if !path.contains("/login") && !path.contains("/refresh") => SignIn,
                403 => Forbidden,
                404 => Hidden,
                status => {
                    assert!(status < 500 || matches!(status, 503 | 507), "{method} {path} as {n}: {}", answer.text);
                    Ok
                }
            };
            assert_eq!(got, *to, "{method} {path} as {n}: {} {}", answer.status, answer.text);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_methods_are_405_and_unknown_paths_are_404() {
    let app = TestApp::new().await;
    let paths: BTreeSet<_> = MATRIX.iter().map(|(_, p, _)| *p).collect();
    for path in paths {
        for method in METHODS {
            if MATRIX.iter().any(|(m, p, _)| p == &path && *m == method) {
                continue;
            }
            let filled = path.replace("{id}", "1").replace("{address}", "10.0.0.1").replace("{type}", "cpu");
            let answer = app.provider.send(method.parse().unwrap(), &filled, None).await.expect(405);
            assert_eq!(answer.code(), "METHOD_NOT_ALLOWED", "{method} {path}");
            assert!(answer.headers.contains_key("allow"), "{method} {path}");
        }
    }
    for path in ["/", "/api", "/api/servers", "/api/server/1/nothing", "/admin"] {
        let answer = app.provider.get(path).await.expect(404);
        assert_eq!(answer.code(), "NOT_FOUND");
        assert!(answer.body["requestId"].is_string(), "{}", answer.text);
    }
}

/// A customer's token for one server shows only that server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_for_one_server_sees_one_server() {
    let app = TestApp::new().await;
    let host = host(&app).await;
    let (first, second) = (World::new(&app, host).await, World::new(&app, host).await);
    let scope = format!("write:server:{}", second.server);
    let made = app.customer.post("/api/auth/tokens", json!({ "name": "one", "scopes": [scope] })).await.expect(201);
    let token = app.nobody.with_token(made.body["token"].as_str().unwrap());
    let list = token.get("/api/server").await.expect(200).body;
    let ids: Vec<_> = list.as_array().unwrap().iter().map(|s| s["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, [second.server]);
    token.get(&format!("/api/server/{}", first.server)).await.expect(404);
    assert_eq!(app.other.get("/api/server").await.expect(200).body, json!([]));
    app.customer.get("/api/server?all=true").await.expect(403);
    let all = app.provider.get("/api/server?all=true&limit=1&page=2").await.expect(200);
    assert_eq!(all.headers["x-total-count"], "2");
    assert_eq!(all.body[0]["id"], second.server);
}

struct World {
    server: i64,
    vmid: i64,
    operation: String,
    token: String,
    tariff: i64,
    image: i64,
    host: i64,
    pool: i64,
    ssh_key: i64,
    alert: i64,
    mail: String,
    /// The owner's token for this server.
    here: Client,
}

impl World {
    async fn new(app: &TestApp, host: i64) -> Self {
        let db = &app.db.pool;
        let name = uuid::Uuid::new_v4().simple().to_string();
        let scalar =
            async |sql: String| -> i64 { sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(db).await.unwrap() };
        let tariff = scalar(format!(
        "insert into tariffs (name, kind, cores, memory_mib, disk_gib, price) values ('{name}', 'lxc', 1, 128, 1, 1) returning id"
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
            "insert into servers (uuid, user_id, tariff_id, image_id, host_id, node, guest_number, kind, name, status,
             cores, memory_mib, disk_gib)
         values (gen_random_uuid(), {}, {tariff}, {image}, {host}, 'n', nextval('guest_numbers'), 'lxc', 's', 'stopped',
             1, 128, 1) returning id",
            app.customer_id
        ))
        .await;
        let operation: String = sqlx::query_scalar(
            "insert into operations (id, subject_kind, subject_id, lane, kind, state, data, deadline, ended_at)
         values (gen_random_uuid(), 'server', $1::bigint::text, 'host', 'start', 'succeeded', 'null', now(), now()) returning id::text",
        )
        .bind(server)
        .fetch_one(db)
        .await
        .unwrap();
        let token: String = sqlx::query_scalar(
        "insert into tokens (id, kind, hash, user_id, name) values (gen_random_uuid(), 'api', $1, $2, 't') returning id::text",
    )
    .bind(&rand::random::<[u8; 32]>()[..])
    .bind(app.customer_id)
    .fetch_one(db)
    .await
    .unwrap();
        let ssh_key = scalar(format!(
            "insert into ssh_keys (user_id, name, public_key, fingerprint) values ({}, 'k', 'k', '{name}') returning id",
            app.customer_id
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
            "insert into tokens (id, kind, hash, user_id, name, scopes)
             values (gen_random_uuid(), 'api', $1, $2, 'here', array['write:server:' || $3::bigint])",
        )
        .bind(&hash[..])
        .bind(app.customer_id.0)
        .bind(server)
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
        Self { server, vmid, operation, token, tariff, image, host, pool, here, ssh_key, alert, mail }
    }
    fn fill(&self, path: &str) -> String {
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
            _ => self.server.to_string(),
        };
        path.replace("{id}", &id).replace("{address}", "10.9.0.9").replace("{type}", "cpu").replace("{number}", "4711")
    }

    fn body(&self, method: &str, path: &str) -> Option<Value> {
        match (method, path) {
            ("POST", "/api/auth/register") => Some(json!({ "email": "a@example.com", "password": "a long password" })),
            ("POST", "/api/server/console") => Some(json!({ "vmid": self.vmid })),
            ("POST" | "PUT" | "PATCH", _) => Some(json!({ "no such field": true })),
            ("DELETE", "/api/server/{id}/snapshots") => Some(json!({ "no such field": true })),
            _ => None,
        }
    }
}

/// A host that doesn't answer: authorisation comes before any call to a host.
async fn host(app: &TestApp) -> i64 {
    let config = json!({ "socket": "/nowhere/incus.socket", "project": "p", "storagePool": "s" });
    let host = json!({ "name": "h", "kind": "incus", "config": config, "force": true });
    app.provider.post("/api/hosts", host).await.expect(201).body["id"].as_i64().unwrap()
}

/// The owner's API tokens.
struct Tokens {
    read_only: Client,
    elsewhere: Client,
    revoked: Client,
    ended: Client,
}

impl Tokens {
    async fn new(app: &TestApp) -> Self {
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
        crate::support::wait_for("a token's expiry", async || match ended.get("/api/server").await.status {
            200 => None,
            status => Some(status),
        })
        .await;
        let (read_only, elsewhere) = (token(app, "read").await.0, token(app, "write:server:999999").await.0);
        Self { read_only, elsewhere, revoked, ended }
    }
}

async fn token(app: &TestApp, scope: &str) -> (Client, String) {
    let made = app.customer.post("/api/auth/tokens", json!({ "name": "t", "scopes": [scope] })).await.expect(201);
    (app.nobody.with_token(made.body["token"].as_str().unwrap()), made.body["id"].as_str().unwrap().to_owned())
}

/// What each role sees of everything that can be read: every field with its type. A field that is new, gone or visible
/// to more roles than before changes tests/fields.txt; FIELDS=write rewrites that file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_sees_the_fields_it_should_see_and_no_others() {
    let app = TestApp::new().await;
    app.db.allow_unfinished();
    for who in ["provider", "customer", "other"] {
        login(&app.nobody, &format!("{who}@example.com")).await;
    }
    let host = host(&app).await;
    let world = World::new(&app, host).await;
    let read_only = token(&app, "read").await.0;
    sqlx::query("update operations set error_code = 'HOST_ERROR', error_message = 'm', error_detail = 'd'")
        .execute(&app.db.pool)
        .await
        .unwrap();
    sqlx::query("insert into operation_log (operation_id, level, step, message) values ($1::uuid, 'info', 's', 'm')")
        .bind(&world.operation)
        .execute(&app.db.pool)
        .await
        .unwrap();
    sqlx::query(
        "insert into nodes (host_id, name, online, cores, memory_mib, disk_gib) values ($1, 'n', true, 1, 1, 1)",
    )
    .bind(host)
    .execute(&app.db.pool)
    .await
    .unwrap();
    sqlx::query("insert into image_sources values ($1, $2, 's')")
        .bind(world.image)
        .bind(host)
        .execute(&app.db.pool)
        .await
        .unwrap();
    sqlx::query(
        "insert into unknown_guests (host_id, marker, guest_number, kind, node, hostname, addresses, cores, memory_mib,
                                     disk_gib)
         values ($1, gen_random_uuid(), 4711, 'lxc', 'n', 'web', '{10.9.0.9,10.9.0.7}', 1, 64, 1)",
    )
    .bind(host)
    .execute(&app.db.pool)
    .await
    .unwrap();
    let started = app.provider.post(&format!("/api/server/{}/start", world.server), None).await.expect(200).body;
    // It has no error to show until it has found the host unreachable.
    let path = format!("/api/operations/{}", started["operationId"].as_str().unwrap());
    crate::support::eventually(&app.provider, &path, |operation| operation["error"].is_object()).await;
    let mut seen = String::new();
    for (method, path, _) in MATRIX.iter().filter(|(_, path, _)| path.starts_with("/api/")) {
        for (role, client) in [
            ("nobody", &app.nobody),
            ("owner", &app.customer),
            ("other customer", &app.other),
            ("provider", &app.provider),
            ("read-only token", &read_only),
            ("token for this server", &world.here),
        ] {
            if *method != "GET" {
                continue;
            }
            let mut fields = BTreeSet::new();
            let answer = client.get(&world.fill(path)).await;
            shape(&answer.body, "", &mut fields);
            let fields: Vec<String> = fields.into_iter().collect();
            seen += &format!("{method} {path} as {role}: {}\n", answer.status);
            fields.iter().for_each(|field| seen += &format!("    {field}\n"));
        }
    }
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fields.txt");
    if std::env::var("FIELDS").is_ok_and(|v| v == "write") {
        std::fs::write(file, &seen).unwrap();
    }
    let known = std::fs::read_to_string(file).unwrap();
    for (line, (seen, known)) in seen.lines().zip(known.lines()).enumerate() {
        assert_eq!(seen, known, "tests/fields.txt, line {}", line + 1);
    }
    assert_eq!(seen.lines().count(), known.lines().count());
}

/// A value's fields with their types, as `data[].id number`.
fn shape(value: &Value, at: &str, fields: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(name, value)| {
            let dot = if at.is_empty() { "" } else { "." };
            shape(value, &format!("{at}{dot}{name}"), fields);
        }),
        Value::Array(values) => values.iter().for_each(|value| shape(value, &format!("{at}[]"), fields)),
        Value::Null => drop(fields.insert(format!("{at} null"))),
        Value::Bool(_) => drop(fields.insert(format!("{at} boolean"))),
        Value::Number(_) => drop(fields.insert(format!("{at} number"))),
        Value::String(_) => drop(fields.insert(format!("{at} text"))),
    }
}
