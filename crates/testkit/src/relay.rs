//! A relay to a real component (PostgreSQL, Incus) that can be cut, restored, slowed down, and made to lose an answer.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::{TestDb, wait_for};

/// A loopback port reserved for a test. While nobody listens on it, connections to it are refused, and nobody else gets
/// it.
pub struct Port {
    at: SocketAddr,
    // Bound but never listening: it reserves the port.
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

    /// The previous listener may take a moment to close.
    async fn listen(&self) -> TcpListener {
        wait_for("a port of our own", async || Self::bound(self.at)?.listen(1024)).await
    }
}

/// Between the service and the real component. Cutting it ends every connection; new ones are refused.
pub struct Relay {
    end: CancellationToken,
    path: Option<PathBuf>,
}

impl Relay {
    /// From one Unix socket to another.
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
        Self::over(from, to, Arc::default()).await
    }

    async fn over(from: &Port, to: String, wire: Arc<Wire>) -> Self {
        let listener = from.listen().await;
        let end = CancellationToken::new();
        let ended = end.clone();
        tokio::spawn(async move {
            while let Some(Ok((near, _))) = ended.run_until_cancelled(listener.accept()).await {
                let (ended, to, wire) = (ended.clone(), to.clone(), Arc::clone(&wire));
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(to).await else { return };
                    let _ = ended.run_until_cancelled(wire.pass(near, far)).await;
                });
            }
        });
        Self { end, path: None }
    }

    /// Ends every connection and accepts no more.
    pub fn cut(self) {}
}

/// What a connection does to its traffic.
#[derive(Default)]
pub struct Wire {
    /// In milliseconds, each way.
    delay: AtomicU64,
    /// The next COMMIT is passed on and executed; its answer is lost with the connection.
    loses: AtomicBool,
}

impl Wire {
    async fn pass(&self, mut near: TcpStream, mut far: TcpStream) -> std::io::Result<()> {
        let (mut from_near, mut to_near) = near.split();
        let (mut from_far, mut to_far) = far.split();
        let doomed = AtomicBool::new(false);
        let there = async {
            let mut piece = vec![0; 64 * 1024];
            loop {
                let length = from_near.read(&mut piece).await?;
                if length == 0 {
                    return std::io::Result::Ok(());
                }
                self.lag().await;
                let commits = piece[..length].windows(7).any(|w| w == b"COMMIT\0");
                if commits && self.loses.swap(false, Ordering::SeqCst) {
                    doomed.store(true, Ordering::SeqCst);
                }
                to_far.write_all(&piece[..length]).await?;
            }
        };
        let back = async {
            let mut piece = vec![0; 64 * 1024];
            loop {
                let length = from_far.read(&mut piece).await?;
                if length == 0 || doomed.load(Ordering::SeqCst) {
                    return std::io::Result::Ok(());
                }
                self.lag().await;
                to_near.write_all(&piece[..length]).await?;
            }
        };
        tokio::select! {
            ended = there => ended,
            ended = back => ended,
        }
    }

    async fn lag(&self) {
        let delay = self.delay.load(Ordering::SeqCst);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
    }
}

/// A connection to a test's database that can be cut, restored, slowed down, and made to lose an answer.
pub struct DatabaseRelay {
    /// The database's URL through the relay.
    pub url: String,
    port: Port,
    to: String,
    wire: Arc<Wire>,
    relay: Option<Relay>,
}

impl DatabaseRelay {
    pub async fn new(db: &TestDb) -> Self {
        let (url, port) = (db.url(), Port::new());
        let (credentials, rest) = url.rsplit_once('@').expect("the URL has credentials");
        let (to, name) = rest.split_once('/').expect("the URL names a database");
        let mut db_relay = Self {
            url: format!("{credentials}@127.0.0.1:{}/{name}", port.number()),
            port,
            to: to.to_owned(),
            wire: Arc::default(),
            relay: None,
        };
        db_relay.mend().await;
        db_relay
    }

    pub fn cut(&mut self) {
        self.relay = None;
    }

    pub async fn mend(&mut self) {
        self.relay = Some(Relay::over(&self.port, self.to.clone(), Arc::clone(&self.wire)).await);
    }

    /// From now on everything takes this long each way.
    pub fn delay(&self, each_way: Duration) {
        self.wire.delay.store(each_way.as_millis().try_into().expect("a short delay"), Ordering::SeqCst);
    }

    /// The next COMMIT is executed, and its answer is lost.
    pub fn lose_next_commit_answer(&self) {
        self.wire.loses.store(true, Ordering::SeqCst);
    }

    /// Whether that has happened; if not, it is called off.
    pub fn answer_was_lost(&self) -> bool {
        !self.wire.loses.swap(false, Ordering::SeqCst)
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
