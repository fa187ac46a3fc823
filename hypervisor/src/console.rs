//! A guest's console while it is open: bytes both ways, whatever the host's own protocol.

use bytes::Bytes;
use secrecy::SecretString;
use tokio::sync::mpsc;

/// An open console. Dropping it closes it on the host.
#[derive(Debug)]
pub struct Console {
    /// What the bytes are.
    pub kind: ConsoleKind,
    /// What the guest sends; its end is the console's end.
    pub output: mpsc::Receiver<Bytes>,
    /// What goes to the guest. A full channel means that the guest is slow: wait for it.
    pub input: mpsc::Sender<ConsoleInput>,
}

/// What a console's bytes are.
#[derive(Debug, Clone)]
pub enum ConsoleKind {
    /// A terminal: what a program prints, and what is typed.
    Text,
    /// A screen: the RFB protocol (VNC) from its first byte on.
    Screen {
        /// What the RFB server asks for ("VNC authentication"); `None` where it asks for nothing.
        password: Option<SecretString>,
    },
}

/// What a person does at a console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsoleInput {
    /// Bytes for the guest.
    Data(Bytes),
    /// The terminal's new size in characters; a screen has none and ignores it.
    Resize {
        /// Characters in a line.
        columns: u16,
        /// Lines.
        rows: u16,
    },
}
