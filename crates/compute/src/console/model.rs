//! Request and response types, and the messages on the console's socket.

use std::borrow::Cow;
use std::net::IpAddr;

use garde::Validate;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{AccountId, ServerId, UserId};

/// A request to open a server's console.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OpenConsole {
    /// The guest's number: the server's `proxmoxId`.
    #[garde(range(min = 1))]
    #[schema(example = 100)]
    pub vmid: i64,
}

/// A link to a console.
#[derive(Debug, Serialize, Deserialize)]
pub struct ConsoleLink {
    /// The page to open.
    pub url: String,
}

/// A user's access to a server's console.
#[derive(Debug)]
pub(super) struct NewTicket {
    pub id: Uuid,
    pub server: ServerId,
    pub user: UserId,
    pub account: AccountId,
    pub token: Uuid,
    pub session: Option<Uuid>,
    pub address: IpAddr,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct WindowSize {
    pub columns: u16,
    pub rows: u16,
}

/// The page's text messages; keyboard and mouse input is sent in binary messages.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum ClientMessage {
    /// The first message.
    Open {
        ticket: SecretString,
        /// For a terminal only.
        #[serde(flatten)]
        size: Option<WindowSize>,
    },
    /// The terminal's size has changed.
    Resize(WindowSize),
    /// The user is active at a graphical console. At a text console, typing shows that.
    Active,
}

/// Our text messages; the console's output is sent in binary messages.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum ServerMessage<'a> {
    /// A ticket to reconnect with, once, if this connection is lost.
    Ticket { ticket: &'a str },
    /// The console is open.
    Ready { kind: PageKind, server: ServerTitle<'a> },
}

/// The kind of console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum PageKind {
    /// A text console.
    Text,
    /// A graphical console: RFB 3.8 without a password.
    Screen,
}

/// A server, for the page's title.
#[derive(Debug, Serialize)]
pub(super) struct ServerTitle<'a> {
    pub id: ServerId,
    pub vmid: i64,
    pub name: &'a str,
}

/// Why a console was closed. `docs/console.md` lists the codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CloseReason {
    /// The close frame's code.
    pub code: u16,
    /// The reason for the user, at most 123 bytes.
    pub words: Cow<'static, str>,
    /// Whether the console can be reconnected with its next ticket.
    pub again: bool,
}

impl CloseReason {
    const fn new(code: u16, again: bool, words: &'static str) -> Self {
        Self { code, words: Cow::Borrowed(words), again }
    }

    /// The client has disconnected.
    pub(super) const LEFT: Self = Self::new(1000, true, "");
    /// A message exceeds the maximum size.
    pub(super) const TOO_LARGE: Self = Self::new(1009, false, "The message was too large.");
    /// Our process is shutting down.
    pub(super) const RESTARTING: Self = Self::new(1012, true, "The service is being restarted.");
    /// The host has closed the console.
    pub(super) const OVER: Self = Self::new(4000, true, "The server has closed its console.");
    /// The guest is no longer running.
    pub(super) const STOPPED: Self = Self::new(4001, true, "The server has stopped.");
    /// A message that is not part of the protocol.
    pub(super) const NONSENSE: Self = Self::new(4400, false, "The service did not understand this page; reload it.");
    /// An invalid ticket. Whether it is wrong, used, expired or for another address is not revealed.
    pub(super) const TICKET: Self =
        Self::new(4401, false, "This link was already used or has expired. Open the console again from the panel.");
    /// The login or token has expired or was revoked.
    pub(super) const SIGNED_OUT: Self =
        Self::new(4402, false, "The login or token that opened this console is no longer valid.");
    /// The user has lost access.
    pub(super) const FORBIDDEN: Self = Self::new(4403, false, "You no longer have access to this server's console.");
    /// The server was deleted, or has another owner.
    pub(super) const GONE: Self = Self::new(4404, false, "This server was deleted or is no longer yours.");
    /// The user has been inactive for too long.
    pub(super) const IDLE: Self =
        Self::new(4408, false, "The console was closed because it was not used for a long time.");
    /// Another connection has taken over the console.
    pub(super) const TAKEN: Self = Self::new(4409, true, "This console was opened somewhere else.");
    /// The maximum duration has been reached.
    pub(super) const TIME_OVER: Self = Self::new(4410, false, "This console has reached its maximum duration.");
    /// The account's or the server's limit.
    pub(super) const TOO_MANY: Self = Self::new(4429, false, "Too many consoles are open; close another one first.");
    /// An internal error.
    pub(super) const FAILED: Self = Self::new(4500, true, "Something went wrong on our side.");
    /// The host refused or failed.
    pub(super) const HOST: Self = Self::new(4502, true, "The host could not open the console.");

    /// The same end with another message, cut to the maximum length.
    pub(super) fn with_text(self, words: &str) -> Self {
        let mut end = words.len().min(123);
        while !words.is_char_boundary(end) {
            end -= 1;
        }
        Self { words: Cow::Owned(words[..end].to_owned()), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_page_says_is_read() {
        let read = |text: &str| serde_json::from_str::<ClientMessage>(text);
        let size = WindowSize { columns: 80, rows: 24 };
        let open = read(r#"{"type":"open","ticket":"t","columns":80,"rows":24}"#).unwrap();
        assert!(matches!(open, ClientMessage::Open { size: Some(s), .. } if s == size), "{open:?}");
        assert!(matches!(read(r#"{"type":"open","ticket":"t"}"#).unwrap(), ClientMessage::Open { size: None, .. }));
        let resize = read(r#"{"type":"resize","columns":80,"rows":24}"#).unwrap();
        assert!(matches!(resize, ClientMessage::Resize(s) if s == size));
        assert!(read(r#"{"type":"resize","columns":-1,"rows":24}"#).is_err() && read("{}").is_err());
        assert!(!format!("{open:?}").contains("\"t\""), "a ticket is not printed");
    }

    #[test]
    fn words_fit_a_close_frame() {
        let long = "ж".repeat(100);
        assert_eq!(CloseReason::HOST.with_text(&long).words.len(), 122);
        for end in [CloseReason::NONSENSE, CloseReason::TICKET, CloseReason::GONE, CloseReason::IDLE] {
            assert!(end.words.len() <= 123, "{}", end.words);
        }
    }
}
