//! The test harness. See `app.rs` for the service, `lab.rs` for real guests.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test file uses a part of it")]

pub mod app;
pub mod browser;
pub mod child;
pub mod client;
pub mod db;
pub mod lab;
pub mod live;
pub mod pve;
pub mod relay;
pub mod smtp;

pub use app::{PASSWORD, TestApp, ended, eventually};
pub use browser::Browser;
pub use client::Client;
pub use db::TestDb;
pub use lab::Lab;
pub use live::Live;
pub use pve::Pve;
pub use smtp::MailServer;

use std::future::Future;
use std::net::TcpListener;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// A port that nobody listens on and that no other caller here is given, below those that the kernel hands out to
/// connections: whoever answers there is the caller's own.
pub fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random_range(0..10_000)));
    loop {
        let port = 20_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 10_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Runs clean-up to its end from `drop`, where nothing can be awaited; what fails is said and does not hide the test.
pub fn block_on(work: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
    let cleaned = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            tokio::time::timeout(std::time::Duration::from_secs(60), work).await.unwrap_or_else(|e| Err(e.into()))
        })
    })
    .join();
    match cleaned {
        Ok(Ok(())) => {}
        Ok(Err(error)) => eprintln!("cleaning up failed: {error:#}"),
        Err(_) => eprintln!("cleaning up panicked"),
    }
}

/// Logs to the test's own output when RUST_LOG asks for it.
pub fn log() {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
}
