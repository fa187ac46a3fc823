//! The outbox: never twice for one event.

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use crate::support::TestApp;

async fn queue(app: &TestApp, event: &str) {
    let mut tx = app.db.pool.begin().await.unwrap();
    let mail = innkeeper::mail::templates::ServerReady {
        name: "web-1",
        addresses: &["10.0.0.5".parse().unwrap()],
        tariff: "Базовый",
        os: "Debian 12",
        root_login: innkeeper::images::model::RootLogin::Password,
        has_keys: true,
        url: "http://127.0.0.1:5000/servers/1",
    };
    innkeeper::mail::service::queue(&mut tx, event, "guest@example.com", &mail).await.unwrap();
    tx.commit().await.unwrap();
}

async fn state(app: &TestApp, event: &str, wanted: &str) {
    let mut last = String::new();
    for _ in 0..200 {
        last = sqlx::query_scalar("select state from mails where event = $1")
            .bind(event)
            .fetch_one(&app.db.pool)
            .await
            .unwrap();
        if last == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{event} is {last}, not {wanted}");
}

fn files(app: &TestApp) -> Vec<PathBuf> {
    std::fs::read_dir(app.data.path().join("mail")).map(|d| d.map(|f| f.unwrap().path()).collect()).unwrap_or_default()
}

/// As if its sender had died this long ago with the mail in hand.
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
    let app = TestApp::new().await;
    for _ in 0..3 {
        queue(&app, "server-ready:1").await;
    }
    state(&app, "server-ready:1", "sent").await;
    assert_eq!(files(&app).len(), 1);
    let text = std::fs::read_to_string(&files(&app)[0]).unwrap();
    assert!(text.contains("To: guest@example.com") && text.contains("Subject: Your server web-1 is ready"), "{text}");
    // Its sender died before it could say so: written again, and still one file.
    abandon(&app, "server-ready:1").await;
    state(&app, "server-ready:1", "sent").await;
    assert_eq!(files(&app).len(), 1);
}

/// With a mail server on this port.
async fn with_server(port: u16) -> TestApp {
    TestApp::with(|c| {
        c.smtp = Some(innkeeper::config::Smtp {
            host: "127.0.0.1".into(),
            port,
            user: None,
            pass: None,
            tls: innkeeper::config::SmtpTls::None,
        });
    })
    .await
}

/// Waits until this holds for the only mail.
async fn comes_to(app: &TestApp, condition: &'static str) {
    for _ in 0..200 {
        if sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select {condition} from mails")))
            .fetch_one(&app.db.pool)
            .await
            .unwrap()
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {condition}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_server_is_never_given_a_mail_twice() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = nobody.local_addr().unwrap().port();
    drop(nobody);
    let app = with_server(port).await;
    queue(&app, "server-ready:1").await;
    // Nobody took it, for certain: it waits a minute.
    let waits = "state = 'queued' and run_at > now() + interval '50 s' and last_error is not null";
    comes_to(&app, waits).await;
    // Its sender died before it handed the mail over: it is tried again.
    abandon(&app, "server-ready:1").await;
    comes_to(&app, "attempts = 2 and state = 'queued' and run_at > now() + interval '50 s'").await;
    // Its sender died with the mail in hand: perhaps it is out.
    sqlx::query("update mails set handed_over_at = now()").execute(&app.db.pool).await.unwrap();
    abandon(&app, "server-ready:1").await;
    state(&app, "server-ready:1", "unknown").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_is_noted_before_the_mail_server_has_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = with_server(listener.local_addr().unwrap().port()).await;
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
async fn a_shutdown_loses_no_mail_that_nobody_has() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut app = with_server(silent.local_addr().unwrap().port()).await;
    queue(&app, "server-ready:1").await;
    let _held = silent.accept().await.unwrap();
    app.stop().await;
    comes_to(&app, "state = 'queued' and run_at <= now() and handed_over_at is null").await;
}
