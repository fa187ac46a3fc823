//! Every request that changes something, with a valid body: one per writing route, in an order in which each finds what
//! it needs. A route that is missing here fails the tests that walk them.

use std::collections::BTreeSet;
use std::sync::Arc;

use accounts::AccountSettings;
use compute::ids::AccountId;
use innkeeper::run::Service;
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::app::{Idle, config, login_link};
use crate::client::Response;
use crate::proofs::{self, Told};
use crate::pve::Catalogue;
use crate::relay::DatabaseRelay;
use crate::{Client, PASSWORD, Pve, TestApp, ended, wait_for_sql};

/// One request.
pub struct Write {
    pub route: &'static str,
    pub method: Method,
    pub path: String,
    /// What its path names.
    pub id: String,
    pub by: Client,
    pub body: Value,
    /// Whose it is.
    pub world: World,
}

/// Whose requests they are. Those of one world touch nothing that those of another are about.
#[derive(Clone)]
pub struct World {
    /// Ends its names.
    pub tag: &'static str,
    /// The second number of its networks, which has the next one too.
    net: u8,
    /// The alert that its rules are about.
    pub alert: &'static str,
    email: String,
    customer: Client,
    account: AccountId,
}

impl World {
    /// The customer's.
    pub fn customers(app: &TestApp) -> Self {
        let (customer, account) = (app.customer.clone(), app.customer_account);
        Self { tag: "", net: 66, alert: "cpu", email: "customer@example.com".to_owned(), customer, account }
    }

    /// That of somebody new.
    pub async fn somebodys(app: &TestApp) -> Self {
        let email = "somebody@example.com".to_owned();
        sqlx::query(
            "with u as (insert into users (email, name, password_hash, confirmed_at)
                        select $1, name, password_hash, now() from users where email = 'customer@example.com'
                        returning id, email)
             insert into accounts (name, owner_id) select email, id from u",
        )
        .bind(&email)
        .execute(&app.db.pool)
        .await
        .expect("the database answers");
        let account = crate::app::account_of(&app.db, &email).await;
        let customer = crate::app::signed_in(&app.db, &app.nobody, &email).await;
        Self { tag: "-too", net: 68, alert: "memory", email, customer, account }
    }
}

impl Write {
    /// Sends it to the process at this address.
    pub async fn send(&self, base: &str) -> Response {
        let by = Client { base: base.to_owned(), ..self.by.clone() };
        by.send(self.method.clone(), &self.path, (!self.body.is_null()).then(|| self.body.clone())).await
    }

    /// What an answer that reports success promises.
    pub fn told(&self, answer: &Response) -> Told {
        proofs::told(self, answer)
    }

    /// Whether it is about the server, which only one operation holds at a time.
    pub fn is_about_server(&self) -> bool {
        self.route.starts_with("/api/server/{id}")
    }
}

/// The requests, and the server that many of them are about.
pub async fn writes(app: &TestApp, pve: &Pve) -> (Vec<Write>, i64) {
    let catalogue = pve.register(&app.provider).await;
    writes_of(app, &catalogue, &World::customers(app)).await
}

/// The same of one world.
pub async fn writes_of(app: &TestApp, catalogue: &Catalogue, world: &World) -> (Vec<Write>, i64) {
    let World { tag, net, alert: kind, email, customer, account } = world;
    let ordered = customer.post("/api/server/create", catalogue.container()).await.expect(200).body;
    assert_eq!(ended(customer, &ordered["operationId"]).await["state"], "succeeded");
    let server = ordered["id"].as_i64().unwrap();
    let made = async |by: &Client, path: &str, body: Value| by.post(path, body).await.expect(201).body["id"].clone();
    let plain = |id: Value| id.as_str().map_or_else(|| id.to_string(), str::to_owned);
    let scalar = async |sql: &'static str| -> String {
        sqlx::query_scalar(sql).bind(server).fetch_one(&app.db.pool).await.expect("one row")
    };
    let (provider, nobody) = (&app.provider, &app.nobody);

    let named = |name: &str| format!("{name}{tag}");
    let mail_to = |name: &str| format!("{name}{tag}@example.com");
    let idle = async |name: &str| Idle::new(&app.db, &named(name)).await;
    let size =
        |name: &str| json!({ "name": named(name), "kind": "lxc", "cores": 1, "memory": 64, "disk": 1, "price": 1 });
    let elsewhere =
        |name: &str| json!({ "name": named(name), "kind": "incus", "config": { "socket": "/nowhere" }, "force": true });
    let pool = |name: &str, net: u8| {
        let cidr = format!("10.{net}.0.0/24");
        json!({ "name": named(name), "hostId": catalogue.host, "cidr": cidr, "bridge": "b" })
    };
    let image = |name: &str| json!({ "name": named(name), "kind": "lxc" });
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2X0OWNlLS+ChqYjV8kNwVsWTB5Yc7vYXxWk0GmKoIh me";
    let other_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me";
    let rule = json!({ "enabled": true, "warning": 0.5, "critical": 0.6, "clear": 0.4, "sustainSeconds": 60,
                       "clearSustainSeconds": 60 });
    let mute = json!({ "until": chrono::Utc::now() + chrono::TimeDelta::days(1) });
    let sign = json!({ "email": email, "password": PASSWORD });

    let tariff = plain(made(provider, "/api/tariffs", size("old")).await);
    let old_image = plain(made(provider, "/api/images", image("old")).await);
    let host = plain(made(provider, "/api/hosts", elsewhere("old")).await);
    let old_pool = plain(made(provider, "/api/address-pools", pool("old", *net)).await);
    let old_key = plain(made(customer, "/api/ssh-keys", json!({ "name": "old", "publicKey": key })).await);
    let token = plain(made(customer, "/api/auth/tokens", json!({ "name": "old", "scopes": ["read"] })).await);
    let signed_in = nobody.post("/api/auth/login", sign.clone()).await.expect(200).body;
    let leaving = crate::app::signed_in(&app.db, nobody, email).await;
    let changing = nobody.with_token(signed_in["accessToken"].as_str().unwrap());
    let browser = async || {
        let opened = nobody.post("/api/auth/browser/login", sign.clone()).await.expect(200);
        nobody.with_header("cookie", opened.cookie().expect("a cookie"))
    };
    let (browser, closing_browser) = (browser().await, browser().await);
    let address = scalar("select host(address) from addresses where server_id = $1").await;
    let number: i64 = scalar("select guest_number::text from servers where id = $1").await.parse().unwrap();
    let alert = scalar(
        "insert into alerts (kind, subject, server_id, level, value, raised_at)
         values ('cpu', 'server:' || $1, $1, 'critical', 1, now()) returning id::text",
    )
    .await;
    let mail = scalar(
        "insert into mails (id, event, recipient, subject, text_body, html_body, state)
         select gen_random_uuid(), 'e' || $1, 'customer@example.com', 's', 't', 'h', 'failed'
         returning id::text",
    )
    .await;
    // No worker knows this kind, so the operation stays as it is.
    const STUCK: &str =
        "with s as (insert into servers (uuid, account_id, tariff_id, image_id, host_id, node, guest_number, kind,
                    name, status, cores, memory_mib, disk_gib, reserved)
                    select gen_random_uuid(), account_id, tariff_id, image_id, host_id, node, nextval('guest_numbers'),
                           kind, 'stuck', 'unknown', 1, 1, 1, false from servers where id = $1 returning id)
         insert into operations (id, subject_kind, subject_id, lane, kind, state, data, deadline)
         select gen_random_uuid(), 'server', id::text, 'host', 'unknown', 'stuck', 'null', now() from s
         returning id::text";
    let (stuck, hopeless) = (scalar(STUCK).await, scalar(STUCK).await);
    let stranger = scalar(
        "insert into unknown_guests (host_id, marker, guest_number, kind, node, addresses, cores, memory_mib, disk_gib)
         select host_id, gen_random_uuid(), nextval('guest_numbers'), kind, node, '{}', 1, 64, 1 from servers
         where id = $1 returning guest_number::text",
    )
    .await;
    let session = scalar(
        "insert into sessions (id, user_id, expires_at) select gen_random_uuid(), a.owner_id, now() + interval '1 day'
         from servers s join accounts a on a.id = s.account_id where s.id = $1 returning id::text",
    )
    .await;
    let (doubtful, unsure) = (idle("doubtful").await, idle("unsure").await);
    let (code, hash) = kernel::secrets::new_token("ink_e_");
    sqlx::query(
        "with c as (insert into address_confirmations (hash, user_id, email, expires_at)
                    select $1, id, email, now() + interval '1 day' from users where id = $2)
         update users set confirmed_at = null where id in ($2, $3)",
    )
    .bind(&hash[..])
    .bind(doubtful.user)
    .bind(unsure.user)
    .execute(&app.db.pool)
    .await
    .expect("the database answers");
    let unsure = crate::app::signed_in(&app.db, nobody, &mail_to("unsure")).await;
    let (idle, gone, fellow) = (idle("idle").await, idle("gone").await, idle("fellow").await);
    crate::app::signed_in(&app.db, nobody, &mail_to("idle")).await;
    let (idle_user, idle_account, member) = (idle.user.to_string(), idle.account.to_string(), fellow.user.to_string());
    let link = login_link(&app.db, email).await;
    let adopted = json!({ "accountId": account, "tariffId": catalogue.lxc.1, "osId": catalogue.lxc.0 });

    let mut all = vec![];
    let mut add = |method: &str, route: &'static str, id: &str, by: &Client, body: Value| {
        let path = route.replace("{id}", id).replace("{address}", &address).replace("{type}", kind);
        let path = path.replace("{number}", &stranger).replace("{userId}", &member);
        let (method, id, by, world) = (method.parse().unwrap(), id.to_owned(), by.clone(), world.clone());
        all.push(Write { route, method, path, id, by, body, world });
    };
    let id = server.to_string();
    let none = Value::Null;
    let newcomer = json!({ "email": mail_to("new"), "password": PASSWORD, "name": "New" });
    let password = json!({ "currentPassword": PASSWORD, "newPassword": "another long password" });
    let in_browser = json!({ "email": mail_to("browsing"), "password": PASSWORD });
    add("POST", "/api/auth/register", "", nobody, newcomer);
    add("POST", "/api/auth/login", "", nobody, sign.clone());
    add("POST", "/api/auth/browser/register", "", nobody, in_browser);
    add("POST", "/api/auth/browser/login", "", nobody, sign);
    add("POST", "/api/auth/browser/refresh", "", &browser, none.clone());
    add("POST", "/api/auth/browser/logout", "", &closing_browser, none.clone());
    add("POST", "/api/auth/refresh", "", nobody, json!({ "refreshToken": signed_in["refreshToken"] }));
    add("POST", "/api/auth/logout", "", &leaving, none.clone());
    add("POST", "/api/auth/confirm", "", nobody, json!({ "code": code.expose_secret() }));
    add("POST", "/api/auth/confirm/mail", "", &unsure, none.clone());
    add("DELETE", "/api/auth/sessions/{id}", &session, customer, none.clone());
    add("PATCH", "/api/auth/me", "", customer, json!({ "alertMails": "critical" }));
    add("POST", "/api/auth/tokens", "", customer, json!({ "name": "new", "scopes": ["read"] }));
    add("DELETE", "/api/auth/tokens/{id}", &token, customer, none.clone());
    add("POST", "/api/users", "", provider, json!({ "email": mail_to("made"), "name": "Made" }));
    add("PATCH", "/api/users/{id}", &idle_user, provider, json!({ "name": "Idle" }));
    add("POST", "/api/users/{id}/login-link", &idle_user, provider, json!({ "reason": "a question" }));
    add("POST", "/api/auth/login-link", "", nobody, json!({ "token": link }));
    add("DELETE", "/api/users/{id}/sessions", &idle_user, provider, none.clone());
    add("DELETE", "/api/users/{id}", &gone.user.to_string(), provider, none.clone());
    let owner = json!({ "email": mail_to("owner"), "name": "Owner" });
    add("POST", "/api/accounts", "", provider, json!({ "name": "New", "owner": owner }));
    add("PATCH", "/api/accounts/{id}", &idle_account, provider, json!({ "name": "Renamed" }));
    add("POST", "/api/accounts/{id}/suspend", &idle_account, provider, json!({ "reason": "unpaid" }));
    add("POST", "/api/accounts/{id}/unsuspend", &idle_account, provider, none.clone());
    let new_member = json!({ "email": mail_to("fellow"), "role": "viewer" });
    add("POST", "/api/accounts/{id}/members", &idle_account, provider, new_member);
    add("PATCH", "/api/accounts/{id}/members/{userId}", &idle_account, provider, json!({ "role": "admin" }));
    add("DELETE", "/api/accounts/{id}/members/{userId}", &idle_account, provider, none.clone());
    add("DELETE", "/api/accounts/{id}", &idle.second_account.to_string(), provider, none.clone());
    add("POST", "/api/tariffs", "", provider, size("new"));
    add("PUT", "/api/tariffs/{id}", &tariff, provider, json!({ "price": 2 }));
    add("PUT", "/api/tariffs/{id}/alert-rules/{type}", &tariff, provider, rule.clone());
    add("DELETE", "/api/tariffs/{id}/alert-rules/{type}", &tariff, provider, none.clone());
    add("DELETE", "/api/tariffs/{id}", &tariff, provider, none.clone());
    add("POST", "/api/images", "", provider, image("new"));
    add("PUT", "/api/images/{id}", &old_image, provider, json!({ "enabled": false }));
    add("DELETE", "/api/images/{id}", &old_image, provider, none.clone());
    add("POST", "/api/hosts", "", provider, elsewhere("new"));
    add("PUT", "/api/hosts/{id}", &host, provider, json!({ "enabled": false }));
    add("DELETE", "/api/hosts/{id}", &host, provider, none.clone());
    add("POST", "/api/hosts/{id}/check", &catalogue.host.to_string(), provider, none.clone());
    add("POST", "/api/hosts/{id}/unknown-guests/{number}/adopt", &catalogue.host.to_string(), provider, adopted);
    add("POST", "/api/address-pools", "", provider, pool("new", net + 1));
    add("PUT", "/api/address-pools/{id}", &old_pool, provider, json!({ "enabled": false }));
    add("POST", "/api/address-pools/{id}/reserve", &old_pool, provider, json!({ "address": format!("10.{net}.0.9") }));
    add("DELETE", "/api/address-pools/{id}/reserve/{address}", &old_pool, provider, none.clone());
    add("DELETE", "/api/address-pools/{id}", &old_pool, provider, none.clone());
    add("POST", "/api/ssh-keys", "", customer, json!({ "name": "new", "publicKey": other_key }));
    add("DELETE", "/api/ssh-keys/{id}", &old_key, customer, none.clone());
    add("POST", "/api/alerts/{id}/acknowledge", &alert, customer, none.clone());
    add("PUT", "/api/alert-rules/{type}", "", provider, rule.clone());
    add("DELETE", "/api/alert-rules/{type}", "", provider, none.clone());
    add("POST", "/api/alert-rules/{type}/mute", "", provider, mute.clone());
    add("DELETE", "/api/alert-rules/{type}/mute", "", provider, none.clone());
    add("POST", "/api/operations/{id}/retry", &stuck, provider, none.clone());
    add("POST", "/api/operations/{id}/abandon", &hopeless, provider, none.clone());
    add("POST", "/api/mails/{id}/retry", &mail, provider, none.clone());
    add("POST", "/api/server/create", "", customer, catalogue.container());
    add("POST", "/api/server/console", "", customer, json!({ "vmid": number }));
    add("PUT", "/api/server/{id}/alert-rules/{type}", &id, customer, rule);
    add("DELETE", "/api/server/{id}/alert-rules/{type}", &id, customer, none.clone());
    add("POST", "/api/server/{id}/mute", &id, customer, mute);
    add("DELETE", "/api/server/{id}/mute", &id, customer, none.clone());
    add("PATCH", "/api/server/{id}", &id, customer, json!({ "labels": { "tier": "web" } }));
    add("PUT", "/api/server/{id}/addresses/{address}", &id, customer, json!({ "reverseDns": "mail.example.com" }));
    add("POST", "/api/server/{id}/snapshots", &id, customer, json!({ "snapname": "one" }));
    add("POST", "/api/server/{id}/snapshots/rollback", &id, customer, json!({ "snapname": "one" }));
    add("DELETE", "/api/server/{id}/snapshots", &id, customer, json!({ "snapname": "one" }));
    add("POST", "/api/server/{id}/restart", &id, customer, none.clone());
    add("POST", "/api/server/{id}/password", &id, customer, none.clone());
    add(
        "PUT",
        "/api/server/{id}/resize",
        &id,
        provider,
        json!({ "cores": 2, "memory": 256, "disk": 3, "allowRestart": true }),
    );
    add("POST", "/api/server/{id}/stop", &id, customer, none.clone());
    add("POST", "/api/server/{id}/start", &id, customer, none.clone());
    add("POST", "/api/server/{id}/reinstall", &id, customer, json!({ "osId": catalogue.lxc.0 }));
    add("POST", "/api/server/{id}/suspend", &id, provider, json!({ "reason": "unpaid" }));
    add("POST", "/api/server/{id}/unsuspend", &id, provider, none.clone());
    add("DELETE", "/api/server/{id}", &id, customer, none.clone());
    // Both end the customer's other logins.
    add("DELETE", "/api/auth/sessions", "", &changing, none);
    add("POST", "/api/auth/password", "", &changing, password);
    for write in all.iter_mut().filter(|write| write.route.ends_with("/reserve/{address}")) {
        write.path = format!("/api/address-pools/{old_pool}/reserve/10.{net}.0.9");
    }

    let document = nobody.get("/api/openapi.json").await.expect(200).body;
    let mut routes = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let methods = item.as_object().unwrap().keys().filter(|m| !matches!(m.as_str(), "get" | "parameters"));
        routes.extend(methods.map(|method| (method.to_uppercase(), path.clone())));
    }
    let listed: BTreeSet<_> = all.iter().map(|w| (w.method.to_string(), w.route.to_owned())).collect();
    assert_eq!(routes, listed, "every writing route has a request here, and every request a route");
    (all, server)
}

/// Waits until no operation holds the server.
pub async fn until_free(app: &TestApp, server: i64) {
    let busy = format!("select count(*) from operations where subject_id = '{server}' and ended_at is null");
    wait_for_sql(&app.db.pool, "the end of the server's operation", &busy, 0i64).await;
}

/// A second process on the same database, through this relay: it answers requests and runs no tasks.
pub async fn second(app: &TestApp, db_relay: &DatabaseRelay) -> (Arc<Service>, String) {
    let mut config = config(&app.db, app.data.path());
    config.database_url = SecretString::from(db_relay.url.clone());
    config.of::<AccountSettings>().registration = true;
    let second = Service::new(config).expect("the settings are right");
    let router = second.router(axum::Router::new());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        axum::serve(listener, router.into_make_service_with_connect_info::<std::net::SocketAddr>()).await
    });
    (second, base)
}
