//! Snapshots of servers. The host has them; nothing about them is kept here.

pub mod model;
mod routes;
pub mod service;
pub mod workflows;

pub(crate) use routes::routes;
