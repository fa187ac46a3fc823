//! A relay to a real part (PostgreSQL, Incus) that can be cut and mended.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::TestDb;

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
    pub async fn tcp(from: u16, to: String) -> Self {
        let listener = listen(from).await;
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

/// A relay that was cut holds its port until its task has noticed its end.
async fn listen(port: u16) -> TcpListener {
    for _ in 0..100 {
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await {
            return listener;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    TcpListener::bind(("127.0.0.1", port)).await.expect("a port of our own")
}

/// A way to a test's database that can be cut and mended.
pub struct Detour {
    /// The database's URL by this way.
    pub url: String,
    port: u16,
    to: String,
    relay: Option<Relay>,
}

impl Detour {
    pub async fn new(db: &TestDb) -> Self {
        let (url, port) = (db.url(), super::free_port());
        let (credentials, rest) = url.rsplit_once('@').expect("the URL has credentials");
        let (to, name) = rest.split_once('/').expect("the URL names a database");
        let mut detour =
            Self { url: format!("{credentials}@127.0.0.1:{port}/{name}"), port, to: to.to_owned(), relay: None };
        detour.mend().await;
        detour
    }

    pub fn cut(&mut self) {
        self.relay = None;
    }

    pub async fn mend(&mut self) {
        self.relay = Some(Relay::tcp(self.port, self.to.clone()).await);
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
