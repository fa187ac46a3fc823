//! SQL for images and their sources.

use sqlx::{PgConnection, PgExecutor};

use super::model::{Image, ImageSource, NewImage, RootLogin};
use crate::ids::{HostId, ImageId};
use crate::tariffs::ServerKind;

type Result<T> = sqlx::Result<T>;

/// All images in order of creation, or only those that can be ordered.
pub async fn images(db: impl PgExecutor<'_>, only_enabled: bool) -> Result<Vec<Image>> {
    sqlx::query_as!(
        Image,
        r#"select id as "id: ImageId", name, type as family, kind as "kind: ServerKind",
                  root_login as "root_login: RootLogin", enabled, created_at, updated_at
           from images where enabled or not $1 order by id"#,
        only_enabled
    )
    .fetch_all(db)
    .await
}

/// One image, enabled or not.
pub async fn image(db: impl PgExecutor<'_>, id: ImageId) -> Result<Option<Image>> {
    sqlx::query_as!(
        Image,
        r#"select id as "id: ImageId", name, type as family, kind as "kind: ServerKind",
                  root_login as "root_login: RootLogin", enabled, created_at, updated_at
           from images where id = $1"#,
        id.0
    )
    .fetch_optional(db)
    .await
}

/// How a host names an image; `None` if the host does not have it.
pub async fn source(db: impl PgExecutor<'_>, image: ImageId, host: HostId) -> Result<Option<String>> {
    sqlx::query_scalar!("select source from image_sources where image_id = $1 and host_id = $2", image.0, host.0)
        .fetch_optional(db)
        .await
}

/// The sources of all images, or of one.
pub(super) async fn sources(db: impl PgExecutor<'_>, only: Option<ImageId>) -> Result<Vec<(ImageId, ImageSource)>> {
    let rows = sqlx::query!(
        r#"select image_id as "image: ImageId", host_id as "host: HostId", source from image_sources
           where $1::bigint is null or image_id = $1 order by image_id, host_id"#,
        only.map(|id| id.0)
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|r| (r.image, ImageSource { host_id: r.host, source: r.source })).collect())
}

/// One image, locked until the transaction ends.
pub(super) async fn lock(tx: &mut PgConnection, id: ImageId) -> Result<Option<Image>> {
    sqlx::query_as!(
        Image,
        r#"select id as "id: ImageId", name, type as family, kind as "kind: ServerKind",
                  root_login as "root_login: RootLogin", enabled, created_at, updated_at
           from images where id = $1 for no key update"#,
        id.0
    )
    .fetch_optional(tx)
    .await
}

/// Adds an image; `None` when the name is taken.
pub(super) async fn insert(db: impl PgExecutor<'_>, new: &NewImage) -> Result<Option<Image>> {
    sqlx::query_as!(
        Image,
        r#"insert into images (name, type, kind, enabled, root_login) values ($1, $2, $3, $4, $5)
           on conflict (lower(name), kind) do nothing
           returning id as "id: ImageId", name, type as family, kind as "kind: ServerKind",
                  root_login as "root_login: RootLogin", enabled, created_at, updated_at"#,
        new.name.trim(),
        new.family.trim(),
        new.kind.as_str(),
        new.enabled,
        new.root_login.as_str()
    )
    .fetch_optional(db)
    .await
}

/// Updates an image's row.
pub(super) async fn update(db: impl PgExecutor<'_>, image: &Image) -> Result<Image> {
    sqlx::query_as!(
        Image,
        r#"update images set name = $2, type = $3, kind = $4, enabled = $5, root_login = $6, updated_at = now()
           where id = $1
           returning id as "id: ImageId", name, type as family, kind as "kind: ServerKind",
                  root_login as "root_login: RootLogin", enabled, created_at, updated_at"#,
        image.id.0,
        image.name,
        image.family,
        image.kind.as_str(),
        image.enabled,
        image.root_login.as_str()
    )
    .fetch_one(db)
    .await
}

/// Replaces the sources of an image.
pub(super) async fn set_sources(tx: &mut PgConnection, image: ImageId, sources: &[ImageSource]) -> Result<()> {
    let hosts: Vec<i64> = sources.iter().map(|s| s.host_id.0).collect();
    let names: Vec<String> = sources.iter().map(|s| s.source.trim().to_owned()).collect();
    sqlx::query!("delete from image_sources where image_id = $1 and host_id <> all ($2)", image.0, &hosts)
        .execute(&mut *tx)
        .await?;
    sqlx::query!(
        "insert into image_sources (image_id, host_id, source)
         select $1, * from unnest($2::bigint[], $3::text[])
         on conflict (image_id, host_id) do update set source = excluded.source, nodes = null, looked_at = null
         where image_sources.source <> excluded.source",
        image.0,
        &hosts,
        &names
    )
    .execute(tx)
    .await
    .map(drop)
}

#[derive(Debug)]
pub(super) struct HostSource {
    pub image: ImageId,
    pub name: String,
    pub kind: ServerKind,
    pub host: HostId,
    pub source: String,
}

/// The images that are available on a host.
pub(super) async fn sources_on(db: impl PgExecutor<'_>, host: HostId) -> Result<Vec<HostSource>> {
    sqlx::query_as!(
        HostSource,
        r#"select s.image_id as "image: ImageId", i.name, i.kind as "kind: ServerKind", s.host_id as "host: HostId",
                  s.source
           from image_sources s join images i on i.id = s.image_id
           where s.host_id = $1 and i.enabled order by s.image_id"#,
        host.0
    )
    .fetch_all(db)
    .await
}

/// Claims the sources that are due for a check: not checked for this many seconds, or on no node at the last check.
pub(super) async fn claim_due_sources(db: impl PgExecutor<'_>, seconds: f64) -> Result<Vec<HostSource>> {
    sqlx::query_as!(
        HostSource,
        r#"update image_sources s set looked_at = now()
           from images i, hosts h
           where i.id = s.image_id and h.id = s.host_id and i.enabled and h.enabled
             and (s.looked_at is null or s.nodes = '{}' or s.looked_at < now() - make_interval(secs => $1))
           returning s.image_id as "image: ImageId", i.name, i.kind as "kind: ServerKind", s.host_id as "host: HostId",
           s.source"#,
        seconds
    )
    .fetch_all(db)
    .await
}

/// Records which nodes can create guests from an image; nodes that are down, and so could not be asked, keep their last
/// state. `None`: all nodes.
pub(super) async fn set_nodes(
    db: impl PgExecutor<'_>,
    image: ImageId,
    host: HostId,
    source: &str,
    nodes: Option<&[String]>,
) -> Result<()> {
    sqlx::query!(
        "update image_sources s set looked_at = now(), nodes = case when $4::text[] is not null then array(
             select unnest($4) as name
             union
             select n.name from nodes n where n.host_id = $2 and not n.online and n.name = any(s.nodes)
             order by name) end
         where s.image_id = $1 and s.host_id = $2 and s.source = $3",
        image.0,
        host.0,
        source,
        nodes
    )
    .execute(db)
    .await
    .map(drop)
}

/// Deletes an image; false if it does not exist.
pub(super) async fn delete(db: impl PgExecutor<'_>, id: ImageId) -> Result<bool> {
    let done = sqlx::query!("delete from images where id = $1", id.0).execute(db).await?;
    Ok(done.rows_affected() == 1)
}

/// How many servers that aren't deleted have the image.
pub(super) async fn live_servers(db: impl PgExecutor<'_>, id: ImageId) -> Result<i64> {
    sqlx::query_scalar!(r#"select count(*) as "n!" from servers where image_id = $1 and deleted_at is null"#, id.0)
        .fetch_one(db)
        .await
}
