//! The outbox: no event is mailed twice.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use watch::monitoring::MonitoringSettings;

use crate::support::relay::Port;
use crate::support::{TestApp, eventually, expect_error, wait_for, wait_for_sql};

async fn queue(app: &TestApp, event: &str) {
    queue_to(app, event, "guest@example.com").await;
}

async fn queue_to(app: &TestApp, event: &str, recipient: &str) {
    let mut tx = kernel::db::begin(&app.db.pool).await.unwrap();
    let mail = compute::servers::mail::ServerReady {
        name: "web-1",
        addresses: &["10.0.0.5".parse().unwrap()],
        tariff: "Базовый",
        os: "Debian 12",
        root_login: compute::images::model::RootLogin::Password,
        has_keys: true,
        url: "http://127.0.0.1:5000/servers/1",
    };
    kernel::mail::service::queue(&mut tx, event, recipient, &mail).await.unwrap();
    tx.commit().await.unwrap();
}

async fn state(app: &TestApp, event: &str, wanted: &str) {
    let state = format!("select state from mails where event = '{event}'");
    wait_for_sql(&app.db.pool, event, &state, wanted.to_owned()).await;
}

fn files(app: &TestApp) -> Vec<PathBuf> {
    std::fs::read_dir(app.data.path().join("mail")).map(|d| d.map(|f| f.unwrap().path()).collect()).unwrap_or_default()
}

/// As if its sender had just died with the email in hand.
async fn abandon(app: &TestApp, event: &str) {
    sqlx::query("update mails set state = 'sending', run_at = now() - interval '1 second' where event = $1")
        .bind(event)
        .execute(&app.db.pool)
        .await
        .unwrap();
    sqlx::query("select pg_notify('mail_due', '')").execute(&app.db.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_event_is_one_file() {
    let app = TestApp::new().await.running("mail");
    for _ in 0..3 {
        queue(&app, "server-ready:1").await;
    }
    state(&app, "server-ready:1", "sent").await;
    assert_eq!(files(&app).len(), 1);
    let text = std::fs::read_to_string(&files(&app)[0]).unwrap();
    assert!(text.contains("To: guest@example.com") && text.contains("Subject: Your server web-1 is ready"), "{text}");
    // Its sender died before it recorded the outcome: written again, and still one file.
    abandon(&app, "server-ready:1").await;
    state(&app, "server-ready:1", "sent").await;
    assert_eq!(files(&app).len(), 1);
}

/// The file of a purged email is deleted with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purging_a_mail_deletes_its_file() {
    let app = TestApp::new().await.running("mail");
    for event in ["old", "new"] {
        queue(&app, event).await;
        state(&app, event, "sent").await;
    }
    let old = "update mails set created_at = created_at - interval '91 days' where event = 'old'";
    sqlx::query(old).execute(&app.db.pool).await.unwrap();
    kernel::mail::service::purge(&app.core).await.unwrap();
    let kept: String = sqlx::query_scalar("select id::text from mails").fetch_one(&app.db.pool).await.unwrap();
    assert_eq!(files(&app), [app.data.path().join("mail").join(format!("{kept}.eml"))]);
}

async fn app_with_smtp(port: u16) -> TestApp {
    TestApp::with(|c| {
        c.smtp = Some(smtp(port));
    })
    .await
}

fn smtp(port: u16) -> kernel::config::Smtp {
    let tls = kernel::config::SmtpTls::None;
    kernel::config::Smtp { host: "127.0.0.1".into(), port, user: None, pass: None, tls }
}

/// Waits until this holds for the only mail.
async fn wait_for_the_mail(app: &TestApp, condition: &'static str) {
    wait_for("the mail", async || {
        let (there, mail): (bool, String) =
            sqlx::query_as(sqlx::AssertSqlSafe(format!("select {condition}, row_to_json(mails)::text from mails")))
                .fetch_one(&app.db.pool)
                .await
                .unwrap();
        if there { Ok(()) } else { Err(format!("not {condition}: {mail}")) }
    })
    .await;
}

/// Waits until this holds for the mail about an event.
async fn becomes(app: &TestApp, event: &str, condition: &str) {
    let row = "select (state, attempts, held, run_at - now(), last_error)::text";
    wait_for(event, async || {
        let sql = format!("select ({condition}), ({row} from mails where event = $1) from mails where event = $1");
        let (holds, seen): (bool, String) =
            sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(event).fetch_one(&app.db.pool).await.unwrap();
        if holds { Ok(()) } else { Err(format!("not {condition}: {seen}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_server_is_never_given_a_mail_twice() {
    let nobody = Port::new();
    let app = app_with_smtp(nobody.number()).await;
    queue(&app, "server-ready:1").await;
    // Certainly not accepted: the next attempt is in a minute.
    let waits = "state = 'queued' and run_at > now() + interval '50 s' and last_error is not null";
    wait_for_the_mail(&app, waits).await;
    // Its sender died before handing the email over: it is tried again.
    abandon(&app, "server-ready:1").await;
    wait_for_the_mail(&app, "attempts = 2 and state = 'queued' and run_at > now() + interval '50 s'").await;
    // Its sender died while handing the email over: it may have been sent.
    expect_error("it is not retried automatically");
    sqlx::query("update mails set handed_over_at = now()").execute(&app.db.pool).await.unwrap();
    abandon(&app, "server-ready:1").await;
    state(&app, "server-ready:1", "unknown").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_handover_is_recorded_before_the_mail_server_gets_the_content() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = app_with_smtp(listener.local_addr().unwrap().port()).await;
    queue(&app, "server-ready:1").await;
    let (stream, _) = listener.accept().await.unwrap();
    let (reader, mut writer) = stream.into_split();
    writer.write_all(b"220 hello\r\n").await.unwrap();
    let mut lines = BufReader::new(reader).lines();
    let mut content = false;
    while let Some(line) = lines.next_line().await.unwrap() {
        let noted: bool = sqlx::query_scalar("select handed_over_at is not null from mails where state = 'sending'")
            .fetch_one(&app.db.pool)
            .await
            .unwrap();
        let answer = match line.as_str() {
            "." => break,
            _ if content => continue,
            "DATA" => {
                assert!(noted);
                content = true;
                "354 go on"
            }
            _ => {
                assert!(!noted, "{line}");
                "250 ok"
            }
        };
        writer.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
    }
    writer.write_all(b"250 taken\r\n").await.unwrap();
    state(&app, "server-ready:1", "sent").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_loses_no_mail_that_was_not_handed_over() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut app = app_with_smtp(silent.local_addr().unwrap().port()).await;
    queue(&app, "server-ready:1").await;
    let _held = silent.accept().await.unwrap();
    app.stop().await;
    wait_for_the_mail(&app, "state = 'queued' and run_at <= now() and handed_over_at is null").await;
}

/// A mail server that accepts connections until the test ends, answers commands as configured, and records the
/// recipients of accepted emails, in order.
struct Relay {
    port: u16,
    taken: Arc<Mutex<Vec<String>>>,
}

impl Relay {
    /// `answer` is called for each command but DATA; an empty answer means success.
    async fn start(answer: impl Fn(&str) -> &'static str + Send + Sync + 'static) -> Self {
        Self::holding(answer, |_| false).await
    }

    /// The content for a recipient for whom `hold` is true is not accepted until it is false.
    async fn holding(
        answer: impl Fn(&str) -> &'static str + Send + Sync + 'static,
        hold: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let taken = Arc::new(Mutex::new(vec![]));
        let (answer, hold, keep) = (Arc::new(answer), Arc::new(hold), Arc::clone(&taken));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, hold, taken) = (Arc::clone(&answer), Arc::clone(&hold), Arc::clone(&keep));
                tokio::spawn(async move {
                    let (reader, mut writer) = stream.into_split();
                    let mut lines = BufReader::new(reader).lines();
                    let (mut to, mut content) = (String::new(), false);
                    let _ = writer.write_all(b"220 hello\r\n").await;
                    while let Ok(Some(line)) = lines.next_line().await {
                        let say = match line.as_str() {
                            "." if content => {
                                while hold(&to) {
                                    tokio::time::sleep(Duration::from_millis(20)).await;
                                }
                                taken.lock().unwrap().push(to.clone());
                                content = false;
                                "250 taken"
                            }
                            _ if content => continue,
                            "DATA" => {
                                content = true;
                                "354 go on"
                            }
                            _ => {
                                if let Some(recipient) = line.strip_prefix("RCPT TO:") {
                                    recipient.trim_matches(['<', '>']).clone_into(&mut to);
                                }
                                Some(answer(&line)).filter(|said| !said.is_empty()).unwrap_or("250 ok")
                            }
                        };
                        let _ = writer.write_all(format!("{say}\r\n").as_bytes()).await;
                    }
                });
            }
        });
        Self { port, taken }
    }

    fn taken(&self) -> Vec<String> {
        self.taken.lock().unwrap().clone()
    }
}

/// The emails that the provider sees with this query.
async fn listed(app: &TestApp, query: &str) -> Vec<Value> {
    let page = app.provider.get(&format!("/api/mails?{query}")).await.expect(200);
    for inside in ["see how it is doing", "10.0.0.5", "<html", "text_body", "textBody"] {
        assert!(!page.text.to_lowercase().contains(inside), "the content of an email is not shown: {}", page.text);
    }
    page.body["data"].as_array().unwrap().clone()
}

/// Waits until the provider has this many open alerts about mails.
async fn wait_for_mail_alerts(app: &TestApp, wanted: usize) {
    let path = "/api/alerts?open=true&type=mail_held";
    eventually(&app.provider, path, |alerts| alerts["data"].as_array().unwrap().len() == wanted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mails_refused_by_the_relay_are_held_and_the_provider_is_alerted() {
    let refuses = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let still = Arc::clone(&refuses);
    let relay = Relay::start(move |line| match still.load(std::sync::atomic::Ordering::SeqCst) {
        true if line.starts_with("MAIL FROM") => "530 5.7.0 Authentication required",
        _ => "",
    })
    .await;
    let app = TestApp::with(|c| {
        c.of::<MonitoringSettings>().sweep_seconds = 1;
        c.smtp = Some(smtp(relay.port));
    })
    .await;
    app.provider.put("/api/alert-rules/mail_held", json!({ "sustainSeconds": 0 })).await.expect(200);
    queue(&app, "server-ready:1").await;
    let waits = "state = 'queued' and held and run_at > now() + interval '50 s'";
    becomes(&app, "server-ready:1", waits).await;
    wait_for_mail_alerts(&app, 1).await;
    let held = listed(&app, "held=true&recipient=GUEST@example.com").await;
    assert_eq!((held.len(), &held[0]["state"], &held[0]["attempts"]), (1, &json!("queued"), &json!(1)), "{held:?}");
    assert!(held[0]["error"].as_str().unwrap().contains("530") && held[0]["nextTryAt"].is_string(), "{held:?}");

    // However long it lasts, the email is not given up.
    sqlx::query("update mails set queued_at = queued_at - interval '40 days', run_at = now()")
        .execute(&app.db.pool)
        .await
        .unwrap();
    sqlx::query("select pg_notify('mail_due', '')").execute(&app.db.pool).await.unwrap();
    becomes(&app, "server-ready:1", &format!("attempts = 2 and {waits}")).await;

    // The provider fixes the relay, and need not wait for the next attempt.
    refuses.store(false, std::sync::atomic::Ordering::SeqCst);
    let path = format!("/api/mails/{}/retry", held[0]["id"].as_str().unwrap());
    let queued = app.provider.post(&path, None).await.expect(200).body;
    assert_eq!(queued["state"], "queued", "{queued}");
    state(&app, "server-ready:1", "sent").await;
    assert_eq!(relay.taken(), ["guest@example.com"]);
    wait_for_mail_alerts(&app, 0).await;
    assert_eq!(app.provider.post(&path, None).await.expect(409).code(), "CONFLICT", "it was sent");
}

/// A relay in trouble is not the recipient's fault: after a day the email is held and not given up, and only then does
/// the provider hear of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mails_that_a_relay_defers_for_days_are_held() {
    expect_error("email not sent; giving up");
    let relay = Relay::start(|line| match line {
        "RCPT TO:<guest@example.com>" => "451 4.3.0 Temporary lookup failure",
        "RCPT TO:<grey@example.com>" => "450 4.2.0 Greylisted",
        _ => "",
    })
    .await;
    let app = app_with_smtp(relay.port).await;
    queue(&app, "relay").await;
    queue_to(&app, "recipient", "grey@example.com").await;
    for event in ["relay", "recipient"] {
        becomes(&app, event, "attempts = 1 and state = 'queued' and not held").await;
    }
    sqlx::query("update mails set queued_at = queued_at - interval '2 days', run_at = now()")
        .execute(&app.db.pool)
        .await
        .unwrap();
    sqlx::query("select pg_notify('mail_due', '')").execute(&app.db.pool).await.unwrap();
    becomes(&app, "relay", "attempts = 2 and state = 'queued' and held").await;
    becomes(&app, "recipient", "attempts = 2 and state = 'failed'").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_provider_sees_failed_mails_and_can_retry_them() {
    expect_error("email not sent; giving up");
    let refuses = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let still = Arc::clone(&refuses);
    let relay = Relay::start(move |line| match still.load(std::sync::atomic::Ordering::SeqCst) {
        true if line.starts_with("RCPT TO:<guest@") => "550 5.1.1 no such user",
        _ => "",
    })
    .await;
    let app = TestApp::with(|c| c.smtp = Some(smtp(relay.port))).await;
    queue(&app, "server-ready:1").await;
    queue_to(&app, "server-ready:2", "other@example.com").await;
    state(&app, "server-ready:1", "failed").await;
    state(&app, "server-ready:2", "sent").await;
    let failed = listed(&app, "state=failed").await;
    let shown = (&failed[0]["recipient"], &failed[0]["subject"], &failed[0]["held"], &failed[0]["nextTryAt"]);
    assert_eq!(
        (failed.len(), shown),
        (1, (&json!("guest@example.com"), &json!("Your server web-1 is ready"), &json!(false), &Value::Null))
    );
    assert!(failed[0]["error"].as_str().unwrap().contains("no such user"), "{failed:?}");
    assert_eq!(listed(&app, "order=asc").await[0]["id"], failed[0]["id"]);
    assert_eq!(listed(&app, "limit=1&page=2").await[0]["id"], failed[0]["id"]);
    app.provider.get("/api/mails?state=lost").await.expect(422);

    let path = format!("/api/mails/{}/retry", failed[0]["id"].as_str().unwrap());
    app.customer.post(&path, None).await.expect(403);
    app.provider.post(&path, None).await.expect(200);
    // Refused again, it has failed again.
    becomes(&app, "server-ready:1", "attempts = 2 and state = 'failed'").await;
    refuses.store(false, std::sync::atomic::Ordering::SeqCst);
    app.provider.post(&path, None).await.expect(200);
    state(&app, "server-ready:1", "sent").await;
    assert_eq!(relay.taken(), ["other@example.com", "guest@example.com"]);
    let unknown = format!("/api/mails/{}/retry", uuid::Uuid::nil());
    app.provider.post(&unknown, None).await.expect(404);
    let audit = app.provider.get("/api/audit?subject=mails&limit=100").await.expect(200).body;
    let done =
        audit["data"].as_array().unwrap().iter().filter(|e| e["subjectId"] == failed[0]["id"] && e["status"] == 200);
    assert_eq!(done.count(), 2, "{audit}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_mail_delays_only_mails_to_the_same_recipient() {
    let b_is_out = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let out = Arc::clone(&b_is_out);
    let waiting = move |to: &str| to == "a@example.com" && !out.load(std::sync::atomic::Ordering::SeqCst);
    let relay = Relay::holding(|_| "", waiting).await;
    let app = TestApp::with(|c| c.smtp = Some(smtp(relay.port))).await;
    queue_to(&app, "begun:a", "a@example.com").await;
    becomes(&app, "begun:a", "handed_over_at is not null").await;
    queue_to(&app, "over:a", "a@example.com").await;
    queue_to(&app, "begun:b", "b@example.com").await;
    state(&app, "begun:b", "sent").await;
    // It was due before the other recipient's email, and has not even been started.
    becomes(&app, "over:a", "state = 'queued' and attempts = 0").await;
    b_is_out.store(true, std::sync::atomic::Ordering::SeqCst);
    for event in ["begun:a", "over:a"] {
        state(&app, event, "sent").await;
    }
    assert_eq!(relay.taken(), ["b@example.com", "a@example.com", "a@example.com"]);
}
