//! Checks that this version can work on the database's schema. Migrations of a newer version only add to what an older
//! one uses, so both can run at the same time; a migration that breaks this raises the schema's generation, and older
//! versions then refuse to start.

use anyhow::Context;
use sqlx::PgConnection;

/// The latest generation that this version knows.
const GENERATION: i32 = 3;

/// Refuses a database whose schema is of a later generation. One without migrations has none yet.
pub async fn check(db: &mut PgConnection) -> anyhow::Result<()> {
    let known = sqlx::query_scalar!(r#"select to_regclass('schema_generation') is not null as "known!""#)
        .fetch_one(&mut *db)
        .await
        .context("reading the schema's generation")?;
    if !known {
        return Ok(());
    }
    let generation = sqlx::query_scalar!("select generation from schema_generation").fetch_optional(&mut *db).await?;
    let generation = generation.unwrap_or(GENERATION);
    anyhow::ensure!(
        generation <= GENERATION,
        "the database schema has generation {generation}, and this version of Innkeeper only knows generations up \
         to {GENERATION}: run the newer version that migrated the schema"
    );
    Ok(())
}
