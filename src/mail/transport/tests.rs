use std::os::unix::fs::PermissionsExt;

use chrono::Utc;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::*;

fn mail() -> Mail {
    Mail {
        id: Uuid::now_v7(),
        recipient: "guest@example.com".into(),
        subject: "Your server веб\r\nBcc: x@evil.example is ready".into(),
        text_body: "Hello\r\n.\r\nBye".into(),
        html_body: "<p>Hello</p>".into(),
        attempts: 1,
        created_at: Utc::now(),
    }
}

fn smtp(port: u16) -> Transport {
    let smtp = Smtp { host: "127.0.0.1".into(), port, user: None, pass: None, tls: SmtpTls::None };
    Transport::new(&Config { smtp: Some(smtp), ..Config::default() }).unwrap()
}

async fn send(transport: &Transport, mail: &Mail) -> Outcome {
    transport.prepare(mail).await?.hand_over().await
}

/// A mail server that says `answers` in turn, a command each, and then hangs up; gives what it heard.
async fn server(answers: &'static [&'static str]) -> (Transport, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        let mut heard = String::new();
        writer.write_all(b"220 hello\r\n").await.unwrap();
        let mut in_data = false;
        let mut answers = answers.iter();
        while let Ok(Some(line)) = lines.next_line().await {
            heard.push_str(&line);
            heard.push('\n');
            if in_data && line != "." {
                continue;
            }
            let Some(answer) = answers.next() else { break };
            in_data = answer.starts_with("354");
            writer.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
        }
        heard
    });
    (smtp(port), heard)
}

async fn outcome(answers: &'static [&'static str]) -> (Outcome, String) {
    let (transport, heard) = server(answers).await;
    let outcome = send(&transport, &mail()).await;
    (outcome, heard.await.unwrap())
}

#[tokio::test]
async fn a_mail_that_is_taken_is_sent() {
    let (outcome, heard) = outcome(&["250 ok", "250 ok", "250 ok", "354 go on", "250 taken", "221 bye"]).await;
    assert_eq!(outcome, Ok(()));
    assert!(heard.contains("RCPT TO:<guest@example.com>"), "{heard}");
    assert!(heard.contains("multipart/alternative") && heard.contains("Message-ID: <"), "{heard}");
    // A subject can't start a header of its own.
    assert!(!heard.lines().any(|l| l.starts_with("Bcc:")), "{heard}");
}

#[tokio::test]
async fn what_failed_tells_whether_the_mail_may_be_out() {
    // Refused for the moment, and for good, before the content and after it.
    assert!(matches!(outcome(&["250 ok", "250 ok", "451 later"]).await.0, Err(Failure::Later(_))));
    assert!(matches!(outcome(&["250 ok", "250 ok", "550 nobody"]).await.0, Err(Failure::Never(_))));
    let after = outcome(&["250 ok", "250 ok", "250 ok", "354 go on", "452 full", "221 bye"]).await.0;
    assert!(matches!(after, Err(Failure::Later(_))));
    let after = outcome(&["250 ok", "250 ok", "250 ok", "354 go on", "554 spam", "221 bye"]).await.0;
    assert!(matches!(after, Err(Failure::Never(_))));
    // Hung up before the content: not out. After it: who knows.
    assert!(matches!(outcome(&["250 ok", "250 ok"]).await.0, Err(Failure::Later(_))));
    let silent = outcome(&["250 ok", "250 ok", "250 ok", "354 go on"]).await.0;
    assert!(matches!(silent, Err(Failure::Unknown(_))), "{silent:?}");
}

#[tokio::test]
async fn a_mail_that_is_only_prepared_is_not_out() {
    let (transport, heard) = server(&["250 ok", "250 ok", "250 ok", "354 go on", "250 taken"]).await;
    drop(transport.prepare(&mail()).await.unwrap());
    let heard = heard.await.unwrap();
    assert!(heard.contains("RCPT TO:") && !heard.contains("DATA"), "{heard}");
}

#[tokio::test]
async fn nobody_there_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    assert!(matches!(send(&smtp(port), &mail()).await, Err(Failure::Later(_))));
    // A mail that can't be written to anybody is not.
    let nobody = Mail { recipient: "a@b\r\nRCPT TO:<x@evil.example>".into(), ..mail() };
    assert!(matches!(send(&smtp(port), &nobody).await, Err(Failure::Never(_))));
}

#[tokio::test]
async fn without_a_mail_server_mails_are_files_and_twice_is_once() {
    let data = std::env::temp_dir().join(format!("innkeeper-mail-{}", Uuid::now_v7()));
    let transport = Transport::new(&Config { data: data.clone(), ..Config::default() }).unwrap();
    let mail = mail();
    send(&transport, &mail).await.unwrap();
    let path = data.join("mail").join(format!("{}.eml", mail.id));
    let first = std::fs::read_to_string(&path).unwrap();
    send(&transport, &mail).await.unwrap();
    let header = |text: &str, name: &str| text.lines().find(|l| l.starts_with(name)).map(str::to_owned);
    let second = std::fs::read_to_string(&path).unwrap();
    for name in ["Message-ID: ", "Date: ", "Subject: "] {
        assert!(header(&first, name).is_some() && header(&first, name) == header(&second, name), "{name}");
    }
    assert_eq!(std::fs::read_dir(data.join("mail")).unwrap().count(), 1);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&data.join("mail")), mode(&path)), (0o700, 0o600));
    std::fs::remove_dir_all(data).unwrap();
}
