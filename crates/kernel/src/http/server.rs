//! Connections: how many there may be at a time, in total and per address, and how long one may take to send its
//! request and to read the response.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

use super::patience::{BodyDeadline, IoTimeouts, TimedStream};
use crate::limits::{ConnectionSlot, ConnectionSlots};

/// Limits on connections.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// Maximum number at a time, sockets included. More wait in the kernel's queue.
    pub connections: usize,
    /// How many of them one address may have. More are closed at once.
    pub places: Arc<ConnectionSlots>,
    /// Maximum time for a request's head to arrive, and for a connection to stay idle.
    pub head: Duration,
    /// How long to wait for clients after that.
    pub patience: IoTimeouts,
}

/// Accepts connections until `shutdown`, then lets the active ones finish. Dropping the future ends them at once.
pub async fn serve(listener: TcpListener, router: Router, limits: ConnectionLimits, shutdown: CancellationToken) {
    let room = Arc::new(Semaphore::new(limits.connections));
    let mut make = router.into_make_service_with_connect_info::<SocketAddr>();
    let mut connections = JoinSet::new();
    while let Some((stream, peer)) =
        shutdown.run_until_cancelled(accept(&listener, &room, &limits.places)).await.flatten()
    {
        while connections.try_join_next().is_some() {}
        let service = match make.call(peer).await {
            Ok(service) => service,
            Err(never) => impossible(never),
        };
        let (due, IoTimeouts { body, writing }) = (BodyDeadline::default(), limits.patience);
        let stream = TimedStream::new(stream, writing, due.clone());
        let watch = move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(due.clone());
            request.map(|incoming| due.watch(incoming, body))
        };
        let service = TowerToHyperService::new(service.map_request(watch));
        let (shutdown, head) = (shutdown.clone(), limits.head);
        connections.spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(head)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                ended = &mut connection => ended,
                () = shutdown.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%peer, %error, "a connection ended early");
            }
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

fn impossible(never: Infallible) -> ! {
    match never {}
}

/// Accepts the next connection once there is room for it. `None`: there will never be room again.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
    places: &Arc<ConnectionSlots>,
) -> Option<(Connection, SocketAddr)> {
    let room = Arc::clone(room).acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // An IPv6 socket reports IPv4 peers in a mapped form, which equals no IPv4 address.
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                let Some(place) = places.take(peer.ip()) else {
                    tracing::debug!(%peer, "closed a connection: the address has reached its limit");
                    continue;
                };
                // A console's output is many small pieces, and none may wait for the previous one to arrive. If the
                // option can't be set, they do.
                let _ = stream.set_nodelay(true);
                return Some((Connection { stream, _place: place, _room: room }, peer));
            }
            // The peer's own doing: it hung up before we answered.
            Err(error) if is_about_the_peer(&error) => {}
            // Out of file descriptors, for example: others must end first.
            Err(error) => {
                tracing::error!(%error, "cannot accept connections; retrying");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn is_about_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionAborted | K::ConnectionReset | K::ConnectionRefused)
}

/// A connection with its slot, which it keeps when it becomes a web socket.
struct Connection {
    stream: TcpStream,
    _place: ConnectionSlot,
    _room: OwnedSemaphorePermit,
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
