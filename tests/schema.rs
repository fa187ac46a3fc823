//! What must hold for the database's own schema, as its catalogue has it.

use crate::support::TestDb;

/// Deleting a row looks for rows that refer to it: without an index, through the whole of each such table.
#[tokio::test]
async fn every_foreign_key_has_an_index() {
    let db = TestDb::new().await;
    let without: Vec<String> = sqlx::query_scalar(
        r#"select format('%s (%s)', c.conrelid::regclass,
                         (select string_agg(a.attname, ', ' order by k.n)
                          from unnest(c.conkey) with ordinality k (number, n)
                          join pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.number))
           from pg_constraint c
           where c.contype = 'f' and c.conparentid = 0 and c.connamespace = 'public'::regnamespace
             and not exists (
                 select 1 from pg_index i
                 where i.indrelid = c.conrelid and i.indisvalid
                   -- Begins with these columns, in whatever order, and leaves out no row that refers to anything.
                   and (select array_agg(k order by k) from unnest((i.indkey::int2[])[0:cardinality(c.conkey) - 1]) k)
                       = (select array_agg(k order by k) from unnest(c.conkey) k)
                   and (i.indpred is null
                        or pg_get_expr(i.indpred, i.indrelid)
                           = (select format('(%I IS NOT NULL)', a.attname) from pg_attribute a
                              where a.attrelid = c.conrelid and a.attnum = c.conkey[1])))
           order by 1"#,
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    assert_eq!(without, Vec::<String>::new(), "give each an index in a migration");
    let all: i64 =
        sqlx::query_scalar("select count(*) from pg_constraint where contype = 'f'").fetch_one(&db.pool).await.unwrap();
    assert!(all > 20, "{all}");
}
