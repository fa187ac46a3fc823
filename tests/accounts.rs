//! Signing in and out, rotating tokens, limits on guessing.

mod browsers;
mod profile;
mod tokens;

use std::time::Duration;

use accounts::AccountSettings;
use serde_json::json;

use crate::support::wait::BLOCKED;
use crate::support::{Client, PASSWORD, TestApp, wait_for_sql};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registration_is_closed_unless_the_provider_opens_it() {
    let app = TestApp::new().await;
    let new = json!({ "email": "new@example.com", "password": "a long password" });
    assert_eq!(app.nobody.post("/api/auth/register", new.clone()).await.expect(403).code(), "FORBIDDEN");

    let open = TestApp::with(|c| c.of::<AccountSettings>().registration = true).await;
    let signed_in = open.nobody.post("/api/auth/register", new.clone()).await.expect(201).body;
    assert!(signed_in["user"]["staffRole"].is_null(), "{signed_in}");
    assert_eq!(signed_in["tokenType"], "Bearer");
    let me = open.nobody.with_token(signed_in["accessToken"].as_str().unwrap());
    assert_eq!(me.get("/api/auth/me").await.expect(200).body["email"], "new@example.com");
    let limits = async |who: &Client| who.get("/api/accounts").await.expect(200).body["data"][0]["serverLimit"].clone();
    assert_eq!(
        (limits(&me).await, limits(&open.customer).await),
        (json!(5), json!(100)),
        "the provider knows the other"
    );
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

/// An attempt that waits for the one that starts the window began before it, and counts in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_login_attempts_at_the_start_of_a_window_count_each_other() {
    let app = TestApp::with(|c| c.of::<AccountSettings>().login_limit_account = 4).await;
    let wrong = json!({ "email": "customer@example.com", "password": "a guess" });
    app.nobody.post("/api/auth/login", wrong.clone()).await.expect(401);
    let mut others = kernel::db::begin(&app.db.pool).await.unwrap();
    let locks = "select from login_attempts where key like 'place:%' for update";
    sqlx::query(locks).execute(&mut *others).await.unwrap();
    let client = app.nobody.clone();
    let attempt = tokio::spawn(async move { client.post("/api/auth/login", wrong).await });
    wait_for_sql(&app.db.pool, "the attempt", BLOCKED, 1_i64).await;
    let starts = "update login_attempts set window_start = clock_timestamp(), attempts = 4 where key like 'place:%'";
    sqlx::query(starts).execute(&mut *others).await.unwrap();
    others.commit().await.unwrap();
    attempt.await.unwrap().expect(429);
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
