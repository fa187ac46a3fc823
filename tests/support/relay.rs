//! A relay to a real part (PostgreSQL, Incus) that can be cut and mended.

use std::path::{Path, PathBuf};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

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
        let listener = TcpListener::bind(("127.0.0.1", from)).await.expect("a port of our own");
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

impl Drop for Relay {
    fn drop(&mut self) {
        self.end.cancel();
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}
