//! What strangers can do to us: connections that keep us waiting, and floods of all kinds.

mod connections;
mod floods;
