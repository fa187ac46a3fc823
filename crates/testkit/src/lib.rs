//! The test harness. See `app.rs` for the service, `lab.rs` for real guests.

// This is test code that happens to live in a library.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests look into the database as nobody else does")]
#![allow(clippy::pedantic, clippy::new_without_default, missing_docs, reason = "tests are read for what they show")]

pub mod app;
pub mod browser;
pub mod child;
pub mod client;
pub mod cluster;
pub mod crowd;
pub mod db;
pub mod lab;
pub mod live;
pub mod log;
pub mod notes;
pub mod parts;
pub mod proofs;
pub mod pve;
pub mod relay;
pub mod smtp;
pub mod wait;
pub mod writes;

pub use app::{PASSWORD, TestApp, ended, eventually, revoked};
pub use browser::Browser;
pub use client::Client;
pub use cluster::Cluster;
pub use db::TestDb;
pub use lab::Lab;
pub use live::Live;
pub use log::{expect_error, expect_outage, log};
pub use pve::Pve;
pub use smtp::MailServer;
pub use wait::{wait_for, wait_for_sql};

/// The project's folder.
pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Every Rust file below these folders of the project: its path within the project, and its text.
pub fn sources(folders: &[&str]) -> Vec<(String, String)> {
    let root = std::path::Path::new(ROOT);
    let mut folders: Vec<_> = folders.iter().map(|folder| root.join(folder)).collect();
    let mut found = vec![];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of the project") {
            let path = entry.expect("a folder of the project").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).expect("within the project").to_str().expect("a plain name");
                found.push((name.to_owned(), std::fs::read_to_string(&path).expect("a source file")));
            }
        }
    }
    found
}

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
