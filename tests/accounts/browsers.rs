//! Logins of browsers, whose refresh token is in a cookie.

use accounts::AccountSettings;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::client::Response;
use crate::support::{Client, PASSWORD, TestApp};

const REFRESH: &str = "/api/auth/browser/refresh";
const ROUTES: [&str; 4] =
    ["/api/auth/browser/login", "/api/auth/browser/register", REFRESH, "/api/auth/browser/logout"];

fn sign() -> Value {
    json!({ "email": "customer@example.com", "password": PASSWORD })
}

/// A browser that has just signed in, and the response to that.
async fn signed_in(app: &TestApp) -> (Client, Response) {
    let opened = app.nobody.post("/api/auth/browser/login", sign()).await.expect(200);
    (with_cookie(app, &opened), opened)
}

/// A browser with the cookie of this response.
fn with_cookie(app: &TestApp, response: &Response) -> Client {
    app.nobody.with_header("cookie", response.cookie().expect("a cookie"))
}

/// The response's access token.
fn access(app: &TestApp, response: &Response) -> Client {
    app.nobody.with_token(response.body["accessToken"].as_str().unwrap())
}

/// Fails the test unless the response deletes the cookie.
#[track_caller]
fn assert_deletes(response: &Response) {
    let cookie = response.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("ink_session=; Path=/api/auth/browser; Max-Age=0;"), "{cookie}");
}

/// As if all refresh tokens had been used a minute earlier than they were.
async fn pass_a_minute(app: &TestApp) {
    let earlier = "update tokens set used_at = used_at - interval '1 minute' where used_at is not null";
    sqlx::query(earlier).execute(&app.db.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_s_refresh_token_is_in_a_cookie_and_nowhere_else() {
    let app = TestApp::with(|c| c.of::<AccountSettings>().registration = true).await;
    let (browser, opened) = signed_in(&app).await;
    let cookie = opened.headers["set-cookie"].to_str().unwrap();
    let attributes: Vec<&str> = cookie.split("; ").skip(1).collect();
    let left = opened.body["sessionExpiresIn"].as_i64().unwrap();
    assert!((29 * 86_400..=30 * 86_400).contains(&left), "{left}");
    let age = format!("Max-Age={left}");
    assert_eq!(attributes, ["Path=/api/auth/browser", &age, "HttpOnly", "SameSite=Strict"]);
    assert!(!opened.text.contains("ink_r_"), "{}", opened.text);
    access(&app, &opened).get("/api/auth/me").await.expect(200);

    let refreshed = browser.post(REFRESH, None).await.expect(200);
    assert!(!refreshed.text.contains("ink_r_"), "{}", refreshed.text);
    assert_ne!(refreshed.cookie(), opened.cookie());
    access(&app, &refreshed).get("/api/auth/me").await.expect(200);
    with_cookie(&app, &refreshed).post(REFRESH, None).await.expect(200);

    let new = json!({ "email": "new@example.com", "password": PASSWORD, "name": "New" });
    let registered = app.nobody.post("/api/auth/browser/register", new).await.expect(201);
    assert!(!registered.text.contains("ink_r_"), "{}", registered.text);
    with_cookie(&app, &registered).post(REFRESH, None).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_is_accepted_only_the_way_it_came() {
    let app = TestApp::new().await;
    let (browser, opened) = signed_in(&app).await;
    let token = opened.cookie().unwrap().trim_start_matches("ink_session=");
    app.nobody.post("/api/auth/refresh", json!({ "refreshToken": token })).await.expect(401);
    let plain = app.nobody.post("/api/auth/login", sign()).await.expect(200).body;
    let token = plain["refreshToken"].as_str().unwrap();
    app.nobody.with_header("cookie", &format!("ink_session={token}")).post(REFRESH, None).await.expect(401);
    // Neither has ended a login.
    browser.post(REFRESH, None).await.expect(200);
    app.nobody.post("/api/auth/refresh", json!({ "refreshToken": token })).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cookie_alone_opens_no_other_route() {
    let app = TestApp::new().await;
    let (browser, _) = signed_in(&app).await;
    let document = app.nobody.get("/api/openapi.json").await.expect(200).body;
    let mut seen = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let filled = path.replace("{id}", "1").replace("{address}", "10.0.0.1").replace("{type}", "cpu");
        for method in item.as_object().unwrap().keys().filter(|method| *method != "parameters") {
            if ROUTES.contains(&path.as_str()) {
                continue;
            }
            let method: Method = method.to_uppercase().parse().unwrap();
            let (with, without) = (browser.send(method.clone(), &filled, None), app.nobody.send(method, &filled, None));
            let (with, without) = (with.await, without.await);
            assert_eq!((with.status, with.code()), (without.status, without.code()), "{path}");
            assert!(with.headers.get("set-cookie").is_none(), "{path}");
            seen += usize::from(with.status == 401);
        }
    }
    assert!(seen > 50, "{seen} routes ask for a token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_sites_can_neither_sign_in_nor_refresh_nor_sign_out() {
    let app = TestApp::with(|c| c.of::<AccountSettings>().registration = true).await;
    let (browser, opened) = signed_in(&app).await;
    let own = &app.service.features.accounts.settings.public_url;
    let new = json!({ "email": "new@example.com", "password": PASSWORD });
    let body = |route: &str| match route {
        "/api/auth/browser/login" => Some(sign()),
        "/api/auth/browser/register" => Some(new.clone()),
        _ => None,
    };
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-site", "none"),
    ] {
        let other = browser.with_header(name, value);
        for route in ROUTES {
            let refused = other.send(Method::POST, route, body(route)).await.expect(403);
            assert!(refused.headers.get("set-cookie").is_none(), "{route}");
        }
    }
    // The origin that a browser sends counts for less than what it says of the site itself.
    let lying = browser.with_header("origin", own).with_header("sec-fetch-site", "cross-site");
    lying.post(REFRESH, None).await.expect(403);
    // What a form can send is no JSON.
    let form = browser.raw(Method::POST, "/api/auth/browser/login", "text/plain", sign().to_string().as_bytes()).await;
    form.expect(415);
    access(&app, &opened).get("/api/auth/me").await.expect(200);

    let page = browser.with_header("origin", own).with_header("sec-fetch-site", "same-origin");
    let refreshed = page.post(REFRESH, None).await.expect(200);
    with_cookie(&app, &refreshed).with_header("origin", own).post(REFRESH, None).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_lets_another_origin_read_it() {
    let app = TestApp::new().await;
    let elsewhere = app.customer.with_header("origin", "https://evil.example");
    let preflight = elsewhere.with_header("access-control-request-method", "POST");
    for answer in [
        elsewhere.get("/api/auth/me").await.expect(200),
        elsewhere.post(REFRESH, None).await,
        preflight.send(Method::OPTIONS, "/api/auth/me", None).await,
        preflight.send(Method::OPTIONS, REFRESH, None).await,
    ] {
        let allowing = answer.headers.keys().find(|name| name.as_str().starts_with("access-control-"));
        assert_eq!(allowing, None);
    }
}

/// As when a browser restores them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tabs_that_refresh_at_once_all_stay_signed_in() {
    let app = TestApp::new().await;
    let (browser, _) = signed_in(&app).await;
    let all = futures_util::future::join_all((0..20).map(|_| browser.post(REFRESH, None))).await;
    for one in &all {
        assert_eq!(one.status, 200, "{}", one.text);
        access(&app, one).get("/api/auth/me").await.expect(200);
    }
    let last = all.iter().rfind(|one| one.cookie().is_some()).expect("one of them has the next cookie");
    let next = with_cookie(&app, last).post(REFRESH, None).await.expect(200);

    // A tab that comes late, when the next cookie has been used already.
    let late = browser.post(REFRESH, None).await.expect(200);
    assert!(late.headers.get("set-cookie").is_none(), "it must not replace a newer cookie");
    access(&app, &late).get("/api/auth/me").await.expect(200);
    with_cookie(&app, &next).post(REFRESH, None).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_cookie_ends_the_login_for_both() {
    let app = TestApp::new().await;
    let (thief, _) = signed_in(&app).await;
    let owner = thief.post(REFRESH, None).await.expect(200);
    pass_a_minute(&app).await;
    assert_deletes(&thief.post(REFRESH, None).await.expect(401));
    access(&app, &owner).get("/api/auth/me").await.expect(401);
    let refused = with_cookie(&app, &owner).post(REFRESH, None).await.expect(401);
    assert_deletes(&refused);
    assert_eq!(refused.code(), "UNAUTHENTICATED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cookie_comes_again_only_from_where_it_was_used() {
    let app = TestApp::with(|c| c.trusted_proxies = "127.0.0.1".to_owned().try_into().unwrap()).await;
    let (browser, opened) = signed_in(&app).await;
    let from = async |address: &str| browser.with_header("x-forwarded-for", address).post(REFRESH, None).await;
    from("203.0.113.1").await.expect(200);
    // Internet providers give their customers another address of the same network now and then.
    from("203.0.113.2").await.expect(200);
    access(&app, &opened).get("/api/auth/me").await.expect(200);
    assert_deletes(&from("198.51.100.1").await.expect(401));
    access(&app, &opened).get("/api/auth/me").await.expect(401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signing_out_ends_the_login_and_deletes_the_cookie() {
    let app = TestApp::new().await;
    let (browser, opened) = signed_in(&app).await;
    let out = "/api/auth/browser/logout";
    assert_deletes(&browser.post(out, None).await.expect(204));
    access(&app, &opened).get("/api/auth/me").await.expect(401);
    assert_deletes(&browser.post(REFRESH, None).await.expect(401));
    for nobody in [&app.nobody, &browser, &app.nobody.with_header("cookie", "ink_session=nonsense")] {
        assert_deletes(&nobody.post(out, None).await.expect(204));
    }
    assert_deletes(&app.nobody.post(REFRESH, None).await.expect(401));
}
