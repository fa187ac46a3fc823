//! Runs the Python program `fakepve` as a host for tests: a process on a port of its own, which ends with the test.
//!
//! ```no_run
//! # async fn example() {
//! let fake = conformance::fakepve::FakePve::start().await;
//! let settings = fake.driver_settings();
//! fake.run("pve.lose_quorum()").await;
//! # }
//! ```
//!
//! `scripts/fakepve.sh` installs it. [`FakePve::run`] takes Python code that uses the fake as `pve`; see
//! `serve_fakepve.py` beside this file for what it is set up with (template, token, login) and what is added.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;

/// Volume id of the container template that it provides.
pub const ARCHIVE: &str = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst";
/// Name of the VM template that it provides; its number is 9000.
pub const TEMPLATE: &str = "debian-12";

#[derive(Debug, Deserialize)]
struct About {
    url: String,
    certificate: String,
    token: String,
    secret: String,
    fingerprint: String,
}

/// A running fake. It ends when this is dropped.
#[derive(Debug)]
pub struct FakePve {
    about: About,
    pipe: Mutex<(ChildStdin, Lines<BufReader<ChildStdout>>)>,
    /// Kills the process on drop.
    _child: Child,
}

/// The Python interpreter that has fakepve installed.
fn python() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/fakepve/bin/python");
    std::env::var_os("INNKEEPER_TEST_FAKEPVE").map_or(here, PathBuf::from)
}

impl FakePve {
    /// Starts a fake with one node, `pve1`, whose tasks take no time.
    pub async fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/serve_fakepve.py");
        let python = python();
        let mut child = Command::new(&python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}; scripts/fakepve.sh installs it", python.display()));
        let input = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next_line().await.unwrap().expect("fakepve starts");
        let about = serde_json::from_str(&first).unwrap();
        Self { about, pipe: Mutex::new((input, lines)), _child: child }
    }

    /// The Proxmox VE driver's settings for it: its API token and pinned certificate.
    pub fn driver_settings(&self) -> Value {
        let About { url, token, secret, fingerprint, .. } = &self.about;
        json!({
            "endpoints": [url], "token_id": token, "token_secret": secret, "storage": "local-lvm",
            "tls": { "fingerprint": { "sha256": fingerprint } }, "connect_timeout_s": 5, "request_timeout_s": 15,
        })
    }

    /// Its certificate in PEM.
    pub fn certificate(&self) -> &str {
        &self.about.certificate
    }

    /// Runs Python code that uses `pve` and `guest(vmid)`, and returns its value.
    pub async fn run(&self, python: &str) -> Value {
        let mut pipe = self.pipe.lock().await;
        let line = format!("{}\n", serde_json::to_string(python).unwrap());
        pipe.0.write_all(line.as_bytes()).await.unwrap();
        let answer = pipe.1.next_line().await.unwrap().expect("fakepve lives");
        let mut answer: Value = serde_json::from_str(&answer).unwrap();
        if let Some(error) = answer.get("error") {
            panic!("{python}: {error}");
        }
        answer["ok"].take()
    }

    /// The numbers of its guests in order, without templates.
    pub async fn guests(&self) -> Vec<i64> {
        let all = self.run("sorted(g.vmid for g in pve.vms + pve.cts if not g.template)").await;
        serde_json::from_value(all).unwrap()
    }
}
