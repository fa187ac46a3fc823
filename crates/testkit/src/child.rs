//! The service as a process of its own, to be killed.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::app::KEY;
use crate::wait::within;
use crate::{TestDb, log};

/// A running `innkeeper serve`. It ends with the test.
pub struct Service {
    child: Child,
    pub base: String,
    said: Arc<AtomicU64>,
    // Kept open, so that writing to its standard output does not fail.
    _said: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

/// The program under test. Cargo and nextest tell tests of the package that it is in.
pub fn program() -> String {
    std::env::var("CARGO_BIN_EXE_innkeeper").expect("tests of `innkeeper` are told where its program is")
}

/// The program under test with its settings, and nothing else from our environment.
pub fn command(db: &TestDb, data: &std::path::Path) -> Command {
    command_of(&program(), db, data)
}

/// The same with another version's program.
pub fn command_of(program: &str, db: &TestDb, data: &std::path::Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .current_dir(data)
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("DATABASE_URL", db.url())
        .env("INNKEEPER_SECRET_KEY", KEY)
        .env("INNKEEPER_DATA", data)
        .env("INNKEEPER_LISTEN", "127.0.0.1:0")
        .env("INNKEEPER_SWEEP_SECONDS", "3600")
        .env("INNKEEPER_DATABASE_WAIT_SECONDS", "60")
        .env("INNKEEPER_REQUEST_SECONDS", "120")
        .env("INNKEEPER_DATABASE_POOL", "6")
        .env("INNKEEPER_RATE_LIMIT_ADDRESS", "100000")
        .env("INNKEEPER_RATE_LIMIT_TOKEN", "1000000")
        .env("INNKEEPER_RATE_LIMIT_ACCOUNT", "1000000")
        .env("INNKEEPER_ALERT_FLOOR_SECONDS", "0")
        .env("INNKEEPER_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".into()))
        .kill_on_drop(true);
    command
}

impl Service {
    /// Starts it, with failpoints, and waits until it is up.
    pub async fn start(db: &TestDb, data: &std::path::Path, failpoints: &str) -> Self {
        Self::start_with(db, data, &[("INNKEEPER_FAILPOINTS", failpoints)]).await
    }

    /// Starts it with more settings and waits until it prints its address. From then on a failpoint may kill it at any
    /// moment.
    pub async fn start_with(db: &TestDb, data: &std::path::Path, settings: &[(&str, &str)]) -> Self {
        Self::start_program(&program(), db, data, settings).await
    }

    /// The same with another version's program.
    pub async fn start_program(program: &str, db: &TestDb, data: &std::path::Path, settings: &[(&str, &str)]) -> Self {
        let mut child = command_of(program, db, data)
            .arg("serve")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the service starts");
        let said = log::capture_stderr(child.stderr.take().expect("piped").into_owned_fd().expect("a descriptor"));
        let mut words = BufReader::new(child.stdout.take().expect("piped")).lines();
        let first = within("the service's first line", words.next_line()).await.expect("text");
        let Some(first) = first else {
            let status = within("the exit of a service that printed nothing", child.wait()).await;
            panic!("the service does not start: {status:?}");
        };
        let base = first.split(' ').find(|word| word.starts_with("http://")).expect("its address").to_owned();
        Self { child, base, said, _said: words }
    }

    /// Bytes it has logged.
    pub fn logged(&self) -> u64 {
        self.said.load(Ordering::Relaxed)
    }

    /// Its resident memory in KiB.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().expect("it runs")));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
    }

    /// Waits until SIGKILL has ended it, and leaves its leases as they are.
    pub async fn died(&mut self) {
        let status = within("the failpoint", self.child.wait()).await.expect("the child can be waited for");
        assert_eq!(status.signal(), Some(9), "{status}");
    }

    /// Waits until SIGKILL has ended it, and releases its leases.
    pub async fn killed(&mut self, db: &TestDb) {
        self.died().await;
        db.release_dead_leases().await;
    }

    /// Whether SIGKILL has ended it; if so, releases its leases.
    pub async fn is_killed(&mut self, db: &TestDb) -> bool {
        let Some(status) = self.child.try_wait().expect("the child can be asked") else { return false };
        assert_eq!(status.signal(), Some(9), "{status}");
        db.release_dead_leases().await;
        true
    }

    /// Kills it now.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("the child can be killed");
    }

    /// Asks it to stop and waits until it has.
    pub async fn terminate(&mut self) -> std::process::ExitStatus {
        let id = self.child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
        rustix::process::kill_process(id.expect("it runs"), rustix::process::Signal::TERM).expect("a signal");
        within("its exit", self.child.wait()).await.expect("the child can be waited for")
    }
}
