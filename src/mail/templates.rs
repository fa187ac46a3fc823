//! What a mail is: text and HTML. Names in mails are data: escaped in HTML, and on one line in both.

use crate::error::Result;

/// A mail ready to be queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Subject, one line.
    pub subject: String,
    /// For readers of plain text.
    pub text: String,
    /// For everybody else.
    pub html: String,
}

/// A mail that can be written.
pub trait Mail {
    /// Subject, text and HTML.
    fn render(&self) -> Result<Rendered>;
}

/// A name on one line: what breaks lines or turns the direction of text becomes a space.
pub fn line(text: &str) -> String {
    let odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}'
                | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
    };
    text.chars().map(|c| if odd(c) { ' ' } else { c }).collect::<String>().trim().to_owned()
}
