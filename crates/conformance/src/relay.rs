//! A unix socket in front of another one, which counts connections and can fail.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Fault;

/// The relay; its socket goes with it.
#[derive(Debug)]
pub struct Relay {
    path: PathBuf,
    fault: watch::Sender<Fault>,
    connections: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// A relay in front of `target`, all well.
    pub fn start(target: &Path) -> Self {
        let path = std::env::temp_dir().join(format!("innkeeper-relay-{}.sock", uuid::Uuid::new_v4().simple()));
        let listener = UnixListener::bind(&path).unwrap();
        let (fault, state) = watch::channel(Fault::None);
        let connections = Arc::new(AtomicU64::new(0));
        let (target, counter) = (target.to_owned(), connections.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                let fault = *state.borrow();
                let target = target.clone();
                tokio::spawn(async move { carry(near, &target, fault).await });
            }
        });
        Self { path, fault, connections, accepting }
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many connections it has taken; the driver makes one a request.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// What happens to connections from now on. While cut, the socket is not where it was.
    pub fn set(&self, fault: Fault) {
        let aside = self.path.with_extension("aside");
        match fault {
            Fault::Cut => drop(std::fs::rename(&self.path, aside)),
            _ => drop(std::fs::rename(aside, &self.path)),
        }
        self.fault.send_replace(fault);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(self.path.with_extension("aside"));
    }
}

async fn carry(mut near: UnixStream, target: &Path, fault: Fault) {
    // Bytes first, connection then: the daemon stands still while a connection says nothing.
    let mut request = vec![0; 64 << 10];
    let Ok(length @ 1..) = near.read(&mut request).await else { return };
    let Ok(mut far) = UnixStream::connect(target).await else { return };
    if far.write_all(&request[..length]).await.is_err() {
        return;
    }
    if fault != Fault::LoseAnswers {
        let _ = copy_bidirectional(&mut near, &mut far).await;
        return;
    }
    if request.starts_with(b"GET ") {
        let _ = copy_bidirectional(&mut near, &mut far).await;
        return;
    }
    // The rest of the request goes on; of the answer only its being there is noticed.
    let mut rest = vec![0; 64 << 10];
    loop {
        tokio::select! {
            read = near.read(&mut rest) => match read {
                Ok(length) if length > 0 => drop(far.write_all(&rest[..length]).await),
                _ => return,
            },
            answered = far.readable() => return drop(answered),
        }
    }
}
