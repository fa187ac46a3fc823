//! SQL for rate limits.

use std::time::Duration;

use sqlx::PgPool;

/// Takes `want` of the current minute, or begins a new one, also if the stored one ends in a future that the clock has
/// been turned back from. Returns the total taken in it so far, and the time until it ends.
pub(super) async fn take(db: &PgPool, key: &str, want: u64) -> sqlx::Result<(u64, Duration)> {
    // now() is when this statement began; the one that it waited for may have begun later, and the minute with it.
    let row = sqlx::query!(
        r#"insert into rate_limits as r (key, window_end, taken) values ($1, now() + interval '1 minute', $2)
           on conflict (key) do update set
               taken = case when r.window_end not between now() and clock_timestamp() + interval '1 minute'
                            then excluded.taken else r.taken + excluded.taken end,
               window_end = case when r.window_end not between now() and clock_timestamp() + interval '1 minute'
                                 then excluded.window_end else r.window_end end
           returning taken, extract(epoch from window_end - now())::float8 as "seconds!""#,
        key,
        i64::try_from(want).unwrap_or(i64::MAX)
    )
    .fetch_one(db)
    .await?;
    Ok((row.taken.unsigned_abs(), Duration::try_from_secs_f64(row.seconds).unwrap_or_default()))
}

pub(super) async fn purge(db: &PgPool) -> sqlx::Result<()> {
    sqlx::query!(
        "delete from rate_limits where window_end not between now() and clock_timestamp() + interval '1 minute'"
    )
    .execute(db)
    .await
    .map(drop)
}
