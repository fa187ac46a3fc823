//! One PostgreSQL database a test, copied from a template that is migrated once.

use std::hash::{DefaultHasher, Hash, Hasher};

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};
use uuid::Uuid;

/// The cluster that tests make their databases in.
fn cluster() -> PgConnectOptions {
    let url = std::env::var("INNKEEPER_TEST_DATABASE_URL").expect(
        "INNKEEPER_TEST_DATABASE_URL names a PostgreSQL cluster to make test databases in; `make test` starts one",
    );
    url.parse().expect("INNKEEPER_TEST_DATABASE_URL is a PostgreSQL URL")
}

/// A database of a test's own, dropped with it.
#[derive(Debug)]
pub struct TestDb {
    pub name: String,
    pub pool: PgPool,
}

impl TestDb {
    pub async fn new() -> Self {
        let mut admin = PgConnection::connect_with(&cluster()).await.expect("the test cluster answers");
        let template = template(&mut admin).await;
        let name = format!("ink_test_{}", Uuid::new_v4().simple());
        admin
            .execute(AssertSqlSafe(format!("create database {name} template {template}")))
            .await
            .expect("a database can be made from the template");
        let pool = PgPoolOptions::new().max_connections(5).connect_lazy_with(cluster().database(&name));
        Self { name, pool }
    }

    /// Its URL, for the service under test.
    pub fn url(&self) -> String {
        let url = std::env::var("INNKEEPER_TEST_DATABASE_URL").expect("set, or there would be no database");
        let (server, _) = url.rsplit_once('/').expect("the URL names a database");
        format!("{server}/{}", self.name)
    }
}

/// The template of these very migrations, made by whichever test comes first.
async fn template(admin: &mut PgConnection) -> String {
    let mut hasher = DefaultHasher::new();
    for migration in innkeeper::db::MIGRATIONS.iter() {
        migration.checksum.hash(&mut hasher);
    }
    let name = format!("ink_template_{:016x}", hasher.finish());
    admin.execute("select pg_advisory_lock(4711)").await.expect("the template's lock");
    let there: bool = sqlx::query_scalar("select exists (select 1 from pg_database where datname = $1)")
        .bind(&name)
        .fetch_one(&mut *admin)
        .await
        .expect("a list of databases");
    if !there {
        let making = format!("{name}_new");
        admin.execute(AssertSqlSafe(format!("drop database if exists {making}"))).await.expect("no half-made template");
        admin.execute(AssertSqlSafe(format!("create database {making}"))).await.expect("a new template");
        let mut db = PgConnection::connect_with(&cluster().database(&making)).await.expect("the new template");
        innkeeper::db::MIGRATIONS.run(&mut db).await.expect("the migrations run");
        db.close().await.expect("the new template is closed");
        admin.execute(AssertSqlSafe(format!("alter database {making} rename to {name}"))).await.expect("the template");
    }
    admin.execute("select pg_advisory_unlock(4711)").await.expect("the template's lock");
    name
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let name = self.name.clone();
        super::block_on(async move {
            let mut admin = PgConnection::connect_with(&cluster()).await?;
            admin.execute(AssertSqlSafe(format!("drop database if exists {name} with (force)"))).await?;
            Ok(())
        });
    }
}
