//! The official Socket.IO client, run by node and driven by a test.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

/// A running program of `tests/js`: `client.mjs`, or another that takes commands and reports events as lines of JSON.
pub struct Live {
    stdin: ChildStdin,
    seen: mpsc::UnboundedReceiver<Value>,
    // Killed with the test.
    _child: Child,
}

impl Live {
    pub fn new(base: &str) -> Self {
        Self::script("client.mjs", &[base])
    }

    pub fn script(file: &str, arguments: &[&str]) -> Self {
        let folder = format!("{}/tests/js", crate::ROOT);
        let mut child = Command::new("node")
            .arg(file)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node runs; `make test` installs it and runs `npm ci` in tests/js");
        let stdin = child.stdin.take().expect("piped");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (tell, seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let _ = tell.send(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
        });
        Self { stdin, seen, _child: child }
    }

    /// Connected with this token.
    pub async fn connected(base: &str, token: &str) -> Self {
        let mut live = Self::new(base);
        live.tell(json!({ "do": "connect", "token": token })).await;
        live.next("connect").await;
        live
    }

    pub async fn tell(&mut self, command: Value) {
        self.stdin.write_all(format!("{command}\n").as_bytes()).await.expect("the client listens");
    }

    pub async fn subscribe(&mut self, server: i64) -> Value {
        self.tell(json!({ "do": "subscribe", "id": server })).await;
        self.next("ack").await["args"][0].clone()
    }

    /// The next event, whatever it is; `None` if there is none in this time.
    pub async fn any(&mut self, wait: Duration) -> Option<Value> {
        tokio::time::timeout(wait, self.seen.recv()).await.ok().flatten()
    }

    /// The next event of this name; others are skipped.
    pub async fn next(&mut self, event: &str) -> Value {
        self.find(event, |_| true).await
    }

    /// The next event of this name whose first argument `enough` accepts.
    pub async fn find(&mut self, event: &str, enough: impl Fn(&Value) -> bool) -> Value {
        self.until(event, enough).await.1
    }

    /// The same, with all events that came before it.
    pub async fn until(&mut self, event: &str, enough: impl Fn(&Value) -> bool) -> (Vec<Value>, Value) {
        let mut passed = Vec::new();
        let until = tokio::time::Instant::now() + crate::wait::PATIENCE;
        loop {
            match tokio::time::timeout_at(until, self.seen.recv()).await {
                Ok(Some(seen)) if seen["event"] == event && enough(&seen["args"][0]) => return (passed, seen),
                Ok(Some(seen)) => passed.push(seen),
                _ => panic!("no {event} came, only {passed:?}"),
            }
        }
    }
}
