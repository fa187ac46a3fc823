//! A mail server: aiosmtpd, a process of its own, which keeps what it is given in a Maildir.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use innkeeper::config::{Smtp, SmtpTls};
use tokio::process::{Child, Command};

pub struct MailServer {
    port: u16,
    folder: tempfile::TempDir,
    // Killed with the test.
    _child: Child,
}

impl MailServer {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder for mails");
        let port = super::free_port();
        let child = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/target/smtpd/bin/python"))
            .args(["-m", "aiosmtpd", "-n", "-l", &format!("127.0.0.1:{port}"), "-c", "aiosmtpd.handlers.Mailbox"])
            .arg(folder.path().join("mail"))
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the mail server starts; `make test` installs it with scripts/smtpd.sh");
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return Self { port, folder, _child: child };
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the mail server does not listen");
    }

    /// The settings of whoever hands it mails.
    pub fn settings(&self) -> Smtp {
        Smtp { host: "127.0.0.1".into(), port: self.port, user: None, pass: None, tls: SmtpTls::None }
    }

    /// The subjects of all that it was given for somebody, sorted.
    pub fn subjects(&self, to: &str) -> Vec<String> {
        let new: PathBuf = self.folder.path().join("mail/new");
        let mails = std::fs::read_dir(new).map(|files| files.map(|f| f.expect("a mail").path()).collect::<Vec<_>>());
        let header = |mail: &str, name: &str| {
            mail.lines().find_map(|l| l.strip_prefix(name)).map(str::trim).unwrap_or_default().to_owned()
        };
        let mut subjects: Vec<String> = mails
            .unwrap_or_default()
            .into_iter()
            .map(|path| std::fs::read_to_string(path).expect("a mail's text"))
            .filter(|mail| header(mail, "To:").contains(to))
            .map(|mail| header(&mail, "Subject:"))
            .collect();
        subjects.sort();
        subjects
    }
}
