//! The service as a process of its own, to be killed.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use super::app::KEY;
use super::{Client, TestDb};

/// A running `innkeeper serve`. It ends with the test.
pub struct Service {
    child: Child,
    pub base: String,
}

/// The program under test with its settings, and nothing else from our environment.
pub fn command(db: &TestDb, data: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_innkeeper"));
    command
        .env_clear()
        .current_dir(data)
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("DATABASE_URL", db.url())
        .env("INNKEEPER_SECRET_KEY", KEY)
        .env("INNKEEPER_DATA", data)
        .env("INNKEEPER_LEASE_SECONDS", "2")
        .env("INNKEEPER_SWEEP_SECONDS", "3600")
        .env("INNKEEPER_DATABASE_POOL", "6")
        .env("INNKEEPER_RATE_LIMIT_ADDRESS", "100000")
        .env("INNKEEPER_RATE_LIMIT_TOKEN", "1000000")
        .env("INNKEEPER_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".into()))
        .kill_on_drop(true);
    command
}

impl Service {
    /// Starts it, with failpoints, and waits until it answers.
    pub async fn start(db: &TestDb, data: &std::path::Path, failpoints: &str) -> Self {
        Self::start_with(db, data, &[("INNKEEPER_FAILPOINTS", failpoints)]).await
    }

    /// Starts it with more settings and waits until it answers.
    pub async fn start_with(db: &TestDb, data: &std::path::Path, settings: &[(&str, &str)]) -> Self {
        // Another process may take the port in between; then ours ends, and we try again.
        for _ in 0..5 {
            let address = format!("127.0.0.1:{}", super::free_port());
            let child = command(db, data)
                .arg("serve")
                .env("INNKEEPER_LISTEN", &address)
                .envs(settings.iter().copied())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .expect("the service starts");
            let mut service = Self { child, base: format!("http://{address}") };
            if service.answers().await {
                return service;
            }
        }
        panic!("the service does not come up");
    }

    async fn answers(&mut self) -> bool {
        let client = Client::new(&self.base, None);
        let until = tokio::time::Instant::now() + Duration::from_secs(60);
        while tokio::time::Instant::now() < until {
            if self.child.try_wait().expect("the child can be asked").is_some() {
                return false;
            }
            match client.try_send(reqwest::Method::GET, "/health/ready", None).await {
                Ok(answer) if answer.status == 200 => return true,
                _ => tokio::time::sleep(Duration::from_millis(25)).await,
            }
        }
        false
    }

    /// Waits for it to die by SIGKILL; fails the test when it does not within three minutes: machines are busy.
    pub async fn killed(&mut self) {
        let status = tokio::time::timeout(Duration::from_secs(180), self.child.wait())
            .await
            .expect("the failpoint is reached")
            .expect("the child can be waited for");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
    }

    /// Whether it has died by SIGKILL.
    pub fn is_killed(&mut self) -> bool {
        let status = self.child.try_wait().expect("the child can be asked");
        if let Some(status) = status {
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
        }
        status.is_some()
    }

    /// Kills it now.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("the child can be killed");
    }

    /// Asks it to end and waits until it has.
    pub async fn terminate(&mut self) -> std::process::ExitStatus {
        let id = self.child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
        rustix::process::kill_process(id.expect("it runs"), rustix::process::Signal::TERM).expect("it can be told");
        tokio::time::timeout(Duration::from_secs(60), self.child.wait())
            .await
            .expect("it ends when asked")
            .expect("the child can be waited for")
    }
}
