//! API tokens: their scopes, their limit, and revocations, which take effect at once everywhere.

use std::time::Duration;

use accounts::AccountSettings;
use serde_json::json;

use super::second_process;
use crate::support::app::signed_in;
use crate::support::wait::{BLOCKED, released_together};
use crate::support::{Client, PASSWORD, TestApp, wait_for, wait_for_sql};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_takes_effect_in_every_process_at_once() {
    // Far longer than this test takes: a token that ends here was revoked by a notification, not by the cache's expiry.
    let first = TestApp::with(|c| c.of::<AccountSettings>().token_life = Duration::from_secs(3600)).await;
    let second = second_process(&first).await;
    let me = "/api/auth/me";
    // Both processes have just seen the token and cached it; repeated, since one may not be listening yet the first
    // time.
    let seen = async |token: &str| {
        let both = (first.nobody.with_token(token), second.with_token(token));
        for _ in 0..5 {
            both.0.get(me).await.expect(200);
            both.1.get(me).await.expect(200);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        both
    };
    let ends = async |client: &Client| {
        wait_for("a revoked token's end", async || match client.get(me).await.status {
            401 => Ok(()),
            status => Err(status),
        })
        .await;
    };

    let new = json!({ "name": "x", "scopes": ["read"] });
    let made = first.customer.post("/api/auth/tokens", new).await.expect(201).body;
    let (here, there) = seen(made["token"].as_str().unwrap()).await;
    first.customer.delete(&format!("/api/auth/tokens/{}", made["id"].as_str().unwrap())).await.expect(204);
    here.get(me).await.expect(401);
    ends(&there).await;

    let login = json!({ "email": "customer@example.com", "password": PASSWORD });
    let signed_in = first.nobody.post("/api/auth/login", login.clone()).await.expect(200).body;
    let (here, there) = seen(signed_in["accessToken"].as_str().unwrap()).await;
    there.post("/api/auth/logout", None).await.expect(204);
    there.get(me).await.expect(401);
    ends(&here).await;

    // By another process altogether, as the command line does it.
    let signed_in = first.nobody.post("/api/auth/login", login).await.expect(200).body;
    let (here, there) = seen(signed_in["accessToken"].as_str().unwrap()).await;
    sqlx::query("update users set disabled_at = now() where email = 'customer@example.com'")
        .execute(&first.db.pool)
        .await
        .unwrap();
    ends(&here).await;
    ends(&there).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_tokens_are_limited_to_their_scopes_and_revoked_at_once() {
    let app = TestApp::new().await;
    let new = async |body: serde_json::Value| app.customer.post("/api/auth/tokens", body).await;
    let made = new(json!({ "name": "Мониторинг", "scopes": ["read"] })).await.expect(201).body;
    let secret = made["token"].as_str().unwrap();
    let token = app.nobody.with_token(secret);
    token.get("/api/server").await.expect(200);
    token.post("/api/server/create", json!({ "osId": 1, "tariffId": 1 })).await.expect(403);
    // Managing tokens needs a login, so that a leaked token can't gain rights.
    token.get("/api/auth/tokens").await.expect(403);
    token.post("/api/auth/tokens", json!({ "name": "x", "scopes": ["write"] })).await.expect(403);

    let list = app.customer.get("/api/auth/tokens").await.expect(200);
    assert_eq!(list.body.as_array().unwrap().len(), 1);
    assert_eq!(list.body[0]["name"], "Мониторинг");
    assert!(list.body[0]["lastUsedAt"].is_string());
    assert!(!list.text.contains(secret), "the secret is shown once");
    let stored: i64 = sqlx::query_scalar("select count(*) from tokens where encode(hash, 'escape') = $1")
        .bind(secret)
        .fetch_one(&app.db.pool)
        .await
        .unwrap();
    assert_eq!(stored, 0, "tokens are stored as hashes");

    let path = format!("/api/auth/tokens/{}", made["id"].as_str().unwrap());
    app.other.delete(&path).await.expect(404);
    token.get("/api/server").await.expect(200);
    app.customer.delete(&path).await.expect(204);
    token.get("/api/server").await.expect(401);
    app.customer.delete(&path).await.expect(404);

    for bad in [json!([]), json!(["admin"]), json!(["read:server:x"]), json!("read")] {
        new(json!({ "name": "x", "scopes": bad })).await.expect(422);
    }
    let past = (chrono::Utc::now() - chrono::Duration::hours(1)).to_rfc3339();
    new(json!({ "name": "x", "scopes": ["read"], "expiresAt": past })).await.expect(422);
    let soon = (chrono::Utc::now() + chrono::Duration::hours(1)).to_rfc3339();
    let made = new(json!({ "name": "x", "scopes": ["read"], "expiresAt": soon })).await.expect(201).body;
    let short = app.nobody.with_token(made["token"].as_str().unwrap());
    short.get("/api/auth/me").await.expect(200);
    sqlx::query("update tokens set expires_at = now() where id = $1::uuid")
        .bind(made["id"].as_str().unwrap())
        .execute(&app.db.pool)
        .await
        .unwrap();
    wait_for("a token's expiry", async || match short.get("/api/auth/me").await.status {
        401 => Ok(()),
        status => Err(status),
    })
    .await;
}

/// The janitor deletes thousands of expired tokens at a time. Announced as revocations, they would have every process
/// check every socket again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purging_expired_tokens_is_not_announced_as_revocation() {
    let app = TestApp::new().await;
    let new = json!({ "name": "t", "scopes": ["read"] });
    let live = app.customer.post("/api/auth/tokens", new).await.expect(201).body["id"].as_str().unwrap().to_owned();
    sqlx::raw_sql(
        "insert into sessions (id, user_id, expires_at)
         select gen_random_uuid(), id, now() - interval '3 days' from users where email = 'other@example.com';
         insert into tokens (id, kind, hash, user_id, session_id, expires_at)
         select gen_random_uuid(), 'access', sha256(n::text::bytea), s.user_id, s.id, now() - interval '2 days'
         from sessions s, generate_series(1, 20) n where s.expires_at < now();
         insert into tokens (id, kind, hash, user_id, account_id, name, revoked_at)
         select gen_random_uuid(), 'api', sha256('x'::bytea), id,
                (select a.id from accounts a where a.owner_id = users.id), 'x', now() - interval '40 days'
         from users where email = 'other@example.com'",
    )
    .execute(&app.db.pool)
    .await
    .unwrap();
    let mut heard = sqlx::postgres::PgListener::connect(&app.db.url()).await.unwrap();
    heard.listen("auth_changed").await.unwrap();
    accounts::service::purge(&app.service.features.accounts).await.unwrap();
    let left: i64 = sqlx::query_scalar(
        "select (select count(*) from tokens where expires_at < now() or revoked_at is not null)
                + (select count(*) from sessions where expires_at < now())",
    )
    .fetch_one(&app.db.pool)
    .await
    .unwrap();
    assert_eq!(left, 0);
    // Deleting a valid token is announced, and it is the first announcement.
    sqlx::query("delete from tokens where id = $1::uuid").bind(&live).execute(&app.db.pool).await.unwrap();
    let first = tokio::time::timeout(Duration::from_secs(60), heard.recv()).await.expect("a notification").unwrap();
    assert_eq!(first.payload(), format!("token:{live}"));
}

/// A token revoked between a request's head and the end of its body is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_are_checked_again_when_the_body_has_arrived() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let app = TestApp::new().await;
    let make = json!({ "name": "slow", "scopes": ["write"] });
    let token = app.customer.post("/api/auth/tokens", make).await.expect(201).body;
    let (secret, id) = (token["token"].as_str().unwrap(), token["id"].as_str().unwrap());
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2X0OWNlLS+ChqYjV8kNwVsWTB5Yc7vYXxWk0GmKoIh me";
    let body = json!({ "name": "a key", "publicKey": key });
    let body = body.to_string();
    let send = async |meanwhile: Option<&Client>| {
        let mut stream = tokio::net::TcpStream::connect(app.base.trim_start_matches("http://")).await.unwrap();
        let head = format!(
            "POST /api/ssh-keys HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {secret}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body.as_bytes()[..5]).await.unwrap();
        // The head has been processed: there is an audit entry for it.
        let begun = "select count(*) from audit_open where action = 'POST /api/ssh-keys'";
        wait_for_sql(&app.db.pool, "the request", begun, 1_i64).await;
        if let Some(owner) = meanwhile {
            owner.delete(&format!("/api/auth/tokens/{id}")).await.expect(204);
        }
        stream.write_all(&body.as_bytes()[5..]).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = send(None).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    sqlx::query("delete from ssh_keys").execute(&app.db.pool).await.unwrap();
    let answer = send(Some(&app.customer)).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert_eq!(app.customer.get("/api/ssh-keys").await.expect(200).body, json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_api_tokens_holds_under_parallel_requests() {
    let app = TestApp::new().await;
    sqlx::query(
        "insert into tokens (id, kind, hash, user_id, name, account_id)
         select gen_random_uuid(), 'api', sha256(n::text::bytea), $1, n::text, $2 from generate_series(1, 95) n",
    )
    .bind(app.customer_id.0)
    .bind(app.customer_account.0)
    .execute(&app.db.pool)
    .await
    .unwrap();
    // Requests of one login wait for each other, so each of these has its own.
    let mut made = vec![];
    for n in 0..12 {
        let customer = signed_in(&app.db, &app.nobody, "customer@example.com").await;
        let new = json!({ "name": format!("one of many {n}"), "scopes": ["read"] });
        made.push(async move { customer.post("/api/auth/tokens", new).await });
    }
    let statuses = released_together(&app.db.pool, "tokens", made.into_iter()).await;
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 5, "{statuses:?}");
    assert_eq!(app.customer.get("/api/auth/tokens").await.expect(200).body.as_array().unwrap().len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_token_requested_while_the_password_is_reset_does_not_survive_the_reset() {
    let app = TestApp::new().await;
    let mut reset = kernel::db::begin(&app.db.pool).await.unwrap();
    let set = "update users set password_hash = 'another' where id = $1";
    sqlx::query(set).bind(app.customer_id.0).execute(&mut *reset).await.unwrap();
    let client = app.customer.clone();
    let new = json!({ "name": "late", "scopes": ["write"] });
    let made = tokio::spawn(async move { client.post("/api/auth/tokens", new).await });
    wait_for_sql(&app.db.pool, "the request", BLOCKED, 1_i64).await;
    let revoke = "update sessions set revoked_at = now() where user_id = $1";
    sqlx::query(revoke).bind(app.customer_id.0).execute(&mut *reset).await.unwrap();
    reset.commit().await.unwrap();
    made.await.unwrap().expect(401);
    wait_for_sql(&app.db.pool, "API tokens", "select count(*) from tokens where kind = 'api'", 0_i64).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_password_keeps_or_revokes_api_tokens_as_requested() {
    let app = TestApp::new().await;
    let token = async || {
        let new = json!({ "name": "t", "scopes": ["read"] });
        let made = app.customer.post("/api/auth/tokens", new).await.expect(201).body;
        app.nobody.with_token(made["token"].as_str().unwrap())
    };
    let (first, mut old) = (token().await, PASSWORD.to_owned());
    for (new, revoke, status) in
        [("a new long password", json!(false), 200), ("another long password", json!(true), 401)]
    {
        let change = json!({ "currentPassword": old, "newPassword": new, "revokeTokens": revoke });
        app.customer.post("/api/auth/password", change).await.expect(204);
        first.get("/api/server").await.expect(status);
        old = new.to_owned();
    }
    // The provider sets a new password for an account that was taken over.
    let kept = token().await;
    let reset = async |keep| {
        let password = secrecy::SecretString::from("given by the provider");
        accounts::service::reset_password(&app.service.features.accounts, app.customer_id, password, keep)
            .await
            .unwrap()
    };
    assert_eq!(reset(true).await, 0);
    kept.get("/api/server").await.expect(200);
    app.customer.get("/api/auth/me").await.expect(401);
    assert_eq!(reset(false).await, 1);
    kept.get("/api/server").await.expect(401);
}
