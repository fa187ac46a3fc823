//! Consoles in the browser: `POST /api/server/console` gives the address of our page with a ticket, the page opens a
//! WebSocket with it, and we carry bytes between that and the host. `docs/console.md` has the rules and the messages.

mod feature;
pub mod model;
mod page;
mod rfb;
mod routes;
pub mod service;
mod socket;
mod store;

pub use feature::Consoles;
