//! What the services under test log: to the test's own output if RUST_LOG asks for it, and each ERROR is recorded. An
//! error that the test does not expect fails it, since the answers may be right by luck.

use std::io::BufRead;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

const TRACE: &str = "tower_http::trace";

static ERRORS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static EXPECTED: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());

/// Starts recording.
pub fn log() {
    let shown = tracing_subscriber::fmt::layer().with_test_writer().with_filter(EnvFilter::from_default_env());
    let _ = tracing_subscriber::registry().with(shown).with(Errors.with_filter(LevelFilter::ERROR)).try_init();
}

/// Expects errors whose line contains this.
pub fn expect_error(part: &'static str) {
    EXPECTED.lock().unwrap_or_else(PoisonError::into_inner).push(part);
}

/// Expects the errors of a database that goes away at any moment.
pub fn expect_outage() {
    expect_error("DATABASE_UNAVAILABLE");
    expect_error("OUTCOME_UNKNOWN");
    expect_error("cannot save the operation's state");
    expect_error("cannot record the end of an audit entry");
}

/// The unexpected errors. Where tests share a process nobody can say whose they are, so there are none.
pub fn unexpected() -> Vec<String> {
    let alone = std::env::var("NEXTEST_EXECUTION_MODE").is_ok_and(|mode| mode == "process-per-test");
    let mut errors = std::mem::take(&mut *ERRORS.lock().unwrap_or_else(PoisonError::into_inner));
    let expected = EXPECTED.lock().unwrap_or_else(PoisonError::into_inner);
    errors.retain(|line| alone && !expected.iter().any(|part| line.contains(part)));
    errors
}

/// Passes on a child's output, records its errors, and counts its bytes.
pub fn capture_stderr(stderr: std::os::fd::OwnedFd) -> Arc<AtomicU64> {
    let counted = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&counted);
    std::thread::spawn(move || {
        let lines = std::io::BufReader::new(std::fs::File::from(stderr)).lines();
        for line in lines.map_while(Result::ok) {
            count.fetch_add(line.len() as u64 + 1, Ordering::Relaxed);
            eprintln!("{line}");
            if line.split_whitespace().nth(1) == Some("ERROR") && !line.contains(TRACE) {
                note(line);
            }
        }
    });
    counted
}

fn note(line: String) {
    ERRORS.lock().unwrap_or_else(PoisonError::into_inner).push(line);
}

struct Errors;

impl<S: tracing::Subscriber> Layer<S> for Errors {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        // The failure itself is logged separately; this only says that an answer was a 5xx.
        if event.metadata().target().starts_with(TRACE) {
            return;
        }
        let mut line = Line(event.metadata().target().to_owned());
        event.record(&mut line);
        note(line.0);
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.push_str(&match field.name() {
            "message" => format!(" {value:?}"),
            name => format!(" {name}={value:?}"),
        });
    }
}
