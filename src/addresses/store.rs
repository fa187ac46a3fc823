//! The SQL of address pools.

use std::net::IpAddr;

use sqlx::PgConnection;

use crate::error::Result;
use crate::ids::{HostId, ServerId};

/// An address that a server holds, with what its guest must know of the network.
#[derive(Debug, Clone)]
pub struct ServerAddress {
    /// The address.
    pub address: IpAddr,
    /// The network's prefix length.
    pub prefix: u8,
    /// The default gateway.
    pub gateway: Option<IpAddr>,
    /// The host's bridge or managed network.
    pub bridge: String,
    /// VLAN tag.
    pub vlan: Option<u16>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
}

/// Takes one address of each family that the host's enabled pools have, under the pools' locks. False, and nothing
/// taken, when one of the families has none left.
pub async fn take(_tx: &mut PgConnection, _host: HostId, _server: ServerId) -> Result<bool> {
    todo!()
}

/// What a server holds, IPv4 first.
pub async fn of_server(_db: &mut PgConnection, _server: ServerId) -> Result<Vec<ServerAddress>> {
    todo!()
}

/// Gives a server's addresses back; nothing held is no error.
pub async fn release(_tx: &mut PgConnection, _server: ServerId) -> Result<()> {
    todo!()
}
