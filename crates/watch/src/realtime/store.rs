//! The SQL of the live view.

use kernel::subjects::Subject;
use sqlx::PgPool;
use uuid::Uuid;

type Result<T> = sqlx::Result<T>;

fn columns(subjects: &[Subject]) -> (Vec<String>, Vec<String>) {
    subjects.iter().map(|subject| (subject.kind.clone(), subject.id.clone())).unzip()
}

/// The operations in progress on these subjects.
pub(super) async fn active_operations(db: &PgPool, subjects: &[Subject]) -> Result<Vec<Uuid>> {
    let (kinds, ids) = columns(subjects);
    sqlx::query_scalar!(
        "select o.id from operations o
         join unnest($1::text[], $2::text[]) as s (kind, id) on o.subject_kind = s.kind and o.subject_id = s.id
         where o.state in ('queued', 'running', 'undoing', 'stuck')",
        &kinds,
        &ids
    )
    .fetch_all(db)
    .await
}

/// The latest operation of each of these subjects.
pub(super) async fn latest_operations(db: &PgPool, subjects: &[Subject]) -> Result<Vec<Uuid>> {
    let (kinds, ids) = columns(subjects);
    sqlx::query_scalar!(
        r#"select latest.id as "id!" from unnest($1::text[], $2::text[]) as s (kind, id)
           cross join lateral (
               select o.id from operations o where o.subject_kind = s.kind and o.subject_id = s.id
               order by o.created_at desc limit 1) latest"#,
        &kinds,
        &ids
    )
    .fetch_all(db)
    .await
}
