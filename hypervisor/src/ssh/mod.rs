//! Commands in guests over SSH: directly into the guest as root, or into its node and from there with `pct exec`.
//!
//! A machine's host key is pinned at the first connection ([`KnownHosts`]); if it shows another key later, we don't
//! connect. Secrets are never part of a command line: they go to the command's standard input.

mod key;
mod quote;
mod session;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

pub use self::key::{BadKey, check_key};
use self::session::{SIGN_IN, SessionFailure};
use crate::{Error, ExecOutput, GuestKind, GuestShell, Result, ShellTarget};

/// Comment of the management key in `authorized_keys`.
pub const COMMENT: &str = "innkeeper-management";

/// Generates a management key: the private key in OpenSSH format, and the public one as a line for `authorized_keys`.
///
/// # Errors
/// [`Error::Failed`] if the key can't be encoded.
pub fn new_key() -> Result<(SecretString, String)> {
    let failed = |e: russh::keys::ssh_key::Error| Error::Failed(format!("could not generate a key: {e}"));
    let mut key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).map_err(failed)?;
    key.set_comment(COMMENT);
    let private = key.to_openssh(LineEnding::LF).map_err(failed)?;
    Ok((SecretString::from(private.as_str()), key.public_key().to_openssh().map_err(failed)?))
}

/// The owner of a host key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostKeyOwner {
    /// The guest with this marker.
    Guest(Uuid),
    /// The node of this name.
    Node(String),
}

/// Remembers the host keys of machines.
#[async_trait]
pub trait KnownHosts: Send + Sync + fmt::Debug {
    /// Whether this key (an OpenSSH line without comment) is the machine's. The first key seen is pinned.
    async fn is_known(&self, machine: &HostKeyOwner, key: &str) -> Result<bool>;
}

/// Which routes may be used.
#[derive(Debug, Clone, Copy)]
pub struct SshRoutes {
    /// Into guests as root, if the management key was installed at creation: port of their SSH servers.
    pub guests: Option<u16>,
    /// Into nodes as root, if the provider has installed the management key there: port of their SSH servers.
    pub nodes: Option<u16>,
}

/// A [`GuestShell`] over SSH.
#[derive(Debug)]
pub struct SshShell {
    key: Arc<PrivateKey>,
    ways: SshRoutes,
    known: Arc<dyn KnownHosts>,
}

impl SshShell {
    /// Signs in with `key`, which [`new_key`] has generated.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the key can't be read.
    pub fn new(key: &SecretString, ways: SshRoutes, known: Arc<dyn KnownHosts>) -> Result<Self> {
        let key = PrivateKey::from_openssh(key.expose_secret())
            .map_err(|e| Error::Invalid(format!("the management key can't be read: {e}")))?;
        Ok(Self { key: Arc::new(key), ways, known })
    }

    /// Routes to a guest, best first: address, expected machine, and the command to run there.
    fn routes_to(&self, at: &ShellTarget, argv: &[&str]) -> Result<Vec<(SocketAddr, HostKeyOwner, String)>> {
        let mut ways = Vec::new();
        if let Some(port) = self.ways.guests {
            let command = quote::command(argv)?;
            let mut addresses = at.addresses.clone();
            addresses.sort_by_key(IpAddr::is_ipv6);
            ways.extend(
                addresses
                    .into_iter()
                    .map(|ip| (SocketAddr::new(ip, port), HostKeyOwner::Guest(at.marker), command.clone())),
            );
        }
        if let (Some(port), Some(ip), GuestKind::Lxc) = (self.ways.nodes, at.node_address, at.kind) {
            let number = at.vmid.to_string();
            let whole: Vec<&str> = ["pct", "exec", &number, "--"].into_iter().chain(argv.iter().copied()).collect();
            ways.push((SocketAddr::new(ip, port), HostKeyOwner::Node(at.node.clone()), quote::command(&whole)?));
        }
        Ok(ways)
    }
}

#[async_trait]
impl GuestShell for SshShell {
    async fn exec(&self, at: &ShellTarget, argv: &[&str], stdin: &[u8], timeout: Duration) -> Result<ExecOutput> {
        let (mut obstacles, mut silent) = (Vec::new(), false);
        let ways = self.routes_to(at, argv)?;
        let to_guest = ways.iter().filter(|(_, machine, _)| matches!(machine, HostKeyOwner::Guest(_))).count();
        for (address, machine, command) in ways {
            // The time limit covers all of a guest's addresses together: the guest decides how long each takes.
            let (place, in_guest) = match &machine {
                HostKeyOwner::Guest(_) => (format!("the guest at {address}"), true),
                HostKeyOwner::Node(name) => (format!("the node {name} at {address}"), false),
            };
            let patience = if in_guest { SIGN_IN / u32::try_from(to_guest).unwrap_or(1).max(1) } else { SIGN_IN };
            match session::run(&self.key, address, machine, &self.known, command, stdin, patience, timeout).await {
                Ok(output) if output.status == 127 => return Err(Error::NotFound(format!("{} in the guest", argv[0]))),
                Ok(output) => return Ok(output),
                // The command was not run: try the next route.
                Err(SessionFailure::NoWay(text)) => obstacles.push(format!("{place}: {text}")),
                Err(SessionFailure::Silent(text)) => {
                    silent |= in_guest;
                    obstacles.push(format!("{place}: {text}"));
                }
                // It would take as long by way of the node: the command in the guest is slow.
                Err(SessionFailure::Late(text)) => return Err(Error::GuestHung(format!("{place}: {text}"))),
                Err(SessionFailure::Lost(text)) if in_guest => {
                    return Err(Error::GuestHung(format!("{place}: {text}")));
                }
                Err(SessionFailure::Lost(text)) => return Err(Error::OutcomeUnknown(format!("{place}: {text}"))),
                Err(SessionFailure::Ours(error)) => return Err(error),
            }
        }
        if silent {
            return Err(Error::GuestHung(obstacles.join("; ")));
        }
        let why = if obstacles.is_empty() { "none is configured".to_owned() } else { obstacles.join("; ") };
        Err(Error::Unsupported(format!("no SSH route into guest {}: {why}", at.vmid)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Nobody;

    #[async_trait]
    impl KnownHosts for Nobody {
        async fn is_known(&self, _: &HostKeyOwner, _: &str) -> Result<bool> {
            Ok(false)
        }
    }

    #[test]
    fn a_key_is_what_openssh_takes() {
        let (private, public) = new_key().unwrap();
        assert!(public.starts_with("ssh-ed25519 ") && public.ends_with(" innkeeper-management"), "{public}");
        assert!(private.expose_secret().starts_with("-----BEGIN OPENSSH PRIVATE KEY-----"));
        let ways = SshRoutes { guests: None, nodes: None };
        assert!(SshShell::new(&"nonsense".to_owned().into(), ways, Arc::new(Nobody)).is_err());
    }

    #[tokio::test]
    async fn without_a_way_the_answer_says_what_was_tried() {
        let at = |addresses: Vec<IpAddr>| ShellTarget {
            marker: Uuid::new_v4(),
            vmid: 105,
            kind: GuestKind::Lxc,
            addresses,
            node: "pve1".to_owned(),
            node_address: None,
        };
        let shell = |guests| {
            SshShell::new(&new_key().unwrap().0, SshRoutes { guests, nodes: Some(22) }, Arc::new(Nobody)).unwrap()
        };
        let run = async |shell: SshShell, at| {
            let Err(Error::Unsupported(text)) = shell.exec(&at, &["true"], b"", Duration::from_secs(9)).await else {
                panic!("it found a route");
            };
            text
        };
        assert!(run(shell(None), at(vec![])).await.contains("none is configured"));
        // Nothing listens on a port that was free a moment ago.
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let text = run(shell(Some(closed.port())), at(vec![closed.ip()])).await;
        assert!(text.contains(&closed.to_string()), "{text}");
    }
}
