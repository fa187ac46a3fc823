//! What is asked for and answered, over HTTP and over the console's socket.

use std::borrow::Cow;
use std::net::IpAddr;

use garde::Validate;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{ServerId, UserId};

/// Which server's console.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OpenConsole {
    /// The guest's number: the server's `proxmoxId`.
    #[garde(range(min = 1))]
    #[schema(example = 100)]
    pub vmid: i64,
}

/// A way to a console.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ConsoleUrl {
    /// `success`.
    pub status: String,
    /// The page to open, with a ticket that works once, within half a minute, from the address that asked.
    pub url: String,
}

/// One person's way to one server's console.
#[derive(Debug)]
pub(super) struct Way {
    pub id: Uuid,
    pub server: ServerId,
    pub user: UserId,
    pub token: Uuid,
    pub session: Option<Uuid>,
    pub address: IpAddr,
}

/// A window's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct Size {
    pub columns: u16,
    pub rows: u16,
}

/// What the page says in text messages; all that is typed comes in binary ones.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Told {
    /// The first message.
    Open {
        ticket: SecretString,
        /// Of a terminal.
        #[serde(flatten)]
        size: Option<Size>,
    },
    /// The window has another size.
    Resize(Size),
    /// Somebody is at the screen. At a terminal what is typed says so.
    Active,
}

/// What we say in text messages; all that is shown goes in binary ones.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Said<'a> {
    /// A ticket to open it again with, once, when this connection is lost.
    Ticket { ticket: &'a str },
    /// The console is open.
    Ready { kind: Kind, server: Named<'a> },
}

/// What a console is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// A terminal.
    Text,
    /// A screen, in RFB 3.8 without a password.
    Screen,
}

/// A server, for the page's title.
#[derive(Debug, Serialize)]
pub(super) struct Named<'a> {
    pub id: ServerId,
    pub vmid: i64,
    pub name: &'a str,
}

/// Why a console ends. `docs/console.md` lists the codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    /// The close frame's code.
    pub code: u16,
    /// For the person, at most 123 bytes.
    pub words: Cow<'static, str>,
    /// Whether the console may be taken up again with its next ticket.
    pub again: bool,
}

impl End {
    const fn new(code: u16, again: bool, words: &'static str) -> Self {
        Self { code, words: Cow::Borrowed(words), again }
    }

    /// The client has left, or its network.
    pub(super) const LEFT: Self = Self::new(1000, true, "");
    /// A message that is larger than we take.
    pub(super) const TOO_LARGE: Self = Self::new(1009, false, "That was too much in one piece.");
    /// Our process ends.
    pub(super) const RESTARTING: Self = Self::new(1012, true, "The service is being restarted.");
    /// The host has ended it.
    pub(super) const OVER: Self = Self::new(4000, true, "The server has closed its console.");
    /// The guest does not run any more.
    pub(super) const STOPPED: Self = Self::new(4001, true, "The server has stopped.");
    /// Something that is not said here.
    pub(super) const NONSENSE: Self =
        Self::new(4400, false, "The page and the service don't understand each other; reload it.");
    /// A bad ticket. Not told apart: wrong, used, too old, or another's.
    pub(super) const TICKET: Self =
        Self::new(4401, false, "This link was used already or is too old. Open the console again from the panel.");
    /// The login or token has ended.
    pub(super) const SIGNED_OUT: Self =
        Self::new(4402, false, "The login or token that opened this console has ended.");
    /// The rights have ended.
    pub(super) const FORBIDDEN: Self = Self::new(4403, false, "You may not use this server's console any more.");
    /// The server has gone, or to somebody else.
    pub(super) const GONE: Self = Self::new(4404, false, "This server was deleted, or is not yours any more.");
    /// Nobody did anything for long.
    pub(super) const IDLE: Self =
        Self::new(4408, false, "Nothing was typed for a long time, so the console was closed.");
    /// It was opened somewhere else.
    pub(super) const TAKEN: Self = Self::new(4409, true, "This console was opened in another place.");
    /// It was open for as long as one may be.
    pub(super) const TIME_OVER: Self = Self::new(4410, false, "A console stays open for so long and no longer.");
    /// The account's or the server's limit.
    pub(super) const TOO_MANY: Self = Self::new(4429, false, "Too many consoles are open; close another one first.");
    /// What we can't explain to a customer.
    pub(super) const FAILED: Self = Self::new(4500, true, "Something went wrong on our side.");
    /// The host refused or failed.
    pub(super) const HOST: Self = Self::new(4502, true, "The host could not open the console.");

    /// The same end in other words, as far as they fit.
    pub(super) fn saying(self, words: &str) -> Self {
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
        let read = |text: &str| serde_json::from_str::<Told>(text);
        let size = Size { columns: 80, rows: 24 };
        let open = read(r#"{"type":"open","ticket":"t","columns":80,"rows":24}"#).unwrap();
        assert!(matches!(open, Told::Open { size: Some(s), .. } if s == size), "{open:?}");
        assert!(matches!(read(r#"{"type":"open","ticket":"t"}"#).unwrap(), Told::Open { size: None, .. }));
        let resize = read(r#"{"type":"resize","columns":80,"rows":24}"#).unwrap();
        assert!(matches!(resize, Told::Resize(s) if s == size));
        assert!(read(r#"{"type":"resize","columns":-1,"rows":24}"#).is_err() && read("{}").is_err());
        assert!(!format!("{open:?}").contains("\"t\""), "a ticket is not printed");
    }

    #[test]
    fn words_fit_a_close_frame() {
        let long = "ж".repeat(100);
        assert_eq!(End::HOST.saying(&long).words.len(), 122);
        for end in [End::NONSENSE, End::TICKET, End::GONE, End::IDLE] {
            assert!(end.words.len() <= 123, "{}", end.words);
        }
    }
}
