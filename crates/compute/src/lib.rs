//! Hosts, images, tariffs, addresses, SSH keys, servers, their snapshots, sizes and consoles.

pub mod addresses;
pub mod console;
pub mod hosts;
pub mod ids;
pub mod images;
pub mod locks;
pub mod resize;
pub mod servers;
pub mod snapshots;
pub mod ssh_keys;
pub mod tariffs;
pub mod unknown_guests;
