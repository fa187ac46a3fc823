use std::os::unix::fs::PermissionsExt;

use chrono::Utc;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::*;

fn mail() -> QueuedMail {
    QueuedMail {
        id: Uuid::now_v7(),
        recipient: "guest@example.com".into(),
        subject: "Your server веб\r\nBcc: x@evil.example is ready".into(),
        text_body: "Hello\r\n.\r\nBye".into(),
        html_body: "<p>Hello</p>".into(),
        attempts: 1,
        created_at: Utc::now(),
        queued_at: Utc::now(),
    }
}

fn smtp(port: u16) -> Transport {
    let smtp = Smtp { host: "127.0.0.1".into(), port, user: None, pass: None, tls: SmtpTls::None };
    Transport::new(&Config { smtp: Some(smtp), ..Config::default() }).unwrap()
}

async fn send(transport: &Transport, mail: &QueuedMail) -> SendResult {
    transport.prepare(mail).await?.hand_over().await
}

/// A mail server that greets, sends one of `answers` per command, and then hangs up; returns the lines it received.
async fn server(answers: &'static [&'static str]) -> (Transport, tokio::task::JoinHandle<String>) {
    greeting_server("220 hello", answers).await
}

async fn greeting_server(
    greeting: &'static str,
    answers: &'static [&'static str],
) -> (Transport, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        let mut heard = String::new();
        writer.write_all(format!("{greeting}\r\n").as_bytes()).await.unwrap();
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

async fn outcome(answers: &'static [&'static str]) -> (SendResult, String) {
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
    // A subject can't add a header.
    assert!(!heard.lines().any(|l| l.starts_with("Bcc:")), "{heard}");
}

#[tokio::test]
async fn what_failed_tells_whether_the_mail_may_be_out() {
    // Refused temporarily and permanently, before the content and after it.
    assert!(matches!(outcome(&["250 ok", "250 ok", "451 later"]).await.0, Err(SendFailure::Later(_))));
    assert!(matches!(outcome(&["250 ok", "250 ok", "550 nobody"]).await.0, Err(SendFailure::Never(_))));
    let after = outcome(&["250 ok", "250 ok", "250 ok", "354 go on", "452 full", "221 bye"]).await.0;
    assert!(matches!(after, Err(SendFailure::Later(_))));
    let after = outcome(&["250 ok", "250 ok", "250 ok", "354 go on", "554 spam", "221 bye"]).await.0;
    assert!(matches!(after, Err(SendFailure::Never(_))));
    // Disconnected before the content: not sent. After it: unknown.
    assert!(matches!(outcome(&["250 ok", "250 ok"]).await.0, Err(SendFailure::Held(_))));
    let silent = outcome(&["250 ok", "250 ok", "250 ok", "354 go on"]).await.0;
    assert!(matches!(silent, Err(SendFailure::Unknown(_))), "{silent:?}");
}

/// A refusal that is about us, or about the mail server itself, says nothing about the recipient.
#[tokio::test]
async fn what_is_about_us_holds_the_mail() {
    for greeting in ["554 5.7.1 not from your address", "421 too busy", "500 what"] {
        let (transport, _) = greeting_server(greeting, &["250 ok"]).await;
        assert!(matches!(send(&transport, &mail()).await, Err(SendFailure::Held(_))), "{greeting}");
    }
    for sender in [
        "530 5.7.0 Authentication required",
        "550 5.7.1 Sender not allowed",
        "553 5.1.8 no such domain",
        "501 5.1.7 bad sender",
        "452 4.3.1 disk full",
        "451 later",
    ] {
        let (transport, _) = answering("250 ok", sender).await;
        let outcome = send(&transport, &mail()).await;
        assert!(
            matches!(&outcome, Err(SendFailure::Held(text)) if text.contains(&sender[4..])),
            "{sender}: {outcome:?}"
        );
    }
    for (recipient, held) in [
        ("530 5.7.0 Must issue a STARTTLS command first", true),
        ("535 5.7.8 who are you", true),
        ("554 5.7.1 Relay access denied", true),
        ("550 5.7.1 Access denied", true),
        ("503 5.5.1 bad sequence of commands", true),
        ("550 5.1.8 <a@b.example>: Sender address rejected: Domain not found", true),
        ("550 5.1.7 <a@b.example>: Sender address rejected: undeliverable address", true),
        ("550 5.1.0 <a@b.example>: Sender address rejected: User unknown in local recipient table", true),
        ("504 5.5.2 <a@b>: Sender address rejected: need fully-qualified address", true),
        ("550 Sender verify failed", true),
        ("553 5.3.5 system config error", true),
        ("554 5.3.2 system not accepting network messages", true),
        ("504 5.5.4 HELO argument", true),
        ("550 5.1.0 address rejected", false),
        ("504 5.5.2 <a@b>: Recipient address rejected: need fully-qualified address", false),
        ("550 5.5.0 Requested action not taken: mailbox unavailable", false),
        ("553 5.3.0 <guest@example.com>... No such user here", false),
        ("552 5.3.4 message too big", false),
        ("550 5.1.1 no such user", false),
        ("550 mailbox unavailable", false),
        ("552 5.2.2 mailbox full", false),
        ("553 5.1.3 bad address 5.7.1", false),
        ("556 5.1.10 takes no mail", false),
    ] {
        let (transport, _) = answering("250 sender ok", recipient).await;
        let outcome = send(&transport, &mail()).await;
        assert!(matches!(&outcome, Err(SendFailure::Held(_))) == held, "{recipient}: {outcome:?}");
        assert!(matches!(&outcome, Err(SendFailure::Never(_))) != held, "{recipient}: {outcome:?}");
    }
    // A refusal of the content is about the email.
    let refused = outcome(&["250 ok", "250 ok", "250 ok", "354 go on", "554 5.7.1 spam", "221 bye"]).await.0;
    assert!(matches!(refused, Err(SendFailure::Never(_))), "{refused:?}");
    for content in [
        "530 5.7.0 sign in",
        "554 Message rejected: Email address is not verified. The following identities failed the check",
        "550 The from address does not match a verified Sender Identity",
        "550 5.1.8 no such domain",
    ] {
        let answers = vec!["250 ok", "250 ok", "250 ok", "354 go on", content, "221 bye"];
        let refused = outcome(answers.leak()).await.0;
        assert!(matches!(refused, Err(SendFailure::Held(_))), "{content}: {refused:?}");
    }
}

/// A temporary refusal may be about the recipient, such as greylisting, or about us.
#[tokio::test]
async fn temporary_refusals_tell_whom_they_are_about() {
    for (said, about_us) in [
        ("421 4.7.0 try again later", true),
        ("421 closing", true),
        ("454 Throttling failure: Daily message quota exceeded", true),
        ("454 4.7.1 relay access denied", true),
        ("451 4.3.0 temporary lookup failure", true),
        ("452 4.3.1 insufficient system storage", true),
        ("450 4.7.1 client host rejected", true),
        ("450 4.1.7 unverified address", true),
        ("450 4.1.8 <a@b.example>: Sender address rejected: Domain not found", true),
        ("450 4.2.0 greylisted", false),
        ("451 greylisted", false),
        ("450 4.1.1 unverified address", false),
        ("452 4.2.2 mailbox full", false),
        ("450 4.4.3 no such domain", false),
    ] {
        let (transport, _) = answering("250 sender ok", said).await;
        let envelope = send(&transport, &mail()).await;
        let answers = vec!["250 ok", "250 ok", "250 ok", "354 go on", said, "221 bye"];
        for refused in [envelope, outcome(answers.leak()).await.0] {
            assert_eq!(matches!(refused, Err(SendFailure::Busy(_))), about_us, "{said}: {refused:?}");
            assert_eq!(matches!(refused, Err(SendFailure::Later(_))), !about_us, "{said}: {refused:?}");
        }
    }
}

/// A mail server with this response to the sender or, if it accepts the sender, to the recipient.
async fn answering(sender: &'static str, recipient: &'static str) -> (Transport, tokio::task::JoinHandle<String>) {
    let answers: Vec<&'static str> = match sender {
        "250 ok" => vec!["250 hello", recipient, "221 bye"],
        _ => vec!["250 hello", sender, recipient, "221 bye"],
    };
    server(answers.leak()).await
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
    assert!(matches!(send(&smtp(port), &mail()).await, Err(SendFailure::Held(_))));
    // An email that can't be addressed to anyone is not retried.
    let nobody = QueuedMail { recipient: "a@b\r\nRCPT TO:<x@evil.example>".into(), ..mail() };
    assert!(matches!(send(&smtp(port), &nobody).await, Err(SendFailure::Never(_))));
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
