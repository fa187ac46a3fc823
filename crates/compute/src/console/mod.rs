//! Consoles in the browser: `POST /api/server/console` returns the URL of our page with a ticket, the page opens a
//! WebSocket with it, and we carry bytes between that and the host. `docs/console.md` describes the rules and messages.

mod feature;
pub mod model;
mod page;
mod rfb;
mod routes;
pub mod service;
mod settings;
mod socket;
mod store;
mod wire;

pub use feature::Consoles;
pub use settings::ConsoleSettings;
