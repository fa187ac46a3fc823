//! A mail server: aiosmtpd in a process of its own, which stores what it is given in a Maildir.

use std::path::PathBuf;
use std::process::Stdio;

use kernel::config::{Smtp, SmtpTls};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::wait::within;

/// Stores emails in a folder; prints its port.
const SERVER: &str = "
import asyncio, sys
from aiosmtpd.handlers import Mailbox
from aiosmtpd.smtp import SMTP

async def main():
    mailbox = Mailbox(sys.argv[1])
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(mailbox), '127.0.0.1', 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
";

pub struct MailServer {
    port: u16,
    folder: tempfile::TempDir,
    // Killed with the test.
    _child: Child,
}

impl MailServer {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder for mails");
        let mut child = Command::new(format!("{}/target/smtpd/bin/python", crate::ROOT))
            .args(["-c", SERVER])
            .arg(folder.path().join("mail"))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the mail server starts; `make test` installs it with scripts/smtpd.sh");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let port = within("the mail server's port", lines.next_line()).await.expect("a line").expect("a port");
        Self { port: port.parse().expect("a number"), folder, _child: child }
    }

    /// The settings for sending emails to it.
    pub fn settings(&self) -> Smtp {
        Smtp { host: "127.0.0.1".into(), port: self.port, user: None, pass: None, tls: SmtpTls::None }
    }

    /// The subjects of all emails to this recipient, sorted.
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
