//! Innkeeper turns Proxmox-style hosts into a provider's cloud. See ARCHITECTURE.md for how the rooms fit.

mod dashboard;
pub mod features;
pub mod run;
