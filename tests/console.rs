//! Consoles: our page in Chromium on a real container and a real VNC server, and the rules for tickets and sockets.

mod screen;
mod socket;

use accounts::AccountSettings;
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::support::lab::Catalogue;
use crate::support::relay::{Port, Relay};
use crate::support::{Browser, Client, Lab, TestApp, ended, wait_for};

/// A service behind a relay, as behind a proxy, with a running server of the customer's.
struct ConsoleFixture {
    app: TestApp,
    lab: Lab,
    catalogue: Catalogue,
    port: Port,
    relay: Option<Relay>,
    id: i64,
    vmid: i64,
    password: SecretString,
}

impl ConsoleFixture {
    async fn new(change: impl FnOnce(&mut kernel::config::Config)) -> Self {
        let port = Port::new();
        let app = TestApp::with(|c| {
            c.of::<AccountSettings>().public_url = format!("http://127.0.0.1:{}", port.number());
            c.trusted_proxies = "127.0.0.1".to_owned().try_into().unwrap();
            change(c);
        })
        .await;
        let lab = Lab::new(&app.db).await;
        let catalogue = lab.register(&app.provider).await;
        let created = app.customer.post("/api/server/create", catalogue.order()).await.expect(200).body;
        assert_eq!(ended(&app.customer, &created["operationId"]).await["state"], "succeeded");
        let mut fixture = Self {
            app,
            lab,
            catalogue,
            port,
            relay: None,
            id: created["id"].as_i64().unwrap(),
            vmid: created["proxmoxId"].as_i64().unwrap(),
            password: created["rootPassword"].as_str().unwrap().to_owned().into(),
        };
        fixture.mend().await;
        fixture
    }

    fn to(&self) -> String {
        self.app.base.trim_start_matches("http://").to_owned()
    }

    async fn mend(&mut self) {
        self.relay = Some(Relay::tcp(&self.port, self.to()).await);
    }

    /// The URL of a page with a new ticket.
    async fn url(&self, client: &Client) -> String {
        let answer = client.post("/api/server/console", json!({ "vmid": self.vmid })).await.expect(200).body;
        assert_eq!(answer["status"], "success");
        answer["url"].as_str().unwrap().to_owned()
    }
}

async fn sign_in(browser: &mut Browser, password: &SecretString) {
    use secrecy::ExposeSecret;
    browser.status("Connected").await;
    // A container takes a moment to show its prompt, and Incus another to listen.
    wait_for("the container's login prompt", async || {
        browser.tell(json!({ "do": "press", "key": "Enter" })).await;
        let at_the_end = browser.shows(r"login:\s*(?![\s\S])").await;
        if at_the_end { Ok(()) } else { Err(browser.tell(json!({ "do": "screen" })).await) }
    })
    .await;
    browser.line("root").await;
    browser.see("Password:").await;
    browser.line(password.expose_secret()).await;
    browser.see("^root@.*#").await;
}

/// Types lines until one arrives whole: a host may drop input in the first moment after a terminal was reopened, and
/// sends a key of its own.
async fn settle(browser: &mut Browser, after: &str) {
    let mut n = 0;
    wait_for("a line that arrives", async || {
        n += 1;
        browser.line(&format!("echo {after}-$(({n}*7))")).await;
        let heard = browser.shows(&format!("^{after}-{}$", n * 7)).await;
        if heard { Ok(()) } else { Err(browser.tell(json!({ "do": "screen" })).await) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_console_works_in_the_browser() {
    let mut fixture = ConsoleFixture::new(|_| {}).await;
    let mut browser = Browser::new();
    let url = fixture.url(&fixture.app.customer).await;
    browser.open(&url).await;
    browser.shot("connected").await;
    sign_in(&mut browser, &fixture.password).await;

    browser.line("echo answer=$((6*7))").await;
    browser.see("answer=42").await;
    browser.shot("dark").await;

    // The terminal follows the window's size.
    browser.line("stty size").await;
    let shown = browser.see(r"^\d+ \d+$").await;
    let before = shown.lines().rev().find(|l| is_size(l)).unwrap().to_owned();
    browser.tell(json!({ "do": "resize", "width": 700, "height": 420 })).await;
    let mut after = before.clone();
    for round in 0..60 {
        browser.line(&format!("clear; stty size; echo round-{round}.")).await;
        let shown = browser.see(&format!(r"^round-{round}\.$")).await;
        after = shown.lines().rev().find(|l| is_size(l)).unwrap_or(&before).to_owned();
        if after != before {
            break;
        }
    }
    let (rows, columns) = sizes(&after);
    assert!(rows < sizes(&before).0 && columns < sizes(&before).1 && columns > 40, "{before} became {after}");
    browser.shot("narrow").await;
    browser.tell(json!({ "do": "resize", "width": 1100, "height": 700 })).await;

    // Pasted text arrives complete, in any script, and selected text can be copied.
    browser.tell(json!({ "do": "paste", "text": "clear; printf '%s' 'Привет, 世界' | wc -c" })).await;
    browser.tell(json!({ "do": "press", "key": "Enter" })).await;
    browser.see("^20$").await;
    let long: String = "0123456789".repeat(300);
    browser.line("clear; stty -echo; head -c 3000 | md5sum; stty echo").await;
    for piece in long.as_bytes().chunks(1000) {
        browser
            .tell(json!({ "do": "paste", "text": format!("{}\n", std::str::from_utf8(&piece[..999]).unwrap()) }))
            .await;
    }
    browser.see(r"^[0-9a-f]{32}  -$").await;
    browser.line("clear; echo copy-me-$((40+2))").await;
    browser.see("^copy-me-42$").await;
    let copied = browser.tell(json!({ "do": "copy", "text": "copy-me-42" })).await;
    assert_eq!(copied.as_str().unwrap().trim(), "copy-me-42", "the selected line");

    // The network goes away, and the session is still there when it is back.
    browser.line("clear; before=still-here; echo noted-$((40+2))").await;
    browser.see("^noted-42$").await;
    fixture.relay.take().unwrap().cut();
    browser.status("Reconnecting").await;
    let (title, words, again) = browser.notice().await;
    assert_eq!((title.as_str(), again), ("The connection was lost", true), "{words}");
    browser.shot("lost").await;
    fixture.mend().await;
    browser.status("Connected").await;
    settle(&mut browser, "reconnected").await;
    browser.line("echo $before-$((6*7))").await;
    browser.see("still-here-42").await;
    // The same after the page is reloaded.
    browser.tell(json!({ "do": "reload" })).await;
    browser.status("Connected").await;
    settle(&mut browser, "reloaded").await;
    browser.line("echo $before-$((6*8))").await;
    browser.see("still-here-48").await;

    // The light theme, and a link used twice.
    browser.tell(json!({ "do": "click", "on": "#theme" })).await;
    browser.shot("light").await;
    let mut second = Browser::new();
    second.open(&url).await;
    let (title, words, again) = second.notice().await;
    assert_eq!((title.as_str(), again), ("This link is no longer valid", false), "{words}");
    second.shot("used").await;

    // Opened somewhere else, and taken back.
    second.open(&fixture.url(&fixture.app.customer).await).await;
    second.status("Connected").await;
    let (title, _, again) = browser.notice().await;
    assert_eq!((title.as_str(), again), ("Opened somewhere else", true));
    browser.shot("taken").await;
    browser.tell(json!({ "do": "click", "on": "#again" })).await;
    browser.status("Connected").await;
    assert_eq!(second.notice().await.0, "Opened somewhere else");

    // The login ends, and the console with it.
    fixture.app.customer.post("/api/auth/logout", None).await.expect(204);
    let (title, words, again) = browser.notice().await;
    assert_eq!((title.as_str(), again), ("You were signed out", false), "{words}");
    browser.shot("signed-out").await;
    // Not even the ticket for reconnecting is valid any more.
    browser.tell(json!({ "do": "reload" })).await;
    assert!(!browser.notice().await.2);
    let problems = browser.tell(json!({ "do": "problems" })).await;
    assert_eq!(problems, json!([]), "no policy violations and no errors");
}

fn is_size(line: &str) -> bool {
    let parts: Vec<_> = line.split(' ').collect();
    parts.len() == 2 && parts.iter().all(|p| p.parse::<u32>().is_ok())
}

fn sizes(line: &str) -> (u32, u32) {
    let (rows, columns) = line.split_once(' ').unwrap();
    (rows.parse().unwrap(), columns.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_expired_and_invented_tickets_are_refused() {
    let fixture = ConsoleFixture::new(|_| {}).await;
    let mut browser = Browser::new();
    let refused = async |browser: &mut Browser, url: &str| {
        browser.open(url).await;
        let (title, words, again) = browser.notice().await;
        assert_eq!((title.as_str(), again), ("This link is no longer valid", false), "{words}");
        assert!(words.contains("panel"), "{words}");
    };
    // One that was requested from another address.
    let elsewhere = fixture
        .app
        .customer
        .http
        .post(format!("{}/api/server/console", fixture.app.base))
        .bearer_auth(fixture.app.customer.token.as_deref().unwrap())
        .header("x-forwarded-for", "203.0.113.9")
        .json(&json!({ "vmid": fixture.vmid }));
    let stranger: Value = elsewhere.send().await.unwrap().json().await.unwrap();
    refused(&mut browser, stranger["url"].as_str().unwrap()).await;
    // One that has expired.
    let old = fixture.url(&fixture.app.customer).await;
    sqlx::query("update consoles set ticket_until = now() where ticket is not null")
        .execute(&fixture.app.db.pool)
        .await
        .unwrap();
    refused(&mut browser, &old).await;
    // One that was made up.
    let invented = format!("http://127.0.0.1:{}/console/#ink_c_{}", fixture.port.number(), "A".repeat(43));
    refused(&mut browser, &invented).await;
    // None at all.
    browser.open(&format!("http://127.0.0.1:{}/console", fixture.port.number())).await;
    assert_eq!(browser.notice().await.0, "No console to open");

    // What the API says to callers who may not have one.
    let console = |vmid: i64| json!({ "vmid": vmid });
    fixture.app.other.post("/api/server/console", console(fixture.vmid)).await.expect(404);
    fixture.app.customer.post("/api/server/console", console(fixture.vmid + 1)).await.expect(404);
    let stopped = fixture.app.customer.post(&format!("/api/server/{}/stop", fixture.id), None).await.expect(200).body;
    ended(&fixture.app.customer, &stopped["operationId"]).await;
    let refusal = fixture.app.customer.post("/api/server/console", console(fixture.vmid)).await.expect(409);
    assert_eq!(refusal.body["error"], "The server is stopped; start it to open its console.");
    assert!(fixture.catalogue.host > 0 && fixture.lab.guests().await == 1);
}
