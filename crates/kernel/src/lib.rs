//! What every feature of Innkeeper stands on: settings, database, events, HTTP, the operations engine, idempotency,
//! limits, the audit log, email. It names no feature; features plug themselves in through [`feature::Feature`].

pub mod audit;
pub mod auth;
pub mod config;
pub mod core;
pub mod db;
pub mod dialect;
pub mod error;
pub mod events;
pub mod feature;
pub mod hashing;
pub mod http;
pub mod idempotency;
pub mod ids;
pub mod janitor;
pub mod keyring;
pub mod limits;
pub mod listing;
pub mod locks;
pub mod mail;
pub mod operations;
pub mod restores;
pub mod schema;
pub mod secrets;
pub mod settings;
pub mod stored;
pub mod subjects;

pub use core::Core;
pub use dialect::Dialect;
