//! One PostgreSQL database per test, copied from a template that is migrated and given its users once.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::Utc;
use secrecy::SecretString;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};
use tokio::process::Command;
use uuid::Uuid;

use crate::wait::{wait_long_for, within};
use crate::{PASSWORD, log};

/// The users in every test's database, all with the same password.
pub const PEOPLE: [(&str, &str); 3] =
    [("provider@example.com", "provider"), ("customer@example.com", "customer"), ("other@example.com", "customer")];

/// The URL of a database in the cluster in which tests create theirs.
fn shared_cluster() -> String {
    std::env::var("INNKEEPER_TEST_DATABASE_URL").expect(
        "INNKEEPER_TEST_DATABASE_URL names a PostgreSQL cluster to make test databases in; `make test` starts one",
    )
}

fn options(url: &str) -> PgConnectOptions {
    url.parse().expect("a PostgreSQL URL")
}

/// A test's own database, dropped with it. At its end no operation may be stuck or in progress, and no error logged,
/// unless the test said that it expects that.
#[derive(Debug)]
pub struct TestDb {
    pub name: String,
    pub pool: PgPool,
    /// The URL of another database in its cluster.
    cluster: String,
    allow_unfinished: AtomicBool,
}

impl TestDb {
    pub async fn new() -> Self {
        Self::within(shared_cluster()).await
    }

    /// In the cluster that has the database with this URL.
    pub async fn within(cluster: String) -> Self {
        let mut admin = PgConnection::connect_with(&options(&cluster)).await.expect("the test cluster answers");
        let template = template(&cluster, &mut admin).await;
        let db = Self::create(cluster, &mut admin, &format!("template {template}")).await;
        // The template may be older than the janitor lets a clock jump.
        sqlx::query("update upkeep set horizon = now()").execute(&db.pool).await.expect("the clock of a new database");
        db
    }

    /// Without a schema.
    pub async fn empty() -> Self {
        let cluster = shared_cluster();
        let mut admin = PgConnection::connect_with(&options(&cluster)).await.expect("the test cluster answers");
        Self::create(cluster, &mut admin, "").await
    }

    async fn create(cluster: String, admin: &mut PgConnection, from: &str) -> Self {
        let name = format!("ink_test_{}", Uuid::new_v4().simple());
        admin.execute(AssertSqlSafe(format!("create database {name} {from}"))).await.expect("a new database");
        let pool = PgPoolOptions::new().max_connections(5).connect_lazy_with(options(&cluster).database(&name));
        Self { name, pool, cluster, allow_unfinished: AtomicBool::new(false) }
    }

    /// Adds the users, if the schema came later.
    pub async fn add_users(&self) {
        people(&self.pool).await;
    }

    /// The test may end with operations that are stuck or in progress.
    pub fn allow_unfinished(&self) {
        self.allow_unfinished.store(true, Ordering::Relaxed);
    }

    /// Releases the leases of dead processes, and the emails that they were sending, instead of waiting until they
    /// expire. No other process may be alive on this database.
    pub async fn release_dead_leases(&self) {
        for sql in [
            "update operations set lease_until = now() - interval '1 second' where lease_owner is not null",
            "update mails set run_at = now() - interval '1 second' where state = 'sending'",
        ] {
            sqlx::query(sql).execute(&self.pool).await.expect("the database answers");
        }
    }

    /// Has new operations wait until a test lets them go.
    pub async fn hold_operations(&self) {
        let hold = "create function hold() returns trigger language plpgsql as
                        'begin new.run_at = now() + interval ''1 hour''; return new; end';
                    create trigger hold before insert on operations for each row execute function hold()";
        sqlx::raw_sql(hold).execute(&self.pool).await.expect("the database answers");
    }

    /// Lets all of them go, and holds no more.
    pub async fn release_operations(&self) {
        let release = "drop trigger hold on operations; drop function hold();
                       update operations set run_at = now(); notify operation_due";
        sqlx::raw_sql(release).execute(&self.pool).await.expect("the database answers");
    }

    /// Waits until no operation is under way.
    pub async fn all_ended(&self, patience: Duration) {
        wait_long_for(patience, "the end of every operation", async || {
            let left = unfinished(&self.pool).await.expect("the database answers");
            let at_work: Vec<_> = left.into_iter().filter(|line| !line.starts_with("stuck")).collect();
            if at_work.is_empty() { Ok(()) } else { Err(at_work) }
        })
        .await;
    }

    /// Writes a dump into a file, as people make backups.
    pub async fn dump(&self, file: &Path) {
        run(Command::new("pg_dump").arg("--no-owner").arg("--file").arg(file).arg(self.url())).await;
    }

    /// Replaces the whole database with a dump. Nobody is connected afterwards.
    pub async fn restore(&self, file: &Path) {
        let mut admin = PgConnection::connect_with(&options(&self.cluster)).await.expect("the test cluster answers");
        for sql in [format!("drop database {} with (force)", self.name), format!("create database {}", self.name)] {
            admin.execute(AssertSqlSafe(sql)).await.expect("an empty database in its place");
        }
        let psql = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--file"];
        run(Command::new("psql").args(psql).arg(file).arg(self.url())).await;
    }

    /// Its URL, for the service under test.
    pub fn url(&self) -> String {
        let (server, _) = self.cluster.rsplit_once('/').expect("the URL names a database");
        format!("{server}/{}", self.name)
    }
}

/// Runs a program of PostgreSQL, or one for it, to its end.
pub(crate) async fn run(command: &mut Command) -> String {
    let ended = within("a program of PostgreSQL", command.stdin(Stdio::null()).output()).await;
    let ended = ended.expect("PostgreSQL's programs are installed");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).expect("text").trim().to_owned()
}

/// The template of these migrations, made by whichever test comes first.
async fn template(cluster: &str, admin: &mut PgConnection) -> String {
    let mut hasher = DefaultHasher::new();
    for migration in kernel::db::MIGRATIONS.iter() {
        migration.checksum.hash(&mut hasher);
    }
    PEOPLE.hash(&mut hasher);
    // Its partitions of days and months depend on the date.
    Utc::now().date_naive().hash(&mut hasher);
    let name = format!("ink_template_{:016x}", hasher.finish());
    if is_there(admin, &name).await {
        return name;
    }
    admin.execute("select pg_advisory_lock(4711)").await.expect("the template's lock");
    if !is_there(admin, &name).await {
        let making = format!("{name}_new");
        admin.execute(AssertSqlSafe(format!("drop database if exists {making}"))).await.expect("no half-made template");
        admin.execute(AssertSqlSafe(format!("create database {making}"))).await.expect("a new template");
        let mut db = PgConnection::connect_with(&options(cluster).database(&making)).await.expect("the new template");
        kernel::db::MIGRATIONS.run(&mut db).await.expect("the migrations run");
        db.close().await.expect("the new template is closed");
        let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options(cluster).database(&making));
        people(&pool).await;
        pool.close().await;
        admin.execute(AssertSqlSafe(format!("alter database {making} rename to {name}"))).await.expect("the template");
    }
    admin.execute("select pg_advisory_unlock(4711)").await.expect("the template's lock");
    name
}

async fn people(db: &PgPool) {
    let hash = kernel::secrets::hash_password(SecretString::from(PASSWORD)).await.expect("a password's hash");
    let is_older: bool =
        sqlx::query_scalar("select to_regclass('accounts') is null").fetch_one(db).await.expect("the schema");
    if is_older {
        for (email, role) in PEOPLE {
            sqlx::query("insert into users (email, role, password_hash) values ($1, $2, $3)")
                .bind(email)
                .bind(role)
                .bind(&hash)
                .execute(db)
                .await
                .expect("a new user");
        }
    } else {
        // No account has the id of its owner, so that neither can pass for the other. None is a round number that tests
        // send for somebody who is not there.
        for sql in [
            "alter table users alter column id restart with 501",
            "alter table accounts alter column id restart with 1001",
        ] {
            sqlx::query(sql).execute(db).await.expect("the sequence");
        }
        for (email, role) in PEOPLE {
            sqlx::query(
                "with u as (insert into users (email, staff_role, password_hash)
                            values ($1, case $2 when 'provider' then 'admin' end, $3) returning id, email)
                 insert into accounts (name, owner_id) select email, id from u",
            )
            .bind(email)
            .bind(role)
            .bind(&hash)
            .execute(db)
            .await
            .expect("a new user with an account");
        }
        let own = "update users u set account_id = a.id from accounts a where a.owner_id = u.id";
        sqlx::query(own).execute(db).await.expect("their own accounts");
    }
    // An older schema has no such column, and confirms everybody when it gets one.
    let _ = sqlx::query("update users set confirmed_at = now()").execute(db).await;
}

async fn is_there(admin: &mut PgConnection, name: &str) -> bool {
    sqlx::query_scalar("select exists (select 1 from pg_database where datname = $1)")
        .bind(name)
        .fetch_one(admin)
        .await
        .expect("a list of databases")
}

/// Operations that are stuck or in progress: state, kind, step, and what is wrong.
async fn unfinished(db: impl sqlx::PgExecutor<'_>) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "select concat_ws(' ', state, kind, step, error_message, error_detail) from operations
         where state in ('waiting', 'queued', 'running', 'undoing', 'stuck') order by created_at",
    )
    .fetch_all(db)
    .await
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let (name, cluster) = (self.name.clone(), options(&self.cluster));
        let left = crate::block_on(async move || {
            let mut db = PgConnection::connect_with(&cluster.clone().database(&name)).await?;
            let left = unfinished(&mut db).await?;
            db.close().await?;
            let mut admin = PgConnection::connect_with(&cluster).await?;
            admin.execute(AssertSqlSafe(format!("drop database if exists {name} with (force)"))).await?;
            Ok(left)
        });
        let errors = log::unexpected();
        // A failed test has already said why.
        if std::thread::panicking() {
            return;
        }
        assert!(errors.is_empty(), "unexpected errors in the log (`expect_error`): {errors:#?}");
        let left = left.filter(|left| !left.is_empty() && !self.allow_unfinished.load(Ordering::Relaxed));
        assert!(left.is_none(), "unfinished operations (`allow_unfinished`): {left:#?}");
    }
}
