//! The peer of each query: pgbench on the same database.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use sqlx::PgPool;
use tokio::process::Command;

/// Results of a run.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Transactions per second.
    pub rate: f64,
    /// Latency of every transaction in milliseconds.
    pub latencies: Vec<f64>,
}

/// Runs `script` with this many clients for this long. Its variable `prepared` is initially 0.
pub(crate) async fn run(
    database_url: &str,
    script: &str,
    clients: usize,
    seconds: Duration,
) -> anyhow::Result<Measured> {
    let program = std::env::var("PGBENCH").unwrap_or_else(|_| "pgbench".into());
    let folder = tempfile::tempdir()?;
    let (file, prefix) = (folder.path().join("script.sql"), folder.path().join("log"));
    tokio::fs::write(&file, script).await?;
    let url = reqwest::Url::parse(database_url).context("the database's URL")?;
    let output = Command::new(&program)
        .args(["--no-vacuum", "--protocol", "simple", "--client", &clients.to_string(), "--jobs", "1"])
        .args(["--time", &seconds.as_secs().to_string(), "--log", "--log-prefix"])
        .arg(&prefix)
        .args(["--define", "prepared=0", "--file"])
        .arg(&file)
        .env("PGHOST", url.host_str().unwrap_or("127.0.0.1"))
        .env("PGPORT", url.port().unwrap_or(5432).to_string())
        .env("PGUSER", url.username())
        .env("PGPASSWORD", url.password().unwrap_or_default())
        .env("PGDATABASE", url.path().trim_start_matches('/'))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("running {program} (PGBENCH names it)"))?;
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    anyhow::ensure!(output.status.success(), "pgbench failed: {errors}");
    let rate = rate(&text).with_context(|| format!("no rate in pgbench's output: {text}"))?;
    Ok(Measured { rate, latencies: latencies(folder.path()).await? })
}

/// A query of the service, verbatim, as one of its connections has prepared it.
pub(crate) async fn prepared(db: &PgPool, like: &str) -> anyhow::Result<String> {
    let mut connections = Vec::new();
    for _ in 0..db.size() {
        let mut connection = db.acquire().await?;
        let found: Option<String> = sqlx::query_scalar(
            "select statement from pg_prepared_statements where statement like $1 order by prepare_time limit 1",
        )
        // Passed as a parameter, or this query would match itself.
        .bind(like)
        .fetch_optional(&mut *connection)
        .await?;
        if let Some(found) = found {
            return Ok(found);
        }
        // Keep it, so that the next one is a different connection.
        connections.push(connection);
    }
    anyhow::bail!("no connection of the service has prepared a query like {like}")
}

/// Parses the line `tps = 1234.5 (without initial connection time)`.
fn rate(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok())
}

/// The third field of each log line, which is in microseconds.
async fn latencies(folder: &Path) -> anyhow::Result<Vec<f64>> {
    let mut all = Vec::new();
    let mut files = tokio::fs::read_dir(folder).await?;
    while let Some(file) = files.next_entry().await? {
        if file.file_name().to_string_lossy().starts_with("log") {
            let text = tokio::fs::read_to_string(file.path()).await?;
            let micros = text.lines().filter_map(|l| l.split(' ').nth(2)?.parse::<f64>().ok());
            all.extend(micros.map(|us| us / 1000.0));
        }
    }
    anyhow::ensure!(!all.is_empty(), "pgbench logged no transactions");
    Ok(all)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_rate_is_found() {
        let text = "latency average = 1.2 ms\ninitial connection time = 9 ms\ntps = 12543.25 (without initial)\n";
        assert_eq!(super::rate(text), Some(12543.25));
        assert_eq!(super::rate("nothing"), None);
    }
}
