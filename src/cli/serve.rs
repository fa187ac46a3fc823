//! `innkeeper serve`: the service itself.

use std::io::IsTerminal;

use anyhow::Context;
use innkeeper::run::Service;
use kernel::config::{Config, LogFormat};
use kernel::{db, keyring};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::database;

/// Serves until SIGTERM or SIGINT. A second signal ends the process at once; unfinished work is resumed later.
pub(super) async fn run(config: Config) -> anyhow::Result<()> {
    log(&config)?;
    let stop = CancellationToken::new();
    tokio::spawn(signals(
        signal(SignalKind::terminate()).context("listening for SIGTERM")?,
        signal(SignalKind::interrupt()).context("listening for SIGINT")?,
        stop.clone(),
    ));
    let listen = config.listen;
    let service = Service::new(config)?;
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        ready = prepare(&service) => ready?,
    }
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("listening on {listen} (INNKEEPER_LISTEN); does something else listen there?"))?;
    let address = listener.local_addr().context("reading the listener's address")?;
    println!("Innkeeper is listening on http://{address} (documentation at http://{address}/api/docs)");
    service.serve(listener, stop.cancelled_owned()).await
}

async fn prepare(service: &Service) -> anyhow::Result<()> {
    database::wait(&service.core.db).await?;
    db::migrate(&service.core.db).await?;
    keyring::service::check(&service.core, service.features.all()).await?;
    // Before any request is answered from a database that may have been restored.
    Ok(kernel::restores::service::begin(&service.core).await?)
}

async fn signals(
    mut terminate: tokio::signal::unix::Signal,
    mut interrupt: tokio::signal::unix::Signal,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if stop.is_cancelled() {
            std::process::exit(1);
        }
        tracing::info!("shutting down; finishing work in progress");
        stop.cancel();
    }
}

fn log(config: &Config) -> anyhow::Result<()> {
    let filter =
        EnvFilter::try_new(&config.log).context("INNKEEPER_LOG must be a filter such as info or info,kernel=debug")?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let done = match config.log_format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    done.map_err(|e| anyhow::anyhow!("starting the log: {e}"))
}
