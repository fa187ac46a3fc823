//! The service in this process: the real router, tasks and database, served on a loopback port of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use accounts::AccountSettings;
use compute::addresses::AddressSettings;
use compute::ids::{AccountId, UserId};
use compute::servers::ServerSettings;
use innkeeper::run::Service;
use kernel::config::Config;
use kernel::core::Core;
use kernel::feature::Feature;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use watch::alerts::AlertSettings;
use watch::monitoring::MonitoringSettings;

use crate::client::Client;
use crate::db::TestDb;
use crate::wait_for;

/// Everybody's password in tests.
pub const PASSWORD: &str = "correct horse battery";
/// A master key for tests: 32 bytes as base64.
pub const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// The token that opens `/metrics`.
pub const METRICS_TOKEN: &str = "figures are for tests";

/// A running service with a provider and two customers.
pub struct TestApp {
    pub service: Arc<Service>,
    pub core: Arc<Core>,
    pub base: String,
    pub nobody: Client,
    pub provider: Client,
    pub customer: Client,
    pub other: Client,
    pub customer_id: UserId,
    pub customer_account: AccountId,
    pub data: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    served: Option<tokio::task::JoinHandle<anyhow::Result<()>>>,
    pub db: Arc<TestDb>,
}

/// Settings for tests: long timeouts for busy machines, mail to a folder, no sweeps unless a test asks for them.
pub fn config(db: &TestDb, data: &std::path::Path) -> Config {
    let mut config = Config {
        database_url: SecretString::from(db.url()),
        database_pool: 12,
        database_wait_seconds: 60,
        request_seconds: 120,
        secret_key: SecretString::from(KEY),
        data: data.to_owned(),
        rate_limit_address: 100_000,
        rate_limit_token: 1_000_000,
        rate_limit_account: 1_000_000,
        metrics_token: Some(SecretString::from(METRICS_TOKEN)),
        ..Config::default()
    };
    config.of::<MonitoringSettings>().sweep_seconds = NO_SWEEPS;
    config.of::<ServerSettings>().shutdown_seconds = 10;
    config.of::<AccountSettings>().login_limit_address = 1000;
    config.of::<AddressSettings>().reverse_suffixes = "example.com".to_owned().try_into().expect("a domain");
    config.of::<AlertSettings>().alert_floor_seconds = 0;
    config
}

/// A service without a database, for what it says of itself.
pub fn idle() -> Arc<Service> {
    let database_url = SecretString::from("postgres://nobody@127.0.0.1:1/nothing");
    let config = Config { database_url, secret_key: SecretString::from(KEY), ..Config::default() };
    // Pools want a runtime to close idle connections in.
    let runtime = tokio::runtime::Handle::try_current()
        .is_err()
        .then(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));
    let _inside = runtime.as_ref().map(tokio::runtime::Runtime::enter);
    Service::new(config).expect("the settings are right")
}

/// The OpenAPI document.
pub fn document() -> Value {
    let service = idle();
    let routes = kernel::http::routes(&service.core, service.features.all());
    serde_json::to_value(routes.split_for_parts().1).expect("a document is JSON")
}

/// What runs in every test: listening for events, working on operations, updating sockets.
const ALWAYS: [&str; 4] = ["events", "operations", "push", "guard"];

/// The sweep interval that means no sweeps.
pub const NO_SWEEPS: u32 = 3600;

impl TestApp {
    /// With the usual settings, running operations and listening for events; other tasks are started with
    /// [`TestApp::running`].
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With changed settings. A sweep interval also starts sweeps and alerts, a mail server the sending of emails.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let db = TestDb::new().await;
        Self::on(db, change).await
    }

    /// On an existing database.
    pub async fn on(db: TestDb, change: impl FnOnce(&mut Config)) -> Self {
        Self::start(db, change, |_| vec![]).await
    }

    /// With a feature that the program does not have.
    pub async fn adding<F: Feature>(new: impl FnOnce(&Arc<Core>) -> Arc<F>) -> (Self, Arc<F>) {
        let mut added = None;
        let app = Self::start(TestDb::new().await, |_| {}, |core| vec![added.insert(new(core)).clone()]).await;
        (app, added.expect("the service was built"))
    }

    async fn start(
        db: TestDb,
        change: impl FnOnce(&mut Config),
        more: impl FnOnce(&Arc<Core>) -> Vec<Arc<dyn Feature>>,
    ) -> Self {
        crate::log();
        let data = tempfile::tempdir().expect("a data folder");
        let mut config = config(&db, data.path());
        change(&mut config);
        let (swept, mailed) = (config.of::<MonitoringSettings>().sweep_seconds != NO_SWEEPS, config.smtp.is_some());
        let service = Service::with(config, more).expect("the settings are right");
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a loopback port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let (stop, stopped) = oneshot::channel();
        let mut tasks = service.tasks();
        tasks.retain(|task| ALWAYS.contains(&task.name));
        let serving = Arc::clone(&service).serve_with(tasks, listener, async move {
            let _ = stopped.await;
        });
        let served = Some(tokio::spawn(serving));
        let nobody = Client::new(&base, None);
        let mut app = Self {
            provider: signed_in(&db, &nobody, "provider@example.com").await,
            customer: signed_in(&db, &nobody, "customer@example.com").await,
            other: signed_in(&db, &nobody, "other@example.com").await,
            customer_id: id_of(&db, "customer@example.com").await,
            customer_account: account_of(&db, "customer@example.com").await,
            nobody,
            stop: Some(stop),
            served,
            core: Arc::clone(&service.core),
            service,
            base,
            data,
            db: Arc::new(db),
        };
        if swept {
            app = app.running("sweeps").running("alerts");
        }
        if mailed { app.running("mail") } else { app }
    }

    /// The current content of `/metrics`.
    pub async fn figures(&self) -> String {
        self.nobody.with_token(METRICS_TOKEN).get("/metrics").await.expect(200).text
    }

    /// Starts another task.
    pub fn running(self, name: &str) -> Self {
        let mut tasks = self.service.tasks();
        let known: Vec<&str> = tasks.iter().map(|task| task.name).collect();
        let at = known.iter().position(|known| *known == name).unwrap_or_else(|| panic!("no task {name}: {known:?}"));
        self.core.spawn(tasks.swap_remove(at).work);
        self
    }

    /// Waits until no operation is under way; fails the test when that takes longer than `patience`.
    pub async fn all_ended(&self, patience: Duration) {
        self.db.all_ended(patience).await;
    }

    /// Stops the service cleanly and waits for it.
    pub async fn stop(&mut self) {
        self.stop.take();
        if let Some(served) = self.served.take() {
            served.await.expect("the server task ends").expect("the service ends well");
        }
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        // The runtime ends with the test; tasks must not start anything new meanwhile.
        self.core.shutdown.cancel();
        if let Some(served) = &self.served {
            served.abort();
        }
    }
}

/// The id of a user's own account.
pub async fn account_of(db: &TestDb, email: &str) -> AccountId {
    let sql = "select a.id from accounts a join users u on u.id = a.owner_id where u.email = $1 order by a.id limit 1";
    let id = sqlx::query_scalar(sql).bind(email).fetch_one(&db.pool).await;
    AccountId(id.expect("one of the test users"))
}

/// A user's id.
pub async fn id_of(db: &TestDb, email: &str) -> UserId {
    let id = sqlx::query_scalar("select id from users where email = $1").bind(email).fetch_one(&db.pool).await;
    UserId(id.expect("one of the test users"))
}

/// A user who owns two accounts, neither of which owns anything.
#[derive(Debug, Clone, Copy)]
pub struct Idle {
    pub user: i64,
    pub account: i64,
    pub second_account: i64,
}

impl Idle {
    /// With this name before the @.
    pub async fn new(db: &TestDb, name: &str) -> Self {
        let (user, account, second_account) = sqlx::query_as(
            "with u as (insert into users (email, name, password_hash, confirmed_at)
                        values ($1 || '@example.com', $1, '-', now()) returning id),
                  a as (insert into accounts (name, owner_id) select $1, id from u returning id),
                  b as (insert into accounts (name, owner_id) select $1 || ' 2', id from u returning id)
             select u.id, least(a.id, b.id), greatest(a.id, b.id) from u, a, b",
        )
        .bind(name)
        .fetch_one(&db.pool)
        .await
        .expect("the database answers");
        Self { user, account, second_account }
    }
}

/// A login link for a user that the provider created, valid for a day: its secret.
pub async fn login_link(db: &TestDb, email: &str) -> String {
    let (secret, hash) = kernel::secrets::new_token("ink_l_");
    sqlx::query(
        "insert into login_links (hash, user_id, opened_by, reason, expires_at)
         select $1, c.id, p.id, 'a question', now() + interval '1 day' from users c, users p
         where c.email = $2 and p.email = 'provider@example.com'",
    )
    .bind(&hash[..])
    .bind(email)
    .execute(&db.pool)
    .await
    .expect("the database answers");
    secret.expose_secret().to_owned()
}

/// As after a login, without the cost of hashing a password.
pub async fn signed_in(db: &TestDb, client: &Client, email: &str) -> Client {
    let (token, hash) = kernel::secrets::new_token("ink_a_");
    sqlx::query(
        "with s as (insert into sessions (id, user_id, address, user_agent, expires_at)
                    select gen_random_uuid(), id, '127.0.0.1', 'tests', now() + interval '1 day' from users
                    where email = $1 returning id, user_id)
         insert into tokens (id, kind, hash, user_id, session_id, expires_at)
         select gen_random_uuid(), 'access', $2, user_id, id, now() + interval '1 day' from s",
    )
    .bind(email)
    .bind(&hash[..])
    .execute(&db.pool)
    .await
    .expect("the database answers");
    client.with_token(token.expose_secret())
}

/// Signs in with the password used in tests.
pub async fn login(client: &Client, email: &str) -> Client {
    let body = json!({ "email": email, "password": PASSWORD });
    let answer = client.post("/api/auth/login", body).await.expect(200);
    client.with_token(answer.body["accessToken"].as_str().expect("an access token"))
}

/// Waits until `path` gives an answer that `enough` accepts.
pub async fn eventually(client: &Client, path: &str, enough: impl Fn(&Value) -> bool) -> Value {
    wait_for(path, async || {
        let answer = client.get(path).await;
        if answer.status == 200 && enough(&answer.body) { Ok(answer.body) } else { Err(answer.text) }
    })
    .await
}

/// Waits until a client's token is refused that another process has revoked: this one hears of it a moment later.
pub async fn revoked(client: &Client, path: &str) {
    wait_for("a revoked token's end", async || match client.get(path).await.status {
        401 => Ok(()),
        status => Err(status),
    })
    .await;
}

/// Waits for an operation's end and returns it.
pub async fn ended(client: &Client, operation: &Value) -> Value {
    let id = operation.as_str().expect("an operation's id");
    let operation = eventually(client, &format!("/api/operations/{id}"), |o| {
        matches!(o["state"].as_str(), Some("succeeded" | "failed" | "stuck"))
    })
    .await;
    if operation["state"] != "succeeded" {
        // For the output of a test that expected success.
        eprintln!("{operation}");
    }
    operation
}
