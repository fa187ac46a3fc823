//! The email for confirming an address.

use askama::Template;
use kernel::error::{Error, Result};
use kernel::mail::templates::{MailTemplate, Rendered, line};

/// Asks the recipient to confirm their address.
#[derive(Debug)]
pub struct ConfirmAddress<'a> {
    /// URL of the confirmation page.
    pub url: &'a str,
    /// The confirmation code.
    pub code: &'a str,
    /// URL of the service that the account is on.
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

impl MailTemplate for ConfirmAddress<'_> {
    fn render(&self) -> Result<Rendered> {
        let (url, code, service) = (&line(self.url), self.code, &line(self.service));
        let subject = "Confirm your email address";
        Ok(Rendered {
            subject: subject.to_owned(),
            text: ConfirmAddressText { url, code, service }.render().map_err(Error::internal)?,
            html: ConfirmAddressHtml { subject, url, service }.render().map_err(Error::internal)?,
        })
    }
}
