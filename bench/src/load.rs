//! A load generator as simple as pgbench: keep-alive connections with one request at a time each, on a thread and
//! runtime of its own, and no work per response beyond checking that it is complete and successful.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Results of a run.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Responses per second.
    pub rate: f64,
    /// Latency of every request in milliseconds.
    pub latencies: Vec<f64>,
}

/// GETs `path` with each of `tokens` in turn, over this many connections, for this long.
pub(crate) async fn run(
    address: SocketAddr,
    path: &str,
    tokens: &[String],
    connections: usize,
    time: Duration,
) -> anyhow::Result<Measured> {
    let requests: Vec<_> = tokens.iter().map(|token| (path.to_owned(), token.clone())).collect();
    run_each(address, &requests, connections, time).await
}

/// GETs each path with its token in turn.
pub(crate) async fn run_each(
    address: SocketAddr,
    requests: &[(String, String)],
    connections: usize,
    time: Duration,
) -> anyhow::Result<Measured> {
    let requests: Vec<String> = requests
        .iter()
        .map(|(path, token)| {
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nAccept: */*\r\n\r\n")
        })
        .collect();
    let (told, measured) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("load".into()).spawn(move || {
        let _ = told.send(on_this_thread(address, requests, connections, time));
    })?;
    measured.await.context("the load generator crashed")?
}

fn on_this_thread(
    address: SocketAddr,
    requests: Vec<String>,
    connections: usize,
    time: Duration,
) -> anyhow::Result<Measured> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let requests = std::sync::Arc::new(requests);
    runtime.block_on(async {
        let start = Instant::now();
        let until = start + time;
        let workers: Vec<_> = (0..connections)
            .map(|n| tokio::spawn(connection(address, std::sync::Arc::clone(&requests), n, until)))
            .collect();
        let mut latencies = Vec::new();
        for worker in workers {
            latencies.extend(worker.await??);
        }
        let rate = latencies.len() as f64 / start.elapsed().as_secs_f64();
        Ok(Measured { rate, latencies })
    })
}

async fn connection(
    address: SocketAddr,
    requests: std::sync::Arc<Vec<String>>,
    number: usize,
    until: Instant,
) -> anyhow::Result<Vec<f64>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(64 << 10);
    let mut latencies = Vec::new();
    // Each starts elsewhere, and their strides are coprime to any round number of tokens.
    let mut turn = number * 37;
    while Instant::now() < until {
        let request = &requests[turn % requests.len()];
        turn += 7;
        let at = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        answer(&mut stream, &mut buffer).await?;
        latencies.push(at.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(latencies)
}

/// Reads one response to its end.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
    buffer.clear();
    let whole = loop {
        anyhow::ensure!(stream.read_buf(buffer).await? > 0, "the service closed a connection");
        if let Some(head) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break head + 4 + length(&buffer[..head])?;
        }
    };
    while buffer.len() < whole {
        anyhow::ensure!(stream.read_buf(buffer).await? > 0, "the service closed a connection");
    }
    Ok(())
}

/// Length of the body of a successful response.
fn length(head: &[u8]) -> anyhow::Result<usize> {
    let head = std::str::from_utf8(head)?;
    anyhow::ensure!(head.starts_with("HTTP/1.1 200 "), "not a successful response: {head}");
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, length)| length.trim().parse().ok())
        .context("a response without a Content-Length")
}
