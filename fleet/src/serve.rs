//! Listeners and connections, with simulated failures.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivatePkcs8KeyDer;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::host::{Behaviour, Host, Place};
use crate::{Kind, Options, incus, proxmox};

/// Delay between attempts to bind an address again.
const PAUSE: Duration = Duration::from_millis(20);
/// Length of the accept queue.
const BACKLOG: u32 = 1024;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Where a host listens, and over what.
#[derive(Clone)]
enum Door {
    Https(SocketAddr, TlsAcceptor),
    Unix(PathBuf),
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Starts serving a host until `stop`.
pub(crate) async fn start(
    options: &Options,
    index: usize,
    folder: &Path,
    stop: &CancellationToken,
) -> anyhow::Result<Host> {
    let (door, listener, place) = match options.kind {
        Kind::Proxmox => {
            let (tls, fingerprint) = certificate()?;
            let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
            let address = listener.local_addr()?;
            let place = Place::Https { url: format!("https://{address}"), fingerprint };
            (Door::Https(address, tls), Listener::Tcp(listener), place)
        }
        Kind::Incus => {
            let path = folder.join(format!("incus-{index}.socket"));
            let door = Door::Unix(path.clone());
            let listener = door.open().await.with_context(|| path.display().to_string())?;
            (door, listener, Place::Unix(path))
        }
    };
    let host = Host::new(options, index, place);
    let (served, stop) = (host.clone(), stop.child_token());
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = serve(&served, &door, listener, &stop) => {}
        }
    });
    Ok(host)
}

/// A self-signed certificate and its fingerprint.
fn certificate() -> anyhow::Result<(TlsAcceptor, String)> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    let mut fingerprint = String::new();
    for byte in Sha256::digest(made.cert.der()) {
        let _ = write!(fingerprint, "{}{byte:02X}", if fingerprint.is_empty() { "" } else { ":" });
    }
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())?;
    Ok((TlsAcceptor::from(Arc::new(config)), fingerprint))
}

impl Door {
    async fn open(&self) -> std::io::Result<Listener> {
        match self {
            Self::Https(address, _) => TcpListener::bind(address).await.map(Listener::Tcp),
            Self::Unix(path) => match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => UnixListener::bind(path).map(Listener::Unix),
            },
        }
    }

    /// A port that is bound but not listened on refuses connections and can't be taken by anyone else.
    fn hold(&self) -> Option<TcpSocket> {
        let Self::Https(address, _) = self else { return None };
        let socket = TcpSocket::new_v4().ok()?;
        socket.set_reuseaddr(true).ok()?;
        socket.bind(*address).ok()?;
        Some(socket)
    }
}

/// Serves a host, however often it dies and comes back.
async fn serve(host: &Host, door: &Door, mut listener: Listener, stop: &CancellationToken) {
    loop {
        let life = stop.child_token();
        tokio::select! {
            () = host.turned(true) => {}
            () = accept(host, door, &listener, &life) => {}
        }
        life.cancel();
        drop(listener);
        let held = door.hold();
        host.turned(false).await;
        let again = held.and_then(|socket| socket.listen(BACKLOG).ok()).map(Listener::Tcp);
        listener = match again {
            Some(listener) => listener,
            None => reopen(door).await,
        };
    }
}

async fn reopen(door: &Door) -> Listener {
    loop {
        match door.open().await {
            Ok(listener) => return listener,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Accepts connections, each on a task that ends with `life`.
async fn accept(host: &Host, door: &Door, listener: &Listener, life: &CancellationToken) {
    loop {
        let stream: std::io::Result<Box<dyn Stream>> = match listener {
            Listener::Tcp(tcp) => tcp.accept().await.map(|(stream, _)| {
                // Don't delay answers for acknowledgements.
                let _ = stream.set_nodelay(true);
                Box::new(stream) as Box<dyn Stream>
            }),
            Listener::Unix(unix) => unix.accept().await.map(|(stream, _)| Box::new(stream) as Box<dyn Stream>),
        };
        let Ok(stream) = stream else {
            // Probably too many open files: wait for others to close.
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (host, door) = (host.clone(), door.clone());
        tokio::spawn(life.clone().run_until_cancelled_owned(async move {
            host.awake().await;
            match door {
                Door::Https(_, tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        connection(&host, stream).await;
                    }
                }
                Door::Unix(_) => connection(&host, stream).await,
            }
        }));
    }
}

async fn connection(host: &Host, stream: impl Stream + 'static) {
    let service = service_fn(|request| async { Ok::<_, Infallible>(answer(host, request).await) });
    // Errors don't matter here: the client notices them.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(host: &Host, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    // The body is irrelevant but must be read before the connection can be reused.
    let _ = body.collect().await;
    let error = match host.0.kind {
        Kind::Proxmox => proxmox::error,
        Kind::Incus => incus::error,
    };
    let (status, body) = match host.asked_again().await {
        Some(status) => error(status, "simulated failure"),
        None if host.behaviour() == Behaviour::Dead => error(503, "dying"),
        None if host.0.kind == Kind::Proxmox && !head.headers.contains_key(AUTHORIZATION) => (401, Bytes::new()),
        None if head.method != Method::GET => {
            error(501, &format!("Method '{} {}' not implemented", head.method, head.uri.path()))
        }
        None => host.answer(head.uri.path(), head.uri.query().unwrap_or_default()),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = match host.0.kind {
        Kind::Proxmox => "application/json;charset=UTF-8",
        Kind::Incus => "application/json",
    };
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(json));
    response
}
