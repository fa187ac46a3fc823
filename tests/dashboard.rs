//! The dashboard: what is served for which address, and the app in a real browser.

use accounts::AccountSettings;
use reqwest::Method;
use serde_json::json;

use crate::support::relay::{Port, Relay};
use crate::support::{Browser, Client, PASSWORD, Pve, TestApp, ended, eventually};

/// What Chromium sends when it opens a page.
const A_PAGE: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

fn opens_pages(app: &TestApp) -> Client {
    app.nobody.with_header("accept", A_PAGE)
}

fn header<'a>(answer: &'a crate::support::client::Response, name: &str) -> &'a str {
    answer.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_address_of_the_app_is_its_page() {
    let app = TestApp::new().await;
    let browser = opens_pages(&app);
    let first = browser.get("/").await.expect(200);
    assert!(first.text.contains("<div id=\"app\">"), "{}", first.text);
    assert_eq!(header(&first, "content-type"), "text/html; charset=utf-8");
    assert_eq!(header(&first, "cache-control"), "no-cache");
    let policy = header(&first, "content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
    assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{policy}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("vary", "accept"),
    ] {
        assert_eq!(header(&first, name), value, "{name}");
    }
    for path in ["/servers", "/servers/12?tab=network", "/login", "/no/such/page"] {
        assert_eq!(browser.get(path).await.expect(200).text, first.text, "{path}");
    }
    let head = browser.send(Method::HEAD, "/servers", None).await.expect(200);
    assert_eq!((head.text.as_str(), header(&head, "etag")), ("", header(&first, "etag")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_only_sent_again_when_it_has_changed() {
    let app = TestApp::new().await;
    let browser = opens_pages(&app);
    let tag = header(&browser.get("/").await.expect(200), "etag").to_owned();
    assert!(tag.len() > 10 && tag.starts_with('"') && tag.ends_with('"'), "{tag}");
    for known in [tag.clone(), format!("\"other\", W/{tag}")] {
        let same = browser.with_header("if-none-match", &known).get("/servers").await.expect(304);
        assert_eq!((same.text.as_str(), header(&same, "etag")), ("", tag.as_str()));
        assert_eq!(header(&same, "cache-control"), "no-cache");
    }
    browser.with_header("if-none-match", "\"other\"").get("/").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn assets_are_kept_for_ever_and_a_missing_one_is_never_the_page() {
    let app = TestApp::new().await;
    let browser = opens_pages(&app);
    let page = browser.get("/").await.expect(200).text;
    let assets: Vec<&str> = page.split('"').filter(|text| text.starts_with("/assets/")).collect();
    for (end, kind) in
        [(".js", "text/javascript; charset=utf-8"), (".css", "text/css; charset=utf-8"), (".svg", "image/svg+xml")]
    {
        let path = assets.iter().find(|path| path.ends_with(end)).unwrap_or_else(|| panic!("no {end} in {page}"));
        let asset = app.nobody.get(path).await.expect(200);
        assert_eq!(header(&asset, "content-type"), kind);
        assert_eq!(header(&asset, "cache-control"), "public, max-age=31536000, immutable");
        assert_eq!(header(&asset, "x-content-type-options"), "nosniff");
    }
    let licences = app.nobody.get("/licences.txt").await.expect(200);
    assert_eq!(header(&licences, "content-type"), "text/plain; charset=utf-8");
    assert!(licences.text.contains("svelte"));
    for path in ["/assets", "/assets/", "/assets/index-0ld.js", "/assets/..%2findex.html"] {
        assert_eq!(browser.get(path).await.expect(404).code(), "NOT_FOUND", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_of_others_keep_their_own_404() {
    let app = TestApp::new().await;
    let browser = opens_pages(&app);
    for path in [
        "/api",
        "/api/nothing",
        "/confirm/nothing.js",
        "/console/nothing.js",
        "/health",
        "/health/nothing",
        "/healthz",
        "/login-link/nothing.js",
        "/metrics",
        "/metrics/nothing",
        "/socket.io/nothing",
    ] {
        let answer = browser.get(path).await;
        assert!(!answer.text.contains("<div id=\"app\">"), "{path}");
        assert!((400..500).contains(&answer.status), "{path}: {}", answer.status);
    }
    assert_eq!(browser.get("/api/nothing").await.expect(404).code(), "NOT_FOUND");
    assert_eq!(browser.get("/health/nothing").await.expect(404).code(), "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_with_a_wrong_address_get_an_error_and_no_page() {
    let app = TestApp::new().await;
    for accepted in ["application/json", "*/*"] {
        let answer = app.nobody.with_header("accept", accepted).get("/servers").await.expect(404);
        assert_eq!(answer.code(), "NOT_FOUND", "{accepted}");
    }
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        let answer = opens_pages(&app).send(method.clone(), "/servers", None).await.expect(404);
        assert_eq!(answer.code(), "NOT_FOUND", "{method}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_limited_by_address_but_neither_audited_nor_in_the_document() {
    let app = TestApp::with(|c| c.rate_limit_address = 20).await;
    let before = app.provider.get("/api/audit?limit=1").await.expect(200).body["total"].clone();
    let browser = opens_pages(&app);
    let mut refused = 0;
    for _ in 0..25 {
        refused += usize::from(browser.get("/servers").await.status == 429);
    }
    assert_eq!(refused, 5);
    assert_eq!(app.provider.get("/api/audit?limit=1").await.expect(200).body["total"], before);
    let document = app.customer.get("/api/openapi.json").await.expect(200).body;
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.keys().all(|path| path != "/" && !path.starts_with("/assets") && !path.contains("{*")));
}

/// A service at an address that browsers reach, and one of them in which a customer has signed in at `/servers`.
async fn signed_in_browser() -> (TestApp, Relay, Browser) {
    let port = Port::new();
    let origin = format!("http://127.0.0.1:{}", port.number());
    let app = TestApp::with(|c| c.of::<AccountSettings>().public_url.clone_from(&origin)).await;
    let relay = Relay::tcp(&port, app.base.trim_start_matches("http://").to_owned()).await;
    let mut browser = Browser::new();
    browser.open(&format!("{origin}/servers")).await;
    for (name, text) in [("email", "customer@example.com"), ("password", PASSWORD)] {
        browser.tell(json!({ "do": "click", "on": format!("input[name={name}]") })).await;
        browser.tell(json!({ "do": "type", "text": text })).await;
    }
    browser.shot("dashboard-login").await;
    browser.tell(json!({ "do": "press", "key": "Enter" })).await;
    find(&mut browser, "No servers yet").await;
    (app, relay, browser)
}

async fn find(browser: &mut Browser, text: &str) {
    browser.tell(json!({ "do": "find", "text": text })).await;
}

/// Without a login the first request is refused, which Chromium reports; anything else is a problem.
async fn expect_no_problem(browser: &mut Browser) {
    let problems = browser.tell(json!({ "do": "problems" })).await;
    let others: Vec<_> =
        problems.as_array().unwrap().iter().filter(|said| !said.as_str().unwrap().contains("status of 401")).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_signs_in_in_the_browser_and_stays_signed_in() {
    let (_app, _relay, mut browser) = signed_in_browser().await;
    browser.shot("dashboard-servers").await;
    browser.tell(json!({ "do": "reload" })).await;
    find(&mut browser, "No servers yet").await;
    expect_no_problem(&mut browser).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_stops_starts_and_deletes_a_server_in_the_browser() {
    let (app, _relay, mut browser) = signed_in_browser().await;
    let pve = Pve::new(&app.db).await;
    let catalogue = pve.register(&app.provider).await;
    let mut order = catalogue.container();
    order["name"] = json!("shop");
    let made = app.customer.post("/api/server/create", order).await.expect(200).body;
    assert_eq!(ended(&app.customer, &made["operationId"]).await["state"], "succeeded");
    let path = format!("/api/server/{}", made["id"]);
    browser.tell(json!({ "do": "reload" })).await;
    let mut click = async |on: &str| browser.tell(json!({ "do": "click", "on": on })).await;
    click("role=link[name='shop']").await;
    click("role=button[name='Stop']").await;
    click("dialog >> role=button[name='Stop']").await;
    click("role=button[name='Start']").await;
    eventually(&app.customer, &path, |server| server["status"] == "running").await;
    click("role=button[name='Restart']").await;
    click("dialog >> role=button[name='Cancel']").await;
    browser.shot("dashboard-server").await;
    // Later its page may ask for what is gone.
    expect_no_problem(&mut browser).await;
    let mut click = async |on: &str| browser.tell(json!({ "do": "click", "on": on })).await;
    click("role=button[name='Delete']").await;
    click("dialog >> input").await;
    browser.tell(json!({ "do": "type", "text": "shop" })).await;
    browser.shot("dashboard-delete").await;
    browser.tell(json!({ "do": "click", "on": "dialog >> role=button[name='Delete the server']" })).await;
    find(&mut browser, "No servers yet").await;
    app.customer.get(&path).await.expect(404);
}
