//! The service under test: its own database in the given cluster, everything else as in `innkeeper serve`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use accounts::model::User;
use accounts::service::add_user;
use anyhow::Context;
use hypervisor::{GuestKind, GuestRef};
use innkeeper::run::Service;
use kernel::auth::StaffRole;
use kernel::config::Config;
use secrecy::SecretString;
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use uuid::Uuid;
use watch::monitoring::MonitoringSettings;

use crate::lab::{self, Lab};
use crate::report::say;

/// A key of 32 bytes as base64.
pub(crate) const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// Password of all accounts.
const PASSWORD: &str = "correct horse battery";

/// What to clean up when the run ends, however it ends.
static LEFT: Mutex<Vec<Leavings>> = Mutex::new(Vec::new());

#[derive(Debug)]
struct Leavings {
    database: String,
    app: Arc<Service>,
    served: Option<(oneshot::Sender<()>, tokio::task::JoinHandle<anyhow::Result<()>>)>,
    /// Guests created by the driver alone.
    guests: Vec<GuestRef>,
    lab: Option<Lab>,
}

fn left() -> std::sync::MutexGuard<'static, Vec<Leavings>> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cluster_url() -> anyhow::Result<String> {
    std::env::var("INNKEEPER_TEST_DATABASE_URL")
        .context("INNKEEPER_TEST_DATABASE_URL is not set: it names a PostgreSQL cluster to make databases in")
}

async fn admin() -> anyhow::Result<PgConnection> {
    let options: PgConnectOptions = cluster_url()?.parse().context("INNKEEPER_TEST_DATABASE_URL")?;
    PgConnection::connect_with(&options).await.context("connecting to the cluster for benchmarks")
}

/// Describes the machine and the cluster for the table's header.
pub(crate) async fn cluster_words() -> anyhow::Result<String> {
    let mut admin = admin().await?;
    let setting = async |name: &str, db: &mut PgConnection| {
        sqlx::query_scalar::<_, String>("select current_setting($1)").bind(name).fetch_one(db).await
    };
    let version = setting("server_version", &mut admin).await?;
    let mut durable = true;
    for name in ["fsync", "synchronous_commit", "full_page_writes"] {
        durable &= setting(name, &mut admin).await? == "on";
    }
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let durability = if durable {
        "with its default durability (fsync on)"
    } else {
        "WITHOUT durability (fsync or synchronous_commit off): commits look cheaper than they are"
    };
    let version = version.split(' ').next().unwrap_or_default();
    Ok(format!("{cpus} CPUs; PostgreSQL {version} {durability}; everything on this machine, over loopback"))
}

/// A running service.
#[derive(Debug)]
pub(crate) struct House {
    pub app: Arc<Service>,
    pub address: SocketAddr,
    pub database_url: String,
    database: String,
    http: reqwest::Client,
    /// The folder for its emails.
    _data: tempfile::TempDir,
}

impl House {
    /// Creates the database and starts serving. [`House::close`] cleans up, or else [`tidy_all`].
    pub(crate) async fn open(lab: Option<&Lab>) -> anyhow::Result<Self> {
        let url = cluster_url()?;
        let (server, _) = url.rsplit_once('/').context("INNKEEPER_TEST_DATABASE_URL names no database")?;
        let database = format!("ink_bench_{}", Uuid::new_v4().simple());
        let database_url = format!("{server}/{database}");
        let data = tempfile::tempdir().context("creating a folder for emails")?;
        let mut config = Config {
            database_url: SecretString::from(database_url.clone()),
            secret_key: SecretString::from(KEY),
            data: data.path().to_owned(),
            // Effectively no limit, but requests are still counted.
            rate_limit_token: 1_000_000_000,
            rate_limit_account: 1_000_000_000,
            ..Config::default()
        };
        // A sweep in the middle of a measurement would be noise.
        config.of::<MonitoringSettings>().sweep_seconds = 3600;
        let app = Service::new(config)?;
        admin().await?.execute(AssertSqlSafe(format!("create database {database}"))).await?;
        left().push(Leavings {
            database: database.clone(),
            app: Arc::clone(&app),
            served: None,
            guests: Vec::new(),
            lab: lab.cloned(),
        });
        kernel::db::migrate(&app.core.db).await?;
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(Arc::clone(&app).serve(listener, async move {
            let _ = stopped.await;
        }));
        if let Some(mine) = left().iter_mut().find(|l| l.database == database) {
            mine.served = Some((stop, task));
        }
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_mins(1)).build()?;
        Ok(Self { app, address, database_url, database, http, _data: data })
    }

    /// Creates an account.
    pub(crate) async fn person(&self, email: &str, staff_role: Option<StaffRole>) -> anyhow::Result<User> {
        Ok(add_user(&self.app.features.accounts, email, "", staff_role, SecretString::from(PASSWORD)).await?)
    }

    /// Signs in and returns the access token.
    pub(crate) async fn login(&self, email: &str) -> anyhow::Result<String> {
        let answer = self.post("/api/auth/login", None, &json!({ "email": email, "password": PASSWORD })).await?;
        Ok(answer["accessToken"].as_str().context("no access token in the answer")?.to_owned())
    }

    /// POST; returns the body of a successful response.
    pub(crate) async fn post(&self, path: &str, token: Option<&str>, body: &Value) -> anyhow::Result<Value> {
        self.send(reqwest::Method::POST, path, token, Some(body)).await
    }

    /// DELETE; returns the body of a successful response.
    pub(crate) async fn delete(&self, path: &str, token: &str) -> anyhow::Result<Value> {
        self.send(reqwest::Method::DELETE, path, Some(token), None).await
    }

    async fn send(
        &self,
        method: reqwest::Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let mut request = self.http.request(method, format!("http://{}{path}", self.address));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        anyhow::ensure!(status.is_success(), "{path} answered {status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// Registers a guest that the driver alone is about to create, for cleaning up.
    pub(crate) fn remember(&self, guest: &GuestRef) {
        if let Some(mine) = left().iter_mut().find(|l| l.database == self.database) {
            mine.guests.push(guest.clone());
        }
    }

    /// Stops the service and removes everything that it and the benchmark have created.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        let mine = {
            let mut left = left();
            left.iter().position(|l| l.database == self.database).map(|i| left.swap_remove(i))
        };
        match mine {
            Some(mine) => tidy(mine).await,
            None => Ok(()),
        }
    }
}

/// Cleans up whatever is left.
pub(crate) async fn tidy_all() {
    let all = std::mem::take(&mut *left());
    for one in all {
        let database = one.database.clone();
        if let Err(error) = tidy(one).await {
            say(&format!("tidying up after {database} failed: {error:#}"));
        }
    }
}

async fn tidy(left: Leavings) -> anyhow::Result<()> {
    // Before removing guests: it could create another one.
    let served = if let Some((stop, served)) = left.served {
        let _ = stop.send(());
        served.await.context("the service's task")?
    } else {
        left.app.core.db.close().await;
        Ok(())
    };
    let removed = remove_guests(&left.database, &left.guests, left.lab.as_ref()).await;
    let dropped = async {
        let drop = format!("drop database if exists {} with (force)", left.database);
        admin().await?.execute(AssertSqlSafe(drop)).await?;
        anyhow::Ok(())
    };
    let dropped = dropped.await;
    served.and(removed).and(dropped)
}

async fn remove_guests(database: &str, others: &[GuestRef], lab: Option<&Lab>) -> anyhow::Result<()> {
    let Some(lab) = lab else { return Ok(()) };
    let options: PgConnectOptions = cluster_url()?.parse()?;
    let db = PgPool::connect_with(options.database(database)).await?;
    let rows: Vec<(Uuid, i64, String)> =
        sqlx::query_as("select uuid, guest_number, node from servers").fetch_all(&db).await?;
    db.close().await;
    let driver = lab.driver()?;
    let ordered = rows.into_iter().map(|(marker, vmid, node)| GuestRef { marker, vmid, kind: GuestKind::Lxc, node });
    let mut removed = Ok(());
    for guest in ordered.chain(others.iter().cloned()) {
        // If one can't be removed, still try the others.
        removed = lab::remove(&*driver, &guest).await.and(removed);
    }
    removed
}
