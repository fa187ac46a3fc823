//! A transaction that is committed, and whose answer is lost: no response claims that nothing was changed, and a client
//! that follows the response does no harm.

use std::time::Duration;

use accounts::AccountSettings;
use serde_json::json;

use crate::support::relay::DatabaseRelay;
use crate::support::writes::{second, until_free, writes};
use crate::support::{PASSWORD, Pve, TestApp, expect_error};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_commit_answer_is_reported_as_outcome_unknown_on_every_writing_route() {
    expect_error("OUTCOME_UNKNOWN");
    let app = TestApp::with(|c| c.of::<AccountSettings>().registration = true).await;
    // The operation that the provider retries is of a kind that no worker knows.
    app.db.allow_unfinished();
    let pve = Pve::new(&app.db).await;
    let (writes, server) = writes(&app, &pve).await;
    let db_relay = DatabaseRelay::new(&app.db).await;
    let (_second, base) = second(&app, &db_relay).await;
    for write in &writes {
        let what = format!("{} {}", write.method, write.route);
        if write.is_about_server() {
            until_free(&app, server).await;
        }
        db_relay.lose_next_commit_answer();
        let answer = write.send(&base).await;
        assert!(db_relay.answer_was_lost(), "{what}: committed nothing: {} {}", answer.status, answer.text);
        assert_eq!((answer.status, answer.code()), (503, "OUTCOME_UNKNOWN"), "{what}: {}", answer.text);
        assert!(!answer.text.contains("Nothing was changed"), "{what}: {}", answer.text);
        // As after any such answer: the client looks, or repeats the request.
        let again = write.send(&base).await;
        let harmless = match write.route {
            "/api/auth/logout" | "/api/auth/login-link" => again.status == 401,
            // The password has changed by then.
            "/api/auth/password" => again.status == 422,
            // The accepted operation has failed by then, and says so: this host has no way into guests.
            "/api/server/{id}/password" => matches!(again.status, 200..300 | 409 | 422),
            _ => matches!(again.status, 200..300 | 404 | 409),
        };
        assert!(harmless, "{what}, repeated: {} {}", again.status, again.text);
    }
    until_free(&app, server).await;
}

/// The change was made, though the client was not told; its key makes the retry safe.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idempotency_key_makes_a_retry_safe_after_a_lost_answer() {
    expect_error("OUTCOME_UNKNOWN");
    let app = TestApp::new().await;
    let db_relay = DatabaseRelay::new(&app.db).await;
    let (_second, base) = second(&app, &db_relay).await;
    let there = crate::support::Client { base, ..app.provider.clone() };
    let size = json!({ "name": "once", "kind": "lxc", "cores": 1, "memory": 64, "disk": 1, "price": 1 });
    db_relay.lose_next_commit_answer();
    let lost = there.post_once("/api/tariffs", "key", &size).await.expect(503);
    assert_eq!(lost.code(), "OUTCOME_UNKNOWN");
    assert!(lost.headers.contains_key("retry-after"), "{}", lost.text);
    let made = there.post_once("/api/tariffs", "key", &size).await.expect(201).body;
    let tariffs = app.provider.get("/api/tariffs").await.expect(200).body;
    assert_eq!(tariffs.as_array().unwrap().len(), 1, "{tariffs}");
    assert_eq!(tariffs[0]["id"], made["id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_refresh_can_be_repeated_soon_and_only_from_the_same_address() {
    expect_error("OUTCOME_UNKNOWN");
    let app = TestApp::with(|c| c.trusted_proxies = "127.0.0.1".to_owned().try_into().unwrap()).await;
    let sign = json!({ "email": "customer@example.com", "password": PASSWORD });
    let refresh = async |token: &serde_json::Value, from: &str| {
        let request = app.nobody.http.post(format!("{}/api/auth/refresh", app.base)).header("x-forwarded-for", from);
        request.json(&json!({ "refreshToken": token })).send().await.unwrap()
    };
    let login = async || app.nobody.post("/api/auth/login", sign.clone()).await.expect(200).body;
    let used = login().await["refreshToken"].clone();

    assert_eq!(refresh(&used, "192.0.2.1").await.status(), 200);
    let again: serde_json::Value = refresh(&used, "192.0.2.1").await.json().await.unwrap();
    let me = app.nobody.with_token(again["accessToken"].as_str().expect("a new pair of tokens"));
    me.get("/api/auth/me").await.expect(200);
    assert_eq!(refresh(&again["refreshToken"], "192.0.2.1").await.status(), 200, "the login is still valid");
    // From any other address it is a stolen one.
    assert_eq!(refresh(&used, "192.0.2.2").await.status(), 401);
    me.get("/api/auth/me").await.expect(401);

    // And later it is, too.
    let used = login().await["refreshToken"].clone();
    assert_eq!(refresh(&used, "192.0.2.1").await.status(), 200);
    let earlier = "update tokens set used_at = used_at - interval '1 minute' where used_at is not null";
    sqlx::query(earlier).execute(&app.db.pool).await.unwrap();
    assert_eq!(refresh(&used, "192.0.2.1").await.status(), 401);
}

/// Slow is not lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_database_is_not_treated_as_lost() {
    let app = TestApp::new().await;
    let db_relay = DatabaseRelay::new(&app.db).await;
    let (_second, base) = second(&app, &db_relay).await;
    db_relay.delay(Duration::from_millis(50));
    let there = crate::support::Client { base, ..app.customer.clone() };
    there.post("/api/auth/tokens", json!({ "name": "slow", "scopes": ["read"] })).await.expect(201);
}
