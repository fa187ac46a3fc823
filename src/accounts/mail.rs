//! The mail that asks whether an address is its owner's.

use askama::Template;

use crate::error::{Error, Result};
use crate::mail::templates::{Mail, Rendered, line};

/// "Is this address yours?"
#[derive(Debug)]
pub struct ConfirmAddress<'a> {
    /// The page that says yes.
    pub url: &'a str,
    /// What it says it with.
    pub code: &'a str,
    /// Where the account is.
    pub service: &'a str,
}

#[derive(Template)]
#[template(path = "mail/confirm_address.txt")]
struct ConfirmAddressText<'a> {
    url: &'a str,
    code: &'a str,
    service: &'a str,
}

#[derive(Template)]
#[template(path = "mail/confirm_address.html")]
struct ConfirmAddressHtml<'a> {
    subject: &'a str,
    url: &'a str,
    service: &'a str,
}

impl Mail for ConfirmAddress<'_> {
    fn render(&self) -> Result<Rendered> {
        let (url, code, service) = (&line(self.url), self.code, &line(self.service));
        let subject = "Is this address yours?";
        Ok(Rendered {
            subject: subject.to_owned(),
            text: ConfirmAddressText { url, code, service }.render().map_err(Error::internal)?,
            html: ConfirmAddressHtml { subject, url, service }.render().map_err(Error::internal)?,
        })
    }
}
