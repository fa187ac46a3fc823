//! SQL for the limits of attempts to log in.

use sqlx::PgPool;

use super::Result;

/// What is counted, and for whom. The database's `lower` finds accounts, so the database's `lower` makes their keys.
pub(crate) type AttemptKey<'a> = (&'static str, &'a str);

/// Counts one attempt of `who` (an `account:`, an `address:` and the like) in the current window of 15 minutes. Returns
/// the count, and for how many more seconds the window lasts. One statement, so that parallel attempts count each
/// other.
pub(crate) async fn count(db: &PgPool, (what, who): AttemptKey<'_>) -> Result<(i32, i64)> {
    // now() is when this statement began; the one that it waited for may have begun later, and started the window.
    let row = sqlx::query!(
        r#"insert into login_attempts as l (key, window_start, attempts) values ($1 || lower($2), now(), 1)
           on conflict (key) do update set
               attempts = case when l.window_start not between now() - interval '15 minutes' and clock_timestamp()
                               then 1 else l.attempts + 1 end,
               window_start = case when l.window_start not between now() - interval '15 minutes' and clock_timestamp()
                                   then now() else l.window_start end
           returning attempts,
               ceil(extract(epoch from window_start + interval '15 minutes' - now()))::bigint as "seconds!""#,
        what,
        who
    )
    .fetch_one(db)
    .await?;
    Ok((row.attempts, row.seconds))
}

/// Takes back one attempt after a success.
pub(crate) async fn uncount(db: &PgPool, (what, who): AttemptKey<'_>) -> Result<()> {
    sqlx::query!(
        "update login_attempts set attempts = greatest(attempts - 1, 0) where key = $1 || lower($2)",
        what,
        who
    )
    .execute(db)
    .await
    .map(drop)
}
