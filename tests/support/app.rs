//! The service in this process: the real router, tasks and database, served on a loopback port of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use innkeeper::accounts::model::Role;
use innkeeper::accounts::service::add_user;
use innkeeper::app::App;
use innkeeper::config::Config;
use innkeeper::ids::UserId;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::client::Client;
use super::db::TestDb;

/// The password of everyone in tests.
pub const PASSWORD: &str = "correct horse battery";
/// A master key for tests: 32 bytes as base64.
pub const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// A running service with a provider and two customers.
pub struct TestApp {
    pub app: Arc<App>,
    pub base: String,
    pub nobody: Client,
    pub provider: Client,
    pub customer: Client,
    pub other: Client,
    pub customer_id: UserId,
    pub data: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    served: Option<tokio::task::JoinHandle<anyhow::Result<()>>>,
    pub db: Arc<TestDb>,
}

/// Settings for tests: quick leases, mail to a folder, no sweep unless a test asks for one.
pub fn config(db: &TestDb, data: &std::path::Path) -> Config {
    Config {
        database_url: SecretString::from(db.url()),
        database_pool: 12,
        secret_key: SecretString::from(KEY),
        data: data.to_owned(),
        lease_seconds: 2,
        sweep_seconds: 3600,
        shutdown_seconds: 10,
        login_limit_address: 1000,
        rate_limit_address: 100_000,
        rate_limit_token: 1_000_000,
        ..Config::default()
    }
}

impl TestApp {
    /// With the usual settings.
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With settings changed.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let db = TestDb::new().await;
        Self::on(db, change).await
    }

    /// On a database that is there already.
    pub async fn on(db: TestDb, change: impl FnOnce(&mut Config)) -> Self {
        super::log();
        let data = tempfile::tempdir().expect("a data folder");
        let mut config = config(&db, data.path());
        change(&mut config);
        let app = App::new(config).expect("the settings are right");
        let customer_id = people(&app).await;
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a loopback port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&app).serve(listener, async move {
            let _ = stopped.await;
        });
        let served = Some(tokio::spawn(serving));
        let nobody = Client::new(&base, None);
        let login = async |email: &str| login(&nobody, email).await;
        Self {
            provider: login("provider@example.com").await,
            customer: login("customer@example.com").await,
            other: login("other@example.com").await,
            customer_id,
            nobody: nobody.clone(),
            stop: Some(stop),
            served,
            app,
            base,
            data,
            db: Arc::new(db),
        }
    }

    /// Waits until no operation is under way; fails the test when that takes longer than `patience`.
    pub async fn all_ended(&self, patience: Duration) {
        let at_work = "select count(*) from operations where state in ('queued', 'running', 'undoing')";
        let until = tokio::time::Instant::now() + patience;
        while sqlx::query_scalar::<_, i64>(at_work).fetch_one(&self.db.pool).await.expect("the database answers") > 0 {
            assert!(tokio::time::Instant::now() < until, "some operation never ended");
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
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
        self.app.shutdown.cancel();
        if let Some(served) = &self.served {
            served.abort();
        }
    }
}

/// Makes the provider and the customers where they are not there yet.
pub async fn people(app: &App) -> UserId {
    let mut customer = None;
    for (email, role) in [
        ("provider@example.com", Role::Provider),
        ("customer@example.com", Role::Customer),
        ("other@example.com", Role::Customer),
    ] {
        let user = match innkeeper::accounts::store::user_by_email(&app.db, email).await.expect("the database answers")
        {
            Some(user) => user,
            None => add_user(app, email, "", role, SecretString::from(PASSWORD)).await.expect("a new account"),
        };
        if email.starts_with("customer") {
            customer = Some(user.id);
        }
    }
    customer.expect("one of them is the customer")
}

/// Signs in with the password of tests; on a busy machine a service that has just come up may need a moment.
pub async fn login(client: &Client, email: &str) -> Client {
    let sign_in = || client.post("/api/auth/login", json!({ "email": email, "password": PASSWORD }));
    let mut answer = sign_in().await;
    for _ in 0..20 {
        if answer.status != 503 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        answer = sign_in().await;
    }
    let answer = answer.expect(200);
    client.with_token(answer.body["accessToken"].as_str().expect("an access token"))
}

/// Waits until `path` answers what `enough` accepts; fails the test after three minutes: machines are busy.
pub async fn eventually(client: &Client, path: &str, enough: impl Fn(&Value) -> bool) -> Value {
    let until = tokio::time::Instant::now() + Duration::from_secs(180);
    loop {
        let answer = client.get(path).await;
        if answer.status == 200 && enough(&answer.body) {
            return answer.body;
        }
        assert!(tokio::time::Instant::now() < until, "{path} never came to it; last: {}", answer.text);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits for an operation's end and returns it.
pub async fn ended(client: &Client, operation: &Value) -> Value {
    let id = operation.as_str().expect("an operation's id");
    eventually(client, &format!("/api/operations/{id}"), |o| {
        matches!(o["state"].as_str(), Some("succeeded" | "failed" | "stuck"))
    })
    .await
}
