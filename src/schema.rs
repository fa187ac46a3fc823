//! Which schema a program can work on. A newer version's migrations only add to what an older one uses, so both run
//! beside each other; one that does not raises the schema's generation, and then older programs say so and don't start.

use anyhow::Context;
use sqlx::PgConnection;

/// The newest generation that this program knows.
const GENERATION: i32 = 1;

/// Refuses a database whose schema is of a later generation. One without migrations is of none yet.
pub(crate) async fn check(db: &mut PgConnection) -> anyhow::Result<()> {
    let known = sqlx::query_scalar!(r#"select to_regclass('schema_generation') is not null as "known!""#)
        .fetch_one(&mut *db)
        .await
        .context("asking for the schema's generation")?;
    if !known {
        return Ok(());
    }
    let generation = sqlx::query_scalar!("select generation from schema_generation").fetch_optional(&mut *db).await?;
    let generation = generation.unwrap_or(GENERATION);
    anyhow::ensure!(
        generation <= GENERATION,
        "the database's schema is of generation {generation}, and this version of Innkeeper knows generation \
         {GENERATION} and earlier ones: run the newer version that brought the schema up to date"
    );
    Ok(())
}
