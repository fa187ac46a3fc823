//! Innkeeper turns Proxmox-style hosts into a provider's cloud. See ARCHITECTURE.md for how the rooms fit.

pub mod features;
pub mod run;
