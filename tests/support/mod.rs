//! The test harness. See `app.rs` for the service, `lab.rs` for real guests.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test file uses a part of it")]

#[macro_use]
pub mod parts;

pub mod app;
pub mod browser;
pub mod child;
pub mod client;
pub mod db;
pub mod lab;
pub mod live;
pub mod log;
pub mod pve;
pub mod relay;
pub mod smtp;
pub mod wait;
pub mod writes;

pub use app::{PASSWORD, TestApp, ended, eventually};
pub use browser::Browser;
pub use client::Client;
pub use db::TestDb;
pub use lab::Lab;
pub use live::Live;
pub use log::{expect_error, expect_outage, log};
pub use pve::Pve;
pub use smtp::MailServer;
pub use wait::{wait_for, wait_for_sql};

/// Runs clean-up to its end from `drop`, where nothing can be awaited; a failure is printed and does not hide the
/// test's.
pub fn block_on<T: Send + 'static>(work: impl AsyncFnOnce() -> anyhow::Result<T> + Send + 'static) -> Option<T> {
    let cleaned = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { tokio::time::timeout(wait::PATIENCE, work()).await.unwrap_or_else(|e| Err(e.into())) })
    })
    .join();
    match cleaned {
        Ok(Ok(value)) => return Some(value),
        Ok(Err(error)) => eprintln!("cleaning up failed: {error:#}"),
        Err(_) => eprintln!("cleaning up panicked"),
    }
    None
}
