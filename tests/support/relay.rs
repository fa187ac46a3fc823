//! A relay to a real part (PostgreSQL, Incus) that can be cut and mended.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::{TestDb, wait_for};

/// A loopback port of a test's own. Where nobody listens on it, connections to it are refused, and nobody else gets it.
pub struct Port {
    at: SocketAddr,
    // Bound, never listening: it holds the place for those that do.
    _held: TcpSocket,
}

impl Port {
    pub fn new() -> Self {
        let held = Self::bound(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        Self { at: held.local_addr().expect("its number"), _held: held }
    }

    pub fn number(&self) -> u16 {
        self.at.port()
    }

    fn bound(at: SocketAddr) -> std::io::Result<TcpSocket> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(at)?;
        Ok(socket)
    }

    /// Whoever listened before may take a moment to notice that it is over.
    async fn listen(&self) -> TcpListener {
        wait_for("a port of our own", async || Self::bound(self.at)?.listen(1024)).await
    }
}

/// Between the service and the real part. Cutting it ends every connection; new ones are refused.
pub struct Relay {
    end: CancellationToken,
    path: Option<PathBuf>,
}

impl Relay {
    /// From a socket file to another.
    pub async fn unix(from: &Path, to: &str) -> Self {
        let listener = UnixListener::bind(from).expect("a socket of our own");
        let (end, to) = (CancellationToken::new(), to.to_owned());
        let ended = end.clone();
        tokio::spawn(async move {
            while let Some(Ok((mut near, _))) = ended.run_until_cancelled(listener.accept()).await {
                let (ended, to) = (ended.clone(), to.clone());
                tokio::spawn(async move {
                    let Ok(mut far) = UnixStream::connect(to).await else { return };
                    let _ = ended.run_until_cancelled(copy_bidirectional(&mut near, &mut far)).await;
                });
            }
        });
        Self { end, path: Some(from.to_owned()) }
    }

    /// From a loopback port to another address.
    pub async fn tcp(from: &Port, to: String) -> Self {
        let listener = from.listen().await;
        let end = CancellationToken::new();
        let ended = end.clone();
        tokio::spawn(async move {
            while let Some(Ok((mut near, _))) = ended.run_until_cancelled(listener.accept()).await {
                let (ended, to) = (ended.clone(), to.clone());
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(to).await else { return };
                    let _ = ended.run_until_cancelled(copy_bidirectional(&mut near, &mut far)).await;
                });
            }
        });
        Self { end, path: None }
    }

    /// Ends every connection and takes no more.
    pub fn cut(self) {}
}

/// A way to a test's database that can be cut and mended.
pub struct Detour {
    /// The database's URL by this way.
    pub url: String,
    port: Port,
    to: String,
    relay: Option<Relay>,
}

impl Detour {
    pub async fn new(db: &TestDb) -> Self {
        let (url, port) = (db.url(), Port::new());
        let (credentials, rest) = url.rsplit_once('@').expect("the URL has credentials");
        let (to, name) = rest.split_once('/').expect("the URL names a database");
        let mut detour = Self {
            url: format!("{credentials}@127.0.0.1:{}/{name}", port.number()),
            port,
            to: to.to_owned(),
            relay: None,
        };
        detour.mend().await;
        detour
    }

    pub fn cut(&mut self) {
        self.relay = None;
    }

    pub async fn mend(&mut self) {
        self.relay = Some(Relay::tcp(&self.port, self.to.clone()).await);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.end.cancel();
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}
