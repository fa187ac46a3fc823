//! Every feature against the real router, database and guests, one file per feature. A single program, since each costs
//! a link of the whole service.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests look into the database as nobody else does")]
#![allow(clippy::pedantic, reason = "tests are read for what they show")]

use testkit as support;

mod accounts;
mod actions;
mod addresses;
mod alerts;
mod architecture;
mod audit;
mod authorization;
mod boots;
mod catalogue;
mod changes;
mod cli;
mod console;
mod contract;
mod contracts;
mod corpus;
mod dashboard;
mod dialects;
mod errors;
mod evidence;
mod features;
mod figures;
mod hangups;
mod history;
mod hosts;
mod idempotency;
mod input;
mod keys;
mod leases;
mod limits;
mod lists;
mod live;
mod lost_answers;
mod mail;
mod members;
mod meters;
mod migrations;
mod monitoring;
mod openapi;
mod operations;
mod orders;
mod outage;
mod owners;
mod process;
mod proxmox;
mod proxmox_faults;
mod refusals;
mod replicas;
mod restore;
mod schema;
mod scripts;
mod settings;
mod ssh;
mod storm;
mod strangers;
mod tenants;
mod trouble;
mod unknown_guests;
mod upgrade;
mod users;
mod versions;
mod workflows;
