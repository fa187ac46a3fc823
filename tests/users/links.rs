//! Links by which staff open somebody's login.

use futures_util::future::join_all;
use kernel::ids::UserId;
use serde_json::{Value, json};

use super::staff;
use crate::support::app::id_of;
use crate::support::client::Response;
use crate::support::{Client, TestApp, wait_for};

async fn link(client: &Client, user: UserId) -> Response {
    client.post(&format!("/api/users/{user}/login-link"), json!({ "reason": "ticket 7: no login" })).await
}

async fn open(app: &TestApp, link: &Response) -> Response {
    app.nobody.post("/api/auth/login-link", json!({ "token": link.body["token"] })).await
}

/// The customer's login, opened by this member of staff.
async fn opened(app: &TestApp, by: &Client) -> Client {
    let opened = open(app, &link(by, app.customer_id).await.expect(201)).await.expect(200);
    app.nobody.with_token(opened.body["accessToken"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_opens_a_login_once_however_many_try() {
    let app = TestApp::new().await;
    let made = link(&app.provider, app.customer_id).await.expect(201);
    let token = made.body["token"].as_str().unwrap();
    assert_eq!(made.body["url"], format!("http://127.0.0.1:5000/login-link/#{token}"));
    for page in ["/login-link/", "/login-link/login-link.js"] {
        assert!(app.nobody.get(page).await.expect(200).headers.contains_key("content-security-policy"));
    }
    let tries = join_all((0..8).map(|_| open(&app, &made))).await;
    let (done, refused): (Vec<_>, Vec<_>) = tries.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((done.len(), refused.len()), (1, 7));
    assert!(refused.iter().all(|answer| answer.status == 401), "{refused:?}");
    open(&app, &made).await.expect(401);
    let session = &done[0].body;
    assert_eq!((&session["tokenType"], &session["expiresIn"]), (&json!("Bearer"), &json!(3600)));
    assert!(session.get("refreshToken").is_none(), "{session}");
    let me = app.nobody.with_token(session["accessToken"].as_str().unwrap());
    assert_eq!(me.get("/api/auth/me").await.expect(200).body["email"], "customer@example.com");

    // The user sees that it happened and why, and not who did it or where from.
    let log = app.customer.get("/api/audit?action=POST%20/api/users/{id}/login-link").await.expect(200).body;
    let entry = &log["data"][0];
    assert_eq!((&entry["role"], &entry["reason"]), (&json!("provider"), &json!("ticket 7: no login")), "{log}");
    assert_eq!((&entry["userId"], &entry["address"]), (&Value::Null, &Value::Null));
    let used = app.customer.get("/api/audit?action=POST%20/api/auth/login-link").await.expect(200).body;
    assert_eq!(used["total"], 0, "{used}");
    let used = app.provider.get("/api/audit?action=POST%20/api/auth/login-link").await.expect(200);
    assert!(used.text.contains("ticket 7"), "{}", used.text);
    let sessions = app.customer.get("/api/auth/sessions").await.expect(200).body;
    let shown = sessions.as_array().unwrap().iter().find(|session| session["byProvider"] == true).unwrap();
    assert_eq!((&shown["address"], &shown["userAgent"]), (&json!(""), &json!("")));
    // They may end it.
    app.customer.delete(&format!("/api/auth/sessions/{}", shown["id"].as_str().unwrap())).await.expect(204);
    me.get("/api/auth/me").await.expect(401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_is_valid_for_half_a_minute() {
    let app = TestApp::new().await;
    let made = link(&app.provider, app.customer_id).await.expect(201);
    let seconds: f64 =
        sqlx::query_scalar("select extract(epoch from expires_at - created_at)::float8 from login_links")
            .fetch_one(&app.db.pool)
            .await
            .unwrap();
    assert_eq!(seconds, 30.0);
    sqlx::query("update login_links set expires_at = now()").execute(&app.db.pool).await.unwrap();
    open(&app, &made).await.expect(401);
    for bad in ["nonsense", "ink_l_AAAA"] {
        app.nobody.post("/api/auth/login-link", json!({ "token": bad })).await.expect(401);
    }
    app.nobody.post("/api/auth/login-link", json!({ "token": "" })).await.expect(422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_are_for_support_to_open_customers_logins_with_a_reason() {
    let app = TestApp::new().await;
    let (support, ledger) = (staff(&app, "support", "support").await, staff(&app, "ledger", "billing").await);
    link(&support, app.customer_id).await.expect(201);
    for client in [&ledger, &app.customer, &app.other] {
        link(client, app.customer_id).await.expect(403);
    }
    for email in ["provider@example.com", "ledger@example.com"] {
        link(&support, id_of(&app.db, email).await).await.expect(409);
    }
    link(&support, UserId(4711)).await.expect(404);
    let path = format!("/api/users/{}/login-link", app.customer_id);
    for reason in [json!({}), json!({ "reason": "" }), json!({ "reason": " " }), json!({ "reason": "a".repeat(501) })] {
        support.post(&path, reason).await.expect(422);
    }
    let read = json!({ "name": "t", "scopes": ["read"] });
    let read = support.post("/api/auth/tokens", read).await.expect(201).body;
    link(&app.nobody.with_token(read["token"].as_str().unwrap()), app.customer_id).await.expect(403);

    let other = id_of(&app.db, "other@example.com").await;
    let disabled = json!({ "disabled": true });
    app.provider.send(reqwest::Method::PATCH, &format!("/api/users/{other}"), Some(disabled)).await.expect(200);
    link(&app.provider, other).await.expect(409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn support_only_looks_and_nobody_changes_how_the_user_signs_in() {
    let app = TestApp::new().await;
    let support = staff(&app, "support", "support").await;
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2X0OWNlLS+ChqYjV8kNwVsWTB5Yc7vYXxWk0GmKoIh me";
    let key = json!({ "name": "k", "publicKey": key });
    let (looks, acts) = (opened(&app, &support).await, opened(&app, &app.provider).await);
    looks.get("/api/ssh-keys").await.expect(200);
    looks.post("/api/ssh-keys", key.clone()).await.expect(403);
    acts.post("/api/ssh-keys", key).await.expect(201);
    for me in [&looks, &acts] {
        me.post("/api/auth/tokens", json!({ "name": "t", "scopes": ["read"] })).await.expect(403);
        me.get("/api/auth/sessions").await.expect(403);
        me.get("/api/users").await.expect(403);
        me.post("/api/auth/password", json!({ "currentPassword": "a", "newPassword": "a long password" }))
            .await
            .expect(403);
    }
    // Who acts is in the log, and the user does not see who.
    let log = app.provider.get("/api/audit?action=POST%20/api/ssh-keys&limit=1").await.expect(200).body;
    let provider = id_of(&app.db, "provider@example.com").await;
    assert_eq!((&log["data"][0]["role"], &log["data"][0]["userId"]), (&json!("provider"), &json!(provider)), "{log}");
    // Whoever has such a login may end it.
    looks.post("/api/auth/logout", None).await.expect(204);
    looks.get("/api/ssh-keys").await.expect(401);
    app.customer.get("/api/ssh-keys").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opened_login_ends_with_its_opener_s_role() {
    let app = TestApp::new().await;
    let change = async |email: &str, change: Value| {
        let path = format!("/api/users/{}", id_of(&app.db, email).await);
        app.provider.send(reqwest::Method::PATCH, &path, Some(change)).await.expect(200);
    };
    let key = json!({ "name": "k", "publicKey": "none" });
    for (n, ends) in [json!({ "staffRole": null }), json!({ "staffRole": "billing" }), json!({ "disabled": true })]
        .into_iter()
        .enumerate()
    {
        let support = staff(&app, &format!("support{n}"), "support").await;
        let me = opened(&app, &support).await;
        let unused = link(&support, app.customer_id).await.expect(201);
        me.get("/api/auth/me").await.expect(200);
        change(&format!("support{n}@example.com"), ends).await;
        me.get("/api/auth/me").await.expect(401);
        open(&app, &unused).await.expect(401);
    }
    // A provider who is support from now on only looks.
    let second = staff(&app, "second", "admin").await;
    let me = opened(&app, &second).await;
    me.post("/api/ssh-keys", key.clone()).await.expect(422);
    change("second@example.com", json!({ "staffRole": "support" })).await;
    me.get("/api/auth/me").await.expect(200);
    me.post("/api/ssh-keys", key).await.expect(403);
    // Nobody opens the login of staff, and none stays open.
    change("customer@example.com", json!({ "staffRole": "support" })).await;
    me.get("/api/auth/me").await.expect(401);
    app.customer.get("/api/auth/me").await.expect(200);
}

/// Sockets stay open after their token was checked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_view_of_an_opened_login_ends_with_its_opener_s_role() {
    let app = TestApp::new().await;
    let support = staff(&app, "support", "support").await;
    let me = opened(&app, &support).await;
    let mut live = crate::support::Live::connected(&app.base, me.token.as_deref().unwrap()).await;
    let support = id_of(&app.db, "support@example.com").await;
    let gone = json!({ "staffRole": null });
    app.provider.send(reqwest::Method::PATCH, &format!("/api/users/{support}"), Some(gone)).await.expect(200);
    live.next("disconnect").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opened_login_ends_after_an_hour_and_with_its_user_s_sessions() {
    let app = TestApp::new().await;
    let me = opened(&app, &app.provider).await;
    sqlx::query("update sessions set expires_at = now() where opened_by is not null")
        .execute(&app.db.pool)
        .await
        .unwrap();
    wait_for("the end of the hour", async || (me.get("/api/auth/me").await.status == 401).then_some(())).await;
    let me = opened(&app, &app.provider).await;
    app.provider.delete(&format!("/api/users/{}/sessions", app.customer_id)).await.expect(204);
    me.get("/api/auth/me").await.expect(401);
    let made = link(&app.provider, app.customer_id).await.expect(201);
    let path = format!("/api/users/{}", app.customer_id);
    app.provider.send(reqwest::Method::PATCH, &path, Some(json!({ "disabled": true }))).await.expect(200);
    open(&app, &made).await.expect(401);
}
