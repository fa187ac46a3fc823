//! The rules of hosts.
use crate::app::App;
use crate::error::Result;
use crate::ids::HostId;
use std::sync::Arc;
/// The driver of a host.
pub async fn driver(_app: &App, _host: HostId) -> Result<Arc<dyn hypervisor::Driver>> {
    todo!()
}
