//! Users as the provider's staff manage them, and links that open somebody's login.

mod commands;
mod links;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::app::{account_of, id_of, signed_in};
use crate::support::child::command;
use crate::support::{Client, PASSWORD, TestApp};

/// A new member of staff, signed in.
async fn staff(app: &TestApp, name: &str, role: &str) -> Client {
    let email = format!("{name}@example.com");
    let new = json!({ "email": email, "name": name, "password": PASSWORD, "staffRole": role });
    app.provider.post("/api/users", new).await.expect(201);
    signed_in(&app.db, &app.nobody, &email).await
}

async fn patch(client: &Client, user: impl std::fmt::Display, change: Value) -> crate::support::client::Response {
    client.send(Method::PATCH, &format!("/api/users/{user}"), Some(change)).await
}

/// A server of this account, on a host that is switched off.
pub(crate) async fn server_of(app: &TestApp, account: i64) -> i64 {
    sqlx::query_scalar(
        "with t as (insert into tariffs (name, kind, cores, memory_mib, disk_gib, price)
                    values ('t' || $1::bigint, 'lxc', 1, 128, 1, 1) returning id),
              i as (insert into images (name, kind) values ('i' || $1::bigint, 'lxc') returning id),
              h as (insert into hosts (name, kind, config_sealed, enabled)
                    values ('h' || $1::bigint, 'incus', '', false) returning id)
         insert into servers (uuid, account_id, tariff_id, image_id, host_id, node, guest_number, kind, name, status,
                              cores, memory_mib, disk_gib)
         select gen_random_uuid(), $1, t.id, i.id, h.id, 'n', nextval('guest_numbers'), 'lxc', 's', 'stopped', 1, 128, 1
         from t, i, h returning id",
    )
    .bind(account)
    .fetch_one(&app.db.pool)
    .await
    .unwrap()
}

fn emails(list: &Value) -> Vec<&str> {
    list["data"].as_array().unwrap().iter().map(|user| user["email"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn staff_list_and_find_users_and_only_providers_change_them() {
    let app = TestApp::new().await;
    let (support, ledger) = (staff(&app, "support", "support").await, staff(&app, "ledger", "billing").await);
    let named = json!({ "email": "ivan@example.org", "name": "Иван 100%", "password": PASSWORD });
    app.provider.post("/api/users", named).await.expect(201);
    let all = ["provider", "customer", "other", "support", "ledger"].map(|name| format!("{name}@example.com"));
    for client in [&app.provider, &support, &ledger] {
        let list = client.get("/api/users").await.expect(200).body;
        assert_eq!(emails(&list)[..5], all);
        assert_eq!(
            (&list["total"], &list["pages"], &list["data"][0]["disabledAt"]),
            (&json!(6), &json!(1), &Value::Null)
        );
        let second = client.get("/api/users?limit=2&page=2").await.expect(200).body;
        assert_eq!((emails(&second), &second["pages"]), (vec!["other@example.com", "support@example.com"], &json!(3)));
        for (text, found) in [("IVAN@", 1), ("иван", 1), ("100%25", 1), ("%25%25", 0), ("example.com", 5)] {
            let list = client.get(&format!("/api/users?q={text}")).await.expect(200).body;
            assert_eq!(list["total"], found, "{text}: {list}");
        }
        let id = app.customer_id;
        let user = client.get(&format!("/api/users/{id}")).await.expect(200).body;
        let own =
            json!({ "id": app.customer_account, "kind": "customer", "name": "customer@example.com", "role": "owner" });
        assert_eq!(user["accounts"], json!([own]), "{user}");
        assert!(!user.to_string().contains("password"), "{user}");
    }
    for client in [&support, &ledger, &app.customer] {
        let new = json!({ "email": "new@example.com", "name": "" });
        client.post("/api/users", new).await.expect(403);
        patch(client, app.customer_id, json!({ "name": "x" })).await.expect(403);
        client.delete(&format!("/api/users/{}", app.customer_id)).await.expect(403);
        client.delete(&format!("/api/users/{}/sessions", app.customer_id)).await.expect(403);
    }
    app.customer.get("/api/users").await.expect(403);
    app.customer.get(&format!("/api/users/{}", app.customer_id)).await.expect(403);
    app.provider.get("/api/users/4711").await.expect(404);
    for bad in ["page=0", "limit=101", "role=x", "q=%00"] {
        app.provider.get(&format!("/api/users?{bad}")).await.expect(422);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_user_has_an_account_and_a_generated_password_is_shown_once() {
    let app = TestApp::new().await;
    let new = json!({ "email": "New@example.com", "name": "New" });
    let made = app.provider.post_once("/api/users", "one", &new).await.expect(201).body;
    let password = made["password"].as_str().unwrap();
    let login = json!({ "email": "new@example.com", "password": password });
    let user = app.nobody.post("/api/auth/login", login).await.expect(200).body["user"].clone();
    assert_eq!((&user["id"], &user["staffRole"], &user["name"]), (&made["id"], &Value::Null, &json!("New")));
    assert!(user["emailConfirmedAt"].is_string(), "the provider knows whose address it is");
    assert_eq!(user["accountId"], json!(account_of(&app.db, "New@example.com").await));
    let again = app.provider.post_once("/api/users", "one", &new).await.expect(201).body;
    assert_eq!(again, made, "the same request, the same password");
    let shown = app.provider.get(&format!("/api/users/{}", made["id"])).await.expect(200).body;
    assert!(shown.get("password").is_none());
    assert_eq!(app.provider.post("/api/users", new).await.expect(409).code(), "ALREADY_EXISTS");

    let given = json!({ "email": "g@example.com", "name": "", "password": "a long password", "staffRole": "billing" });
    let made = app.provider.post("/api/users", given).await.expect(201).body;
    assert!(made.get("password").is_none() && made["staffRole"] == "billing", "{made}");
    for (field, bad) in [
        ("email", json!({ "email": "nonsense", "name": "" })),
        ("password", json!({ "email": "a@example.com", "name": "", "password": "short" })),
        ("name", json!({ "email": "a@example.com", "name": " a" })),
        ("staffRole", json!({ "email": "a@example.com", "name": "", "staffRole": "unknown" })),
    ] {
        let answer = app.provider.post("/api/users", bad).await.expect(422);
        assert!(answer.body["details"]["fields"][field].is_string(), "{field}: {}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disabled_user_loses_everything_at_once_and_gets_the_tokens_back() {
    let app = TestApp::new().await;
    let made = app.customer.post("/api/auth/tokens", json!({ "name": "t", "scopes": ["read"] })).await.expect(201).body;
    let token = app.nobody.with_token(made["token"].as_str().unwrap());
    token.get("/api/server").await.expect(200);
    let login = json!({ "email": "customer@example.com", "password": PASSWORD });
    let disabled = patch(&app.provider, app.customer_id, json!({ "disabled": true })).await.expect(200).body;
    assert!(disabled["disabledAt"].is_string());
    app.customer.get("/api/auth/me").await.expect(401);
    token.get("/api/server").await.expect(401);
    app.nobody.post("/api/auth/login", login.clone()).await.expect(401);
    let twice = patch(&app.provider, app.customer_id, json!({ "disabled": true })).await.expect(200).body;
    assert_eq!(twice["disabledAt"], disabled["disabledAt"]);
    let enabled = json!({ "disabled": false, "name": "Back again" });
    let enabled = patch(&app.provider, app.customer_id, enabled).await.expect(200).body;
    assert_eq!((&enabled["disabledAt"], &enabled["name"]), (&Value::Null, &json!("Back again")));
    token.get("/api/server").await.expect(200);
    app.customer.get("/api/auth/me").await.expect(401);
    app.nobody.post("/api/auth/login", login).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_staff_role_is_given_and_taken_away_at_once() {
    let app = TestApp::new().await;
    app.customer.get("/api/users").await.expect(403);
    patch(&app.provider, app.customer_id, json!({ "staffRole": "support" })).await.expect(200);
    app.customer.get("/api/users").await.expect(200);
    let same = patch(&app.provider, app.customer_id, json!({})).await.expect(200).body;
    assert_eq!(same["staffRole"], "support");
    patch(&app.provider, app.customer_id, json!({ "staffRole": null })).await.expect(200);
    app.customer.get("/api/users").await.expect(403);
    patch(&app.provider, 4711, json!({ "disabled": true })).await.expect(404);
    patch(&app.provider, app.customer_id, json!({ "email": "x@example.com" })).await.expect(422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_takes_away_their_own_rights_or_the_last_provider_s() {
    let app = TestApp::new().await;
    let me = id_of(&app.db, "provider@example.com").await;
    let second = staff(&app, "second", "admin").await;
    let refusals = [json!({ "disabled": true }), json!({ "staffRole": null }), json!({ "staffRole": "support" })];
    for change in &refusals {
        assert_eq!(patch(&app.provider, me, change.clone()).await.expect(409).code(), "CONFLICT");
    }
    app.provider.delete(&format!("/api/users/{me}")).await.expect(409);
    patch(&app.provider, me, json!({ "name": "Still here", "staffRole": "admin" })).await.expect(200);
    // What isn't enabled does not count.
    patch(&second, me, json!({ "disabled": true })).await.expect(200);
    let other = id_of(&app.db, "second@example.com").await;
    let run =
        async |line: &str| command(&app.db, app.data.path()).args(line.split_whitespace()).output().await.unwrap();
    for line in ["user disable second@example.com", "user delete second@example.com"] {
        let refused = run(line).await;
        assert_eq!(refused.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&refused.stderr).contains("last"), "{refused:?}");
    }
    patch(&second, me, json!({ "disabled": false })).await.expect(200);
    app.provider.get("/api/users").await.expect(401);
    let back = signed_in(&app.db, &app.nobody, "provider@example.com").await;
    patch(&back, other, json!({ "staffRole": "support" })).await.expect(200);
}

/// Each provider takes the other's role at the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn providers_who_demote_each_other_leave_one() {
    let app = TestApp::new().await;
    let second = staff(&app, "second", "admin").await;
    let ids = [id_of(&app.db, "provider@example.com").await, id_of(&app.db, "second@example.com").await];
    for round in 0..8 {
        let demoted = [(&app.provider, ids[1]), (&second, ids[0])].map(|(by, id)| async move {
            match round % 2 {
                0 => patch(by, id, json!({ "staffRole": null })).await.status,
                _ => patch(by, id, json!({ "staffRole": "billing" })).await.status,
            }
        });
        let done = join_all(demoted).await;
        assert_eq!(done.iter().filter(|status| **status == 200).count(), 1, "{done:?}");
        let left = "select count(*) from users where staff_role = 'admin' and disabled_at is null";
        assert_eq!(sqlx::query_scalar::<_, i64>(left).fetch_one(&app.db.pool).await.unwrap(), 1);
        let again = "update users set staff_role = 'admin' where id = any($1)";
        sqlx::query(again).bind(&ids.map(|id| id.0)[..]).execute(&app.db.pool).await.unwrap();
        for client in [&app.provider, &second] {
            crate::support::eventually(client, "/api/users", |_| true).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_user_leaves_nothing_but_their_id() {
    let app = TestApp::new().await;
    let (me, account) = (app.customer_id, app.customer_account);
    let member = json!({ "email": "other@example.com", "role": "member" });
    app.customer.post(&format!("/api/accounts/{account}/members"), member).await.expect(201);
    let theirs = account_of(&app.db, "other@example.com").await;
    let invited = json!({ "email": "customer@example.com", "role": "viewer" });
    app.other.post(&format!("/api/accounts/{theirs}/members"), invited).await.expect(201);
    let token = json!({ "name": "t", "scopes": ["read"] });
    let token = app.other.acting_for(account).post("/api/auth/tokens", token).await.expect(201).body;
    let token = app.nobody.with_token(token["token"].as_str().unwrap());
    token.get("/api/server").await.expect(200);

    let server = server_of(&app, account.0).await;
    let refused = app.provider.delete(&format!("/api/users/{me}")).await.expect(409);
    assert!(refused.text.contains(&account.to_string()), "{}", refused.text);
    sqlx::query("update servers set deleted_at = now(), reserved = false where id = $1")
        .bind(server)
        .execute(&app.db.pool)
        .await
        .unwrap();
    app.provider.delete(&format!("/api/users/{me}")).await.expect(204);
    app.customer.get("/api/auth/me").await.expect(401);
    token.get("/api/server").await.expect(401);
    app.other.acting_for(account).get("/api/server").await.expect(404);
    let members = app.other.get(&format!("/api/accounts/{theirs}/members")).await.expect(200).body;
    assert_eq!(members["total"], 1, "{members}");
    app.provider.get(&format!("/api/users/{me}")).await.expect(404);
    app.provider.delete(&format!("/api/users/{me}")).await.expect(404);
    app.provider.get(&format!("/api/accounts/{account}")).await.expect(404);
    let row: (String, String, String, bool, bool) = sqlx::query_as(
        "select email, name, password_hash, disabled_at is not null, deleted_at is not null from users where id = $1",
    )
    .bind(me.0)
    .fetch_one(&app.db.pool)
    .await
    .unwrap();
    assert_eq!(row, (format!("deleted-{me}@invalid"), String::new(), "!".to_owned(), true, true));
    // Nobody signs in as what is left, and the address is free.
    let left = json!({ "email": format!("deleted-{me}@invalid"), "password": PASSWORD });
    app.nobody.post("/api/auth/login", left).await.expect(401);
    let again = json!({ "email": "customer@example.com", "name": "" });
    app.provider.post("/api/users", again).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_s_sessions_are_ended_and_their_tokens_stay() {
    let app = TestApp::new().await;
    let token = json!({ "name": "t", "scopes": ["read"] });
    let token = app.customer.post("/api/auth/tokens", token).await.expect(201).body;
    let token = app.nobody.with_token(token["token"].as_str().unwrap());
    app.provider.delete(&format!("/api/users/{}/sessions", app.customer_id)).await.expect(204);
    app.customer.get("/api/auth/me").await.expect(401);
    token.get("/api/server").await.expect(200);
    app.other.get("/api/auth/me").await.expect(200);
    app.provider.delete("/api/users/4711/sessions").await.expect(404);
}
