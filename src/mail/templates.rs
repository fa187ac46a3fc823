//! What mails say, in text and HTML.
/// "Your server is ready".
#[derive(Debug)]
pub struct ServerReady<'a> {
    /// The server's host name.
    pub name: &'a str,
    /// Its addresses.
    pub addresses: &'a [std::net::IpAddr],
    /// Its tariff's name.
    pub tariff: &'a str,
    /// Its image's name.
    pub os: &'a str,
    /// Where to see it.
    pub url: &'a str,
}
