//! What a mail is: text and HTML. Names in mails are data: escaped in HTML, and on one line in both.

use crate::error::Result;

/// A rendered email, ready to be queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The subject, on one line.
    pub subject: String,
    /// The plain text body.
    pub text: String,
    /// The HTML body.
    pub html: String,
}

/// An email that can be rendered.
pub trait MailTemplate {
    /// Renders subject, text and HTML.
    fn render(&self) -> Result<Rendered>;
}

/// A name on one line: characters that break lines or change the direction of text become spaces.
pub fn line(text: &str) -> String {
    let odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}'
                | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
    };
    text.chars().map(|c| if odd(c) { ' ' } else { c }).collect::<String>().trim().to_owned()
}
