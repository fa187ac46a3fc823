//! Signing in and out, rotating tokens, API tokens and their scopes, limits on guessing.

use std::time::Duration;

use accounts::AccountSettings;
use serde_json::json;

use crate::support::{Client, PASSWORD, TestApp, wait_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registration_is_closed_unless_the_provider_opens_it() {
    let app = TestApp::new().await;
    let new = json!({ "email": "new@example.com", "password": "a long password" });
    assert_eq!(app.nobody.post("/api/auth/register", new.clone()).await.expect(403).code(), "FORBIDDEN");

    let open = TestApp::with(|c| c.of::<AccountSettings>().registration = true).await;
    let signed_in = open.nobody.post("/api/auth/register", new.clone()).await.expect(201).body;
    assert_eq!(signed_in["user"]["role"], "customer");
    assert_eq!(signed_in["tokenType"], "Bearer");
    let me = open.nobody.with_token(signed_in["accessToken"].as_str().unwrap());
    assert_eq!(me.get("/api/auth/me").await.expect(200).body["email"], "new@example.com");
    // The same address in different case is the same address.
    let again = json!({ "email": "NEW@example.com", "password": "a long password" });
    assert_eq!(open.nobody.post("/api/auth/register", again).await.expect(409).code(), "ALREADY_EXISTS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_addresses_that_can_be_mailed_can_register() {
    let app = TestApp::with(|c| c.of::<AccountSettings>().registration = true).await;
    let register = async |email: &str| {
        let new = json!({ "email": email, "password": "a long password" });
        app.nobody.post("/api/auth/register", new).await
    };
    for (bad, words) in [
        ("x@[192.0.2.1]", "not an IP address"),
        ("x@[IPv6:2001:db8::1]", "not an IP address"),
        ("x@пример.example", "xn--"),
        ("почта@example.com", "ASCII"),
        ("x@192.0.2.1", "such as"),
        ("\"a b\"@example.com", "such as"),
    ] {
        let answer = register(bad).await.expect(422);
        let told = answer.body["details"]["fields"]["email"].as_str().unwrap();
        assert!(told.contains(words), "{bad}: {told}");
    }
    register("x@xn--e1afmkfd.example").await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_and_an_unknown_address_look_the_same() {
    let app = TestApp::new().await;
    let try_login = async |email: &str, password: &str| {
        let answer = app.nobody.post("/api/auth/login", json!({ "email": email, "password": password })).await;
        (answer.status, answer.body["error"].clone())
    };
    let wrong = try_login("customer@example.com", "not the password").await;
    assert_eq!(wrong.0, 401);
    assert_eq!(wrong, try_login("stranger@example.com", "not the password").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refresh_tokens_rotate_and_reuse_ends_the_login() {
    let app = TestApp::new().await;
    let login = json!({ "email": "customer@example.com", "password": PASSWORD });
    let first = app.nobody.post("/api/auth/login", login).await.expect(200).body;
    let refresh =
        async |token: &serde_json::Value| app.nobody.post("/api/auth/refresh", json!({ "refreshToken": token })).await;
    let second = refresh(&first["refreshToken"]).await.expect(200).body;
    assert_ne!(first["refreshToken"], second["refreshToken"]);
    let client = app.nobody.with_token(second["accessToken"].as_str().unwrap());
    client.get("/api/auth/me").await.expect(200);

    // A thief and the owner both hold the first token: the second use ends the login for both.
    let third = refresh(&second["refreshToken"]).await.expect(200).body;
    refresh(&first["refreshToken"]).await.expect(401);
    client.get("/api/auth/me").await.expect(401);
    refresh(&third["refreshToken"]).await.expect(401);
    // A refresh token gives no access, and an access token can't be used to refresh.
    let as_access = app.nobody.with_token(second["refreshToken"].as_str().unwrap());
    as_access.get("/api/auth/me").await.expect(401);
    refresh(&first["accessToken"]).await.expect(401);
}

/// A client that lost the answer sends the request again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_refresh_is_tolerated_at_first_and_ends_the_login_later() {
    let app = TestApp::new().await;
    let login = json!({ "email": "customer@example.com", "password": PASSWORD });
    let first = app.nobody.post("/api/auth/login", login).await.expect(200).body;
    let uses = (0..8).map(|_| {
        let (client, token) = (app.nobody.clone(), first["refreshToken"].clone());
        tokio::spawn(async move { client.post("/api/auth/refresh", json!({ "refreshToken": token })).await })
    });
    let mut last = None;
    for one in uses.collect::<Vec<_>>() {
        last = Some(one.await.unwrap().expect(200).body);
    }
    let client = app.nobody.with_token(last.unwrap()["accessToken"].as_str().unwrap());
    client.get("/api/auth/me").await.expect(200);

    sqlx::query("update tokens set used_at = used_at - interval '1 minute' where used_at is not null")
        .execute(&app.db.pool)
        .await
        .unwrap();
    app.nobody.post("/api/auth/refresh", json!({ "refreshToken": first["refreshToken"] })).await.expect(401);
    client.get("/api/auth/me").await.expect(401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logging_out_ends_the_login_at_once() {
    let app = TestApp::new().await;
    app.customer.post("/api/auth/logout", None).await.expect(204);
    app.customer.get("/api/auth/me").await.expect(401);
    app.other.get("/api/auth/me").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changing_the_password_ends_the_other_logins() {
    let app = TestApp::new().await;
    let login = json!({ "email": "customer@example.com", "password": PASSWORD });
    let elsewhere = app.nobody.post("/api/auth/login", login.clone()).await.expect(200).body;
    let elsewhere = app.nobody.with_token(elsewhere["accessToken"].as_str().unwrap());

    let wrong = json!({ "currentPassword": "not it", "newPassword": "a new long password" });
    let refused = app.customer.post("/api/auth/password", wrong).await.expect(422);
    assert!(refused.body["details"]["fields"]["currentPassword"].is_string());
    let short = json!({ "currentPassword": PASSWORD, "newPassword": "short" });
    app.customer.post("/api/auth/password", short).await.expect(422);
    elsewhere.get("/api/auth/me").await.expect(200);

    let change = json!({ "currentPassword": PASSWORD, "newPassword": "a new long password" });
    app.customer.post("/api/auth/password", change).await.expect(204);
    app.customer.get("/api/auth/me").await.expect(200);
    elsewhere.get("/api/auth/me").await.expect(401);
    app.nobody.post("/api/auth/login", login).await.expect(401);
    let new = json!({ "email": "customer@example.com", "password": "a new long password" });
    app.nobody.post("/api/auth/login", new).await.expect(200);
}

/// Somebody who knows the old password may be signing in at that very moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_login_with_the_old_password_survives_its_change() {
    let app = TestApp::with(|c| c.of::<AccountSettings>().login_limit_account = 1000).await;
    let owner = crate::support::app::login(&app.nobody, "customer@example.com").await;
    let mut old = PASSWORD.to_owned();
    for round in 0..3 {
        let new = format!("{PASSWORD} {round}");
        let sign_in = async |n: u64| {
            tokio::time::sleep(Duration::from_millis(n * 10)).await;
            app.nobody.post("/api/auth/login", json!({ "email": "customer@example.com", "password": old })).await
        };
        let body = json!({ "currentPassword": old, "newPassword": new });
        let (logins, changed) =
            tokio::join!(futures_util::future::join_all((0..12).map(sign_in)), owner.post("/api/auth/password", body));
        changed.expect(204);
        for login in logins.iter().filter(|login| login.status == 200) {
            let token = login.body["accessToken"].as_str().unwrap();
            app.nobody.with_token(token).get("/api/auth/me").await.expect(401);
        }
        old = new;
    }
}

async fn second_process(first: &TestApp) -> Client {
    let app = innkeeper::run::Service::new(first.core.config.clone()).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(app.serve(listener, std::future::pending()));
    Client::new(&base, None)
}

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
async fn login_attempts_are_limited_across_processes() {
    let first = TestApp::with(|c| c.of::<AccountSettings>().login_limit_account = 4).await;
    let second = second_process(&first).await;
    let wrong = json!({ "email": "customer@example.com", "password": "a guess" });
    for n in 0..4 {
        let client = if n % 2 == 0 { &first.nobody } else { &second };
        client.post("/api/auth/login", wrong.clone()).await.expect(401);
    }
    let right = json!({ "email": "Customer@example.com", "password": PASSWORD });
    for client in [&first.nobody, &second] {
        let limited = client.post("/api/auth/login", right.clone()).await.expect(429);
        assert_eq!(limited.code(), "RATE_LIMITED");
        let after: u64 = limited.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=900).contains(&after), "{after}");
    }
    // Other accounts are not locked out.
    let other = json!({ "email": "other@example.com", "password": PASSWORD });
    first.nobody.post("/api/auth/login", other).await.expect(200);
    // The window passes.
    sqlx::query(sqlx::AssertSqlSafe("update login_attempts set window_start = now() - interval '16 minutes'"))
        .execute(&first.db.pool)
        .await
        .unwrap();
    second.post("/api/auth/login", right).await.expect(200);
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

/// Somebody who guesses a password is blocked; the owner, who signs in from elsewhere or from a known address, is not.
/// The guesses of many addresses together are limited, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn password_guessing_does_not_lock_the_owner_out() {
    let app = TestApp::with(|c| {
        c.of::<AccountSettings>().login_limit_account = 3;
        c.trusted_proxies = "127.0.0.1".to_owned().try_into().unwrap();
    })
    .await;
    let from = async |address: &str, password: &str| {
        let login = json!({ "email": "customer@example.com", "password": password });
        let request = app.nobody.http.post(format!("{}/api/auth/login", app.base)).json(&login);
        request.header("x-forwarded-for", address).send().await.unwrap().status().as_u16()
    };
    let home = "203.0.113.1";
    assert_eq!(from(home, PASSWORD).await, 200);
    for expected in [401, 401, 401, 429, 429] {
        assert_eq!(from("198.51.100.1", "a guess").await, expected);
    }
    assert_eq!(from("198.51.100.1", PASSWORD).await, 429, "even the right password is refused from there");
    assert_eq!((from(home, PASSWORD).await, from("203.0.113.77", PASSWORD).await), (200, 200));
    let mut looked_at = 3;
    for n in 2..=60 {
        match from(&format!("198.51.100.{n}"), "a guess").await {
            401 => looked_at += 1,
            status => assert_eq!(status, 429),
        }
    }
    assert_eq!(looked_at, 30, "ten times what one network may try");
    assert_eq!(from("192.0.2.1", PASSWORD).await, 429, "an address that never signed in");
    assert_eq!(from(home, PASSWORD).await, 200);
    // A signed-in user can still change their password.
    let change = json!({ "currentPassword": PASSWORD, "newPassword": "another long password" });
    app.customer.post("/api/auth/password", change).await.expect(204);
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
         insert into tokens (id, kind, hash, user_id, name, revoked_at)
         select gen_random_uuid(), 'api', sha256('x'::bytea), id, 'x', now() - interval '40 days'
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
    let body = json!({ "name": "a key", "publicKey": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2X0OWNlLS+ChqYjV8kNwVsWTB5Yc7vYXxWk0GmKoIh me" });
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
        crate::support::wait_for_sql(&app.db.pool, "the request", begun, 1_i64).await;
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
        "insert into tokens (id, kind, hash, user_id, name)
         select gen_random_uuid(), 'api', sha256(n::text::bytea), $1, n::text from generate_series(1, 95) n",
    )
    .bind(app.customer_id.0)
    .execute(&app.db.pool)
    .await
    .unwrap();
    let made = (0..40).map(|n| {
        let customer = app.customer.clone();
        let new = json!({ "name": format!("one of many {n}"), "scopes": ["read"] });
        tokio::spawn(async move { customer.post("/api/auth/tokens", new).await.status })
    });
    let mut statuses = vec![];
    for one in made.collect::<Vec<_>>() {
        statuses.push(one.await.unwrap());
    }
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 5, "{statuses:?}");
    assert_eq!(app.customer.get("/api/auth/tokens").await.expect(200).body.as_array().unwrap().len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_can_be_listed_and_ended_singly_or_all_but_the_current_one() {
    let app = TestApp::new().await;
    let here = crate::support::app::login(&app.nobody, "customer@example.com").await;
    let there = crate::support::app::login(&app.nobody, "customer@example.com").await;
    let all = here.get("/api/auth/sessions").await.expect(200).body;
    let all = all.as_array().unwrap();
    // These two, and the one that the test started with.
    assert_eq!(all.len(), 3, "{all:?}");
    assert_eq!(all.iter().filter(|s| s["current"] == true).count(), 1);
    assert!(all[0]["current"] == true && all[0]["address"] == "127.0.0.1" && all[0]["lastUsedAt"].is_string());
    let of_there = there.get("/api/auth/sessions").await.expect(200).body[0]["id"].as_str().unwrap().to_owned();

    let path = format!("/api/auth/sessions/{of_there}");
    app.other.delete(&path).await.expect(404);
    there.get("/api/auth/me").await.expect(200);
    here.delete(&path).await.expect(204);
    there.get("/api/auth/me").await.expect(401);
    here.delete(&path).await.expect(404);
    here.delete("/api/auth/sessions").await.expect(204);
    app.customer.get("/api/auth/me").await.expect(401);
    assert_eq!(here.get("/api/auth/sessions").await.expect(200).body.as_array().unwrap().len(), 1);
    app.other.get("/api/auth/me").await.expect(200);

    // A leaked token must not show or end logins.
    let token = here.post("/api/auth/tokens", json!({ "name": "t", "scopes": ["write"] })).await.expect(201).body;
    let token = app.nobody.with_token(token["token"].as_str().unwrap());
    token.get("/api/auth/sessions").await.expect(403);
    token.delete("/api/auth/sessions").await.expect(403);
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

/// Registering with somebody else's address sends one email there, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_email_address_is_confirmed_by_the_code_mailed_to_it() {
    let app = TestApp::with(|c| c.of::<AccountSettings>().registration = true).await;
    let new = json!({ "email": "new@example.com", "password": "a long password" });
    let signed_in = app.nobody.post("/api/auth/register", new).await.expect(201).body;
    assert_eq!(signed_in["user"]["emailConfirmedAt"], json!(null));
    let me = app.nobody.with_token(signed_in["accessToken"].as_str().unwrap());
    let mails = async || -> Vec<String> {
        let sql = "select text_body from mails where recipient = 'new@example.com' order by created_at";
        sqlx::query_scalar(sql).fetch_all(&app.db.pool).await.unwrap()
    };
    let asked = mails().await;
    assert_eq!(asked.len(), 1);
    let code = asked[0].lines().find_map(|line| line.split_once("/confirm/#")).unwrap().1.trim().to_owned();
    assert!(asked[0].contains(&app.service.features.accounts.settings.public_url), "{}", asked[0]);

    let confirm = async |code: &str| app.nobody.post("/api/auth/confirm", json!({ "code": code })).await;
    let refused = confirm("ink_e_made_up").await.expect(422);
    assert!(refused.body["details"]["fields"]["code"].is_string(), "{}", refused.text);
    assert_eq!(me.get("/api/auth/me").await.expect(200).body["emailConfirmedAt"], json!(null));

    // If the email is lost it can be sent again, up to a limit.
    me.post("/api/auth/confirm/mail", None).await.expect(204);
    me.post("/api/auth/confirm/mail", None).await.expect(204);
    let waits = me.post("/api/auth/confirm/mail", None).await.expect(429);
    assert!(waits.headers.contains_key("retry-after"));
    assert_eq!(mails().await.len(), 3);

    confirm(&code).await.expect(204);
    confirm(&code).await.expect(204);
    assert!(me.get("/api/auth/me").await.expect(200).body["emailConfirmedAt"].is_string());
    assert_eq!(me.post("/api/auth/confirm/mail", None).await.expect(409).code(), "CONFLICT");
    // Accounts made by the provider are confirmed already.
    assert!(app.customer.get("/api/auth/me").await.expect(200).body["emailConfirmedAt"].is_string());

    // The page behind the emailed link, and its assets.
    let page = app.nobody.get("/confirm/").await.expect(200);
    assert!(page.headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    for part in ["confirm.js", "confirm.css"] {
        assert!(page.text.contains(part), "{}", page.text);
        app.nobody.get(&format!("/confirm/{part}")).await.expect(200);
    }
}
