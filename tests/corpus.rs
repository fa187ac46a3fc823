//! Bad input: the corpus of tests/corpus/ is run through every string and number field of every body, every query
//! parameter and every id in the OpenAPI document. Each input is refused with a reason or stored exactly.

use std::collections::{BTreeMap, BTreeSet};

use accounts::AccountSettings;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::app::{Idle, id_of};
use crate::support::client::Response;
use crate::support::parts::Part;
use crate::support::{Client, PASSWORD, TestApp};

#[derive(Deserialize)]
struct Input {
    name: String,
    json: String,
}

fn corpus(text: &str) -> Vec<Input> {
    serde_json::from_str(text).unwrap()
}

/// A valid body, with its path and its sender.
struct Base<'a> {
    path: String,
    by: &'a Client,
    body: Value,
}

/// How many values of the corpus must come back at least, in the parts whose bodies can be read again.
const KEPT: &[(&str, usize)] = &[
    ("/api/address-pools", 100),
    ("/api/alert", 8),
    ("/api/auth/", 40),
    ("/api/hosts", 200),
    ("/api/hosts/{id}", 200),
    ("/api/images", 250),
    ("/api/server", 8),
    ("/api/server/{id}/alert-rules", 8),
    ("/api/ssh-keys", 20),
    ("/api/tariffs", 100),
    ("/api/tariffs/{id}/alert-rules", 8),
];

/// A placeholder for the corpus value.
const HERE: &str = "@@HERE@@";

async fn bases(app: &TestApp) -> BTreeMap<&'static str, Vec<Base<'_>>> {
    let made = async |path: &str, body: Value| app.provider.post(path, body).await.expect(201).body["id"].to_string();
    let size = json!({ "name": "t", "kind": "lxc", "cores": 1, "memory": 64, "disk": 1, "price": 1,
                       "bandwidth": 100, "traffic": 1, "currency": "EUR", "maxCores": 2,
                       "maxMemory": 128, "maxDisk": 2, "snapshots": 3 });
    let config = json!({ "socket": "/nowhere", "project": "p", "storagePool": "s", "searchDomain": "example.com",
                         "processesPerGib": 1000 });
    let host_body = json!({ "name": "h", "kind": "incus", "config": config, "force": true, "cpuOvercommit": 1.0,
                            "memoryOvercommit": 1.0, "diskOvercommit": 1.0 });
    let host = made("/api/hosts", host_body.clone()).await;
    let host_id: i64 = host.parse().unwrap();
    let image_body = json!({ "name": "i", "type": "linux", "kind": "lxc", "rootLogin": "password", "verify": false,
                             "sources": [{ "hostId": host_id, "source": "x" }] });
    let image = made("/api/images", image_body.clone()).await;
    let pool_body = json!({ "name": "p", "hostId": host_id, "cidr": "10.9.0.0/24", "bridge": "b", "gateway": "10.9.0.1",
                            "first": "10.9.0.2", "last": "10.9.0.9", "vlan": 7, "dns": ["1.1.1.1"] });
    let pool = made("/api/address-pools", pool_body.clone()).await;
    let tariff = made("/api/tariffs", size.clone()).await;
    let renamed = |body: &Value| {
        let mut body = body.clone();
        body["name"] = json!("another");
        body
    };
    let mut other_pool = renamed(&pool_body);
    for (field, value) in
        [("cidr", "10.8.0.0/24"), ("gateway", "10.8.0.1"), ("first", "10.8.0.2"), ("last", "10.8.0.9")]
    {
        other_pool[field] = json!(value);
    }
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2X0OWNlLS+ChqYjV8kNwVsWTB5Yc7vYXxWk0GmKoIh me";
    let order = json!({ "osId": image.parse::<i64>().unwrap(), "tariffId": tariff.parse::<i64>().unwrap(),
                        "name": "web-1", "sshKeys": [key], "labels": { "env": "test" } });
    let mut bases: BTreeMap<_, Vec<Base<'_>>> = BTreeMap::new();
    let mut add =
        |route: &'static str, path: String, by, body| bases.entry(route).or_default().push(Base { path, by, body });
    let (provider, customer, nobody) = (&app.provider, &app.customer, &app.nobody);
    let sign = json!({ "email": "someone@example.com", "password": PASSWORD });
    let mut register = sign.clone();
    register["name"] = json!("Someone");
    for (route, body) in [
        ("POST /api/auth/register", &register),
        ("POST /api/auth/browser/register", &register),
        ("POST /api/auth/login", &sign),
        ("POST /api/auth/browser/login", &sign),
    ] {
        add(route, route.trim_start_matches("POST ").into(), nobody, body.clone());
    }
    add("POST /api/auth/refresh", "/api/auth/refresh".into(), nobody, json!({ "refreshToken": "x" }));
    let change = json!({ "currentPassword": "not this one", "newPassword": "a long password" });
    add("POST /api/auth/password", "/api/auth/password".into(), customer, change);
    add("POST /api/auth/confirm", "/api/auth/confirm".into(), nobody, json!({ "code": "ink_e_x" }));
    add("POST /api/auth/login-link", "/api/auth/login-link".into(), nobody, json!({ "token": "ink_l_x" }));
    let idle = Idle::new(&app.db, "idle").await;
    let user =
        json!({ "email": "someone@example.com", "name": "Someone", "password": PASSWORD, "staffRole": "support" });
    add("POST /api/users", "/api/users".into(), provider, user.clone());
    let user_update = json!({ "name": "Someone", "staffRole": "support", "disabled": false });
    add("PATCH /api/users/{id}", format!("/api/users/{}", idle.user), provider, user_update);
    let reason = json!({ "reason": "a question" });
    add("POST /api/users/{id}/login-link", format!("/api/users/{}/login-link", idle.user), provider, reason.clone());
    let owner = json!({ "email": "someone@example.com", "name": "Someone", "password": PASSWORD });
    let parent: i64 = sqlx::query_scalar("update accounts set kind = 'reseller' where id = $1 returning id")
        .bind(idle.second_account)
        .fetch_one(&app.db.pool)
        .await
        .unwrap();
    let account = json!({ "name": "An account", "kind": "customer", "parentId": parent, "serverLimit": 5,
                          "owner": owner, "ownerId": idle.user });
    let mut by_owner = account.clone();
    by_owner.as_object_mut().unwrap().remove("owner");
    let mut with_owner = account;
    with_owner.as_object_mut().unwrap().remove("ownerId");
    add("POST /api/accounts", "/api/accounts".into(), provider, with_owner);
    add("POST /api/accounts", "/api/accounts".into(), provider, by_owner);
    let account_update = json!({ "name": "An account", "kind": "customer", "parentId": parent, "serverLimit": 5,
                                 "ownerId": idle.user });
    add("PATCH /api/accounts/{id}", format!("/api/accounts/{}", idle.account), provider, account_update);
    let of_account = |rest: &str| format!("/api/accounts/{}/{rest}", idle.account);
    add("POST /api/accounts/{id}/suspend", of_account("suspend"), provider, reason);
    let member = json!({ "email": "other@example.com", "role": "viewer" });
    add("POST /api/accounts/{id}/members", of_account("members"), provider, member);
    let other = id_of(&app.db, "other@example.com").await;
    let path = of_account(&format!("members/{other}"));
    add("PATCH /api/accounts/{id}/members/{userId}", path, provider, json!({ "role": "viewer" }));
    let token = json!({ "name": "t", "scopes": ["read"], "expiresAt": "2099-01-01T00:00:00Z" });
    let profile = json!({ "name": "Someone", "language": "en", "timeZone": "UTC", "alertMails": "all",
                          "serverMails": true });
    add("PATCH /api/auth/me", "/api/auth/me".into(), customer, profile);
    add("POST /api/auth/tokens", "/api/auth/tokens".into(), customer, token);
    add("POST /api/tariffs", "/api/tariffs".into(), provider, renamed(&size));
    add("PUT /api/tariffs/{id}", format!("/api/tariffs/{tariff}"), provider, size);
    let mut sourceless = renamed(&image_body);
    sourceless["verify"] = json!(false);
    add("POST /api/images", "/api/images".into(), provider, sourceless);
    add("PUT /api/images/{id}", format!("/api/images/{image}"), provider, image_body);
    add("POST /api/hosts", "/api/hosts".into(), provider, renamed(&host_body));
    let mut host_update = host_body;
    host_update.as_object_mut().unwrap().remove("kind");
    add("PUT /api/hosts/{id}", format!("/api/hosts/{host}"), provider, host_update);
    // A cluster with a self-signed certificate, and one whose CA is given.
    for (name, trust) in [("pve-1", ("fingerprint", "ab".repeat(32))), ("pve-2", ("ca", "x".into()))] {
        let config = json!({ "endpoints": ["https://127.0.0.1:9"], "tokenId": "ink@pve!t", "tokenSecret": "s",
                             "login": { "user": "ink@pve", "password": "p" }, "storage": "local", "pool": "p",
                             "searchDomain": "example.com",
                             "ssh": { "nodePort": 22 }, trust.0: trust.1 });
        let host = json!({ "name": name, "kind": "proxmox", "config": config, "force": true });
        let id = sqlx::query_scalar::<_, i64>("select min(id) from hosts where kind = 'proxmox'");
        if name == "pve-1" {
            made("/api/hosts", host.clone()).await;
        }
        let id = id.fetch_one(&app.db.pool).await.unwrap();
        let update = json!({ "name": "pve", "config": host["config"], "force": true });
        add("PUT /api/hosts/{id}", format!("/api/hosts/{id}"), provider, update);
        let mut host = host;
        host["name"] = json!(format!("another {name}"));
        add("POST /api/hosts", "/api/hosts".into(), provider, host);
    }
    add("POST /api/address-pools", "/api/address-pools".into(), provider, other_pool);
    let mut pool_update = pool_body;
    pool_update.as_object_mut().unwrap().remove("hostId");
    add("PUT /api/address-pools/{id}", format!("/api/address-pools/{pool}"), provider, pool_update);
    add(
        "POST /api/address-pools/{id}/reserve",
        format!("/api/address-pools/{pool}/reserve"),
        provider,
        json!({ "address": "10.9.0.5", "reason": "a printer" }),
    );
    sqlx::query(
        "insert into unknown_guests (host_id, marker, guest_number, kind, node, addresses)
         values ($1, gen_random_uuid(), 4711, 'lxc', 'n', '{}')",
    )
    .bind(host_id)
    .execute(&app.db.pool)
    .await
    .unwrap();
    let adoption = json!({ "accountId": app.customer_account.0, "tariffId": tariff.parse::<i64>().unwrap(),
                           "osId": image.parse::<i64>().unwrap(), "name": "web-3" });
    add(
        "POST /api/hosts/{id}/unknown-guests/{number}/adopt",
        format!("/api/hosts/{host}/unknown-guests/4711/adopt"),
        provider,
        adoption,
    );
    let server = server(app, host_id, image.parse().unwrap(), tariff.parse().unwrap(), pool.parse().unwrap()).await;
    let at = |rest: &str| format!("/api/server/{server}{rest}");
    let key = order["sshKeys"][0].clone();
    add("PATCH /api/server/{id}", at(""), customer, json!({ "name": "web-2", "labels": { "tier": "web" } }));
    let size = json!({ "cores": 1, "memory": 64, "disk": 1, "tariffId": order["tariffId"], "allowRestart": true });
    add("PUT /api/server/{id}/resize", at("/resize"), customer, size);
    let anew = json!({ "osId": order["osId"], "sshKeys": [key], "sshKeyIds": [1] });
    add("POST /api/server/{id}/reinstall", at("/reinstall"), customer, anew);
    add("POST /api/server/{id}/suspend", at("/suspend"), provider, json!({ "reason": "unpaid" }));
    let snapshot = json!({ "snapname": "s1", "description": "before" });
    add("POST /api/server/{id}/snapshots", at("/snapshots"), customer, snapshot);
    add("DELETE /api/server/{id}/snapshots", at("/snapshots"), customer, json!({ "snapname": "s1" }));
    add("POST /api/server/{id}/snapshots/rollback", at("/snapshots/rollback"), customer, json!({ "snapname": "s1" }));
    add("POST /api/server/console", "/api/server/console".into(), customer, json!({ "vmid": 1000 }));
    let name = json!({ "reverseDns": "mail.example.com" });
    add("PUT /api/server/{id}/addresses/{address}", at("/addresses/10.9.0.7"), customer, name);
    add("POST /api/ssh-keys", "/api/ssh-keys".into(), customer, json!({ "name": "k", "publicKey": key }));
    let rule = json!({ "enabled": true, "warning": 0.5, "critical": 0.6, "clear": 0.4, "sustainSeconds": 1,
                       "clearSustainSeconds": 2,
                       "quietHours": { "from": "22:00", "to": "07:00", "timeZone": "Europe/Berlin" } });
    let tariff_rule = format!("/api/tariffs/{tariff}/alert-rules/cpu");
    add("PUT /api/alert-rules/{type}", "/api/alert-rules/cpu".into(), provider, rule.clone());
    add("PUT /api/tariffs/{id}/alert-rules/{type}", tariff_rule, provider, rule.clone());
    add("PUT /api/server/{id}/alert-rules/{type}", at("/alert-rules/cpu"), customer, rule);
    let until = chrono::Utc::now() + chrono::TimeDelta::days(1);
    add("POST /api/alert-rules/{type}/mute", "/api/alert-rules/cpu/mute".into(), provider, json!({ "until": until }));
    add("POST /api/server/{id}/mute", at("/mute"), customer, json!({ "until": until, "type": "cpu" }));
    let mut order = order;
    order["sshKeyIds"] = json!([1]);
    add("POST /api/server/create", "/api/server/create".into(), customer, order);
    bases
}

/// A server of the customer's with an address, on a host that doesn't answer.
async fn server(app: &TestApp, host: i64, image: i64, tariff: i64, pool: i64) -> i64 {
    let server: i64 = sqlx::query_scalar(
        "insert into servers (uuid, account_id, tariff_id, image_id, host_id, node, guest_number, kind, name,
                              status, cores, memory_mib, disk_gib)
         values (gen_random_uuid(), $1, $2, $3, $4, 'n', 1000, 'lxc', 's', 'stopped', 1, 64, 1) returning id",
    )
    .bind(app.customer_account.0)
    .bind(tariff)
    .bind(image)
    .bind(host)
    .fetch_one(&app.db.pool)
    .await
    .unwrap();
    sqlx::query("insert into addresses (pool_id, address, server_id) values ($1, '10.9.0.7', $2)")
        .bind(pool)
        .bind(server)
        .execute(&app.db.pool)
        .await
        .unwrap();
    server
}

/// Every string and number in a body, as a JSON pointer.
fn leaves(value: &Value, at: &str, found: &mut Vec<(String, bool)>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| leaves(value, &format!("{at}/{name}"), found)),
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(n, value)| leaves(value, &format!("{at}/{n}"), found))
        }
        Value::String(_) => found.push((at.to_owned(), true)),
        Value::Number(_) => found.push((at.to_owned(), false)),
        Value::Bool(_) | Value::Null => {}
    }
}

fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(path) => document.pointer(path.trim_start_matches('#')).unwrap_or_else(|| panic!("{path} is nowhere")),
        None => schema,
    }
}

/// The fields of a body's schema, at any depth, that hold strings or numbers: by name, without array indices.
fn fields(document: &Value, schema: &Value, at: &str, found: &mut BTreeSet<String>) {
    let schema = resolve(document, schema);
    for part in ["oneOf", "anyOf", "allOf"] {
        for part in schema[part].as_array().into_iter().flatten().filter(|part| part["type"] != "null") {
            fields(document, part, at, found);
        }
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    for kind in types {
        match kind {
            "object" => {
                for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
                    fields(document, schema, &format!("{at}/{name}"), found);
                }
            }
            "array" => fields(document, &schema["items"], at, found),
            "string" | "integer" | "number" => drop(found.insert(at.to_owned())),
            _ => {}
        }
    }
}

/// Refused with a reason, or done; anything else is wrong. Returns whether it was done.
fn judge(what: &str, answer: &Response, also: &[u16], wrong: &mut Vec<String>) -> bool {
    if (200..300).contains(&answer.status) {
        return true;
    }
    let refused = matches!(answer.status, 400 | 413 | 422) || also.contains(&answer.status);
    let in_words = answer.body["error"].as_str().is_some_and(|e| e.len() > 5) && !answer.code().is_empty();
    if !refused || !in_words {
        wrong.push(format!("{what}: {} {}", answer.status, answer.text));
    }
    false
}

mod every_field_refuses_bad_input_or_stores_it_exactly {
    crate::support::for_each_part!(super::fill_fields);
}

async fn fill_fields(part: Part) {
    let app = TestApp::with(|c| {
        let accounts = c.of::<AccountSettings>();
        accounts.registration = true;
        (accounts.login_limit_account, accounts.login_limit_address) = (1_000_000, 1_000_000);
    })
    .await;
    app.db.allow_unfinished();
    let document = app.nobody.get("/api/openapi.json").await.expect(200).body;
    let bases = bases(&app).await;
    let (strings, numbers) = (corpus(include_str!("corpus/strings.json")), corpus(include_str!("corpus/numbers.json")));
    let bodies = corpus(include_str!("corpus/bodies.json"));
    let mut seen = BTreeSet::new();
    let (mut kept, mut wrong) = (0, vec![]);
    for (path, item) in document["paths"].as_object().unwrap().iter().filter(|(path, _)| part.has(path)) {
        for (method, operation) in item.as_object().unwrap() {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            if schema.is_null() {
                continue;
            }
            let route = format!("{} {path}", method.to_uppercase());
            let good = bases.get(route.as_str()).unwrap_or_else(|| panic!("{route} has no valid body here"));
            let method: Method = method.to_uppercase().parse().unwrap();
            seen.insert(route.clone());
            let also: &[u16] = match path.as_str() {
                // Invalid credentials.
                "/api/auth/login" | "/api/auth/browser/login" | "/api/auth/refresh" | "/api/auth/login-link" => &[401],
                // The same user, member or owner twice, a suspended account.
                p if p.starts_with("/api/users") || p.starts_with("/api/accounts") => &[404, 409, 507],
                // There is no room, or no free address.
                "/api/server/create" => &[507],
                p if p.starts_with("/api/address-pools") => &[409],
                // A guest that was adopted is not unknown any more.
                p if p.ends_with("/adopt") => &[404],
                "/api/auth/tokens" | "/api/ssh-keys" => &[409, 507],
                "/api/server/console" => &[404, 409, 503],
                // An operation holds the server, or its host can't be asked.
                p if p.starts_with("/api/server/{id}/") => &[404, 409, 503],
                _ => &[],
            };
            let (mut leaf, mut named) = (vec![], BTreeSet::new());
            for base in good {
                let mut found = vec![];
                leaves(&base.body, "", &mut found);
                leaf.extend(found.into_iter().map(|(at, is_string)| (base, at, is_string)));
            }
            fields(&document, schema, "", &mut named);
            let filled: BTreeSet<String> = leaf
                .iter()
                .map(|(_, at, _)| at.split('/').filter(|p| p.parse::<usize>().is_err()).collect::<Vec<_>>().join("/"))
                .collect();
            assert!(filled.is_superset(&named), "{route}: the valid body lacks {:?}", named.difference(&filled));

            for (base, at, is_string) in &leaf {
                for input in if *is_string { &strings } else { &numbers } {
                    let mut body = base.body.clone();
                    *body.pointer_mut(at).unwrap() = json!(HERE);
                    let raw = body.to_string().replace(&format!("\"{HERE}\""), &input.json);
                    let what = format!("{route} {at}: {}", input.name);
                    let answer = base.by.raw(method.clone(), &base.path, "application/json", raw.as_bytes()).await;
                    if !judge(&what, &answer, also, &mut wrong) {
                        continue;
                    }
                    // Exactly: in the answer, and when it is read again.
                    let sent: Value =
                        serde_json::from_str(&input.json).unwrap_or_else(|e| panic!("{what}: accepted: {e}"));
                    let mut shown = vec![answer.body.clone(), answer.body["user"].clone()];
                    let made = method == Method::POST && !path.contains("{id}");
                    let id = &answer.body["id"];
                    let one = match made {
                        true => format!("{path}/{}", id.as_str().map_or_else(|| id.to_string(), str::to_owned)),
                        false => base.path.clone(),
                    };
                    let known = if made { format!("{path}/{{id}}") } else { path.clone() };
                    if document["paths"][known]["get"].is_object() && !path.ends_with("/snapshots") {
                        shown.push(base.by.get(&one).await.expect(200).body);
                    }
                    for shown in shown {
                        if let Some(shown) = shown.pointer(at) {
                            let same = *shown == sent || shown.as_f64().is_some_and(|n| Some(n) == sent.as_f64());
                            kept += 1;
                            if !same {
                                wrong.push(format!("{what}: {shown} is not {sent}"));
                            }
                        }
                    }
                    if path.ends_with("/register") {
                        let id = answer.body["user"]["id"].as_i64();
                        let sql =
                            "with a as (delete from accounts where owner_id = $1) delete from users where id = $1";
                        sqlx::query(sql).bind(id).execute(&app.db.pool).await.unwrap();
                    } else if made {
                        let _ = base.by.delete(&one).await;
                    } else if method != Method::POST && method != Method::DELETE {
                        // Restored: a later case may need the name.
                        base.by.send(method.clone(), &base.path, Some(base.body.clone())).await.expect(200);
                    }
                }
            }
            let base = &good[0];
            let mut whole: Vec<(String, String)> = bodies.iter().map(|b| (b.name.clone(), b.json.clone())).collect();
            whole.push(("deep lists".into(), "[".repeat(100_000)));
            whole.push(("deep objects".into(), "{\"a\":".repeat(20_000)));
            whole.push(("ten megabytes".into(), format!("{{\"name\": \"{}\"}}", "a".repeat(10_000_000))));
            for (name, raw) in whole {
                let what = format!("{route}: {name}");
                match base.by.try_send(method.clone(), &base.path, Some(("application/json", raw.into_bytes()))).await {
                    Ok(answer) if judge(&what, &answer, &[], &mut wrong) => wrong.push(format!("{what} was accepted")),
                    Ok(_) => {}
                    // The server may close before everything is sent.
                    Err(error) => {
                        assert!(name == "ten megabytes" && (error.is_request() || error.is_body()), "{what}: {error}")
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let of_this = |route: &&&str| part.has(route.split_once(' ').unwrap().1);
    let known: BTreeSet<String> = bases.keys().filter(of_this).map(ToString::to_string).collect();
    assert_eq!(seen, known, "every body has a base here, and every base a body");
    let least = KEPT.iter().find(|(prefix, _)| *prefix == part.prefix).map_or(0, |(_, least)| *least);
    assert!(kept >= least, "at least {least} unusual but valid values are stored: {kept}");
}

mod every_parameter_survives_bad_input {
    crate::support::for_each_part!(super::fill_parameters);
}

async fn fill_parameters(part: Part) {
    let app = TestApp::new().await;
    let document = app.nobody.get("/api/openapi.json").await.expect(200).body;
    let (strings, numbers) = (corpus(include_str!("corpus/strings.json")), corpus(include_str!("corpus/numbers.json")));
    let texts: Vec<(String, String)> = strings
        .iter()
        .chain(&numbers)
        .map(|i| (i.name.clone(), serde_json::from_str::<String>(&i.json).unwrap_or_else(|_| i.json.clone())))
        // A request's head has a limit of its own.
        .map(|(name, text)| (name, text.chars().take(5_000).collect()))
        .collect();
    let encode = |text: &str| text.bytes().map(|b| format!("%{b:02X}")).collect::<String>();
    let (mut asked, mut wrong) = (0, vec![]);
    for (path, item) in document["paths"].as_object().unwrap().iter().filter(|(path, _)| part.has(path)) {
        for (method, operation) in item.as_object().unwrap() {
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let (name, place) = (parameter["name"].as_str().unwrap(), parameter["in"].as_str().unwrap());
                if place == "header" {
                    continue;
                }
                for (input, text) in &texts {
                    let filled = match place {
                        "path" => path
                            .replace(&format!("{{{name}}}"), &encode(text))
                            .replace("{id}", "4711")
                            .replace("{address}", "10.0.0.1")
                            .replace("{number}", "4711")
                            .replace("{type}", "cpu"),
                        _ => format!("{}?{name}={}", path.replace("{id}", "4711"), encode(text)),
                    };
                    let what = format!("{method} {path} {name}: {input}");
                    let method: Method = method.to_uppercase().parse().unwrap();
                    let body = (!operation["requestBody"].is_null()).then(|| json!({}));
                    let answer = app.provider.send(method, &filled, body).await;
                    // No object with that id, or no such path: an empty or dotted segment makes another path.
                    judge(&what, &answer, &[404, 405], &mut wrong);
                    asked += 1;
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // These routes have no parameters.
    let least = if ["/api/server/create", "/api/auth/browser/"].contains(&part.prefix) { 0 } else { texts.len() };
    assert!(asked >= least, "{asked} requests");
}
