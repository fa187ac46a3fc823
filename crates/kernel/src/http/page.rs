//! Paged lists.

use std::fmt::Display;

use axum::http::{HeaderMap, HeaderName};
use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};

use super::extract::Json;
use super::text;
use crate::error::{Error, Result};
use crate::listing::{SortOrder, Window};

/// Header with the total count, for lists that are bare arrays.
pub const TOTAL: HeaderName = HeaderName::from_static("x-total-count");

/// Default number of rows per page.
const LIMIT: i64 = 20;

/// One page of a list.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Page<T> {
    /// The rows on this page.
    pub data: Vec<T>,
    /// Total count over all pages.
    pub total: i64,
    /// The number of this page, starting at 1; 1 with `after`.
    pub page: i64,
    /// Maximum number of rows per page.
    pub limit: i64,
    /// Number of pages.
    pub pages: i64,
    /// What to send as `after` for the rows that follow, in lists that have it. Missing if there are certainly none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// The page that `query` asks for.
    pub fn new(data: Vec<T>, total: i64, query: PageQuery) -> Self {
        let (page, limit) = (query.number(), query.size());
        Self { data, total, page, limit, pages: total / limit + i64::from(total % limit > 0), next: None }
    }

    /// With where to continue after the last row, unless this page shows that there are no more.
    #[must_use]
    pub fn continued<P: Display>(self, place: impl Fn(&T) -> P) -> Self {
        let full = i64::try_from(self.data.len()).is_ok_and(|rows| rows == self.limit);
        let next = self.data.last().filter(|_| full).map(|row| place(row).to_string());
        Self { next, ..self }
    }
}

/// Selects a page of a list.
#[derive(Debug, Clone, Copy, Default, Deserialize, Validate, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Page number, starting at 1.
    #[garde(range(min = 1, max = 1_000_000))]
    #[param(minimum = 1, maximum = 1_000_000)]
    pub page: Option<i64>,
    /// Rows per page: 20 by default, at most 100.
    #[garde(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<i64>,
}

impl PageQuery {
    fn number(self) -> i64 {
        self.page.unwrap_or(1)
    }

    fn size(self) -> i64 {
        self.limit.unwrap_or(LIMIT)
    }

    /// The same, if the list is not to be continued after a place as well.
    pub fn or_after<P>(self, after: Option<&P>) -> Result<Self> {
        match (self.page, after) {
            (Some(_), Some(_)) => Err(Error::field("after", "Send `page` or `after`, not both.")),
            _ => Ok(self),
        }
    }

    /// The rows on this page.
    pub fn window(self) -> Window {
        Window { limit: self.size(), offset: (self.number() - 1) * self.size() }
    }
}

/// A catalogue item. Catalogues are small enough to be sorted and counted in memory.
pub trait Listed {
    /// What lists sort and filter by: id, name, whether it is enabled, creation time, time of the last change.
    fn facts(&self) -> (i64, &str, bool, DateTime<Utc>, DateTime<Utc>);
}

/// Filters, sorting and paging for a catalogue.
#[derive(Debug, Default, Deserialize, Validate, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CatalogueQuery {
    /// Page number, starting at 1. Without it, and without `limit`, everything is listed.
    #[garde(range(min = 1, max = 1_000_000))]
    #[param(minimum = 1, maximum = 1_000_000)]
    pub page: Option<i64>,
    /// Rows a page: 20, at most 100.
    #[garde(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<i64>,
    /// Sort key; `id` by default.
    #[garde(skip)]
    #[param(inline)]
    pub sort: Option<CatalogueSort>,
    /// Sort direction; `asc` by default.
    #[garde(skip)]
    #[param(inline)]
    pub order: Option<SortOrder>,
    /// Only items whose name contains this text, ignoring case.
    #[garde(inner(length(chars, max = 255), custom(text::plain)))]
    pub name: Option<String>,
    /// Only enabled items, or only disabled ones.
    #[garde(skip)]
    pub enabled: Option<bool>,
}

/// Sort keys for a catalogue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum CatalogueSort {
    /// Id, which is the order of creation.
    #[default]
    Id,
    /// Name.
    Name,
    /// Creation time.
    CreatedAt,
    /// Time of the last change.
    UpdatedAt,
}

impl CatalogueQuery {
    /// The requested part of `rows`, with the total count over all pages.
    pub fn of<T: Listed>(&self, mut rows: Vec<T>) -> (HeaderMap, Json<Vec<T>>) {
        let name = self.name.as_ref().map(|name| name.to_lowercase());
        rows.retain(|row| {
            let (_, has, enabled, ..) = row.facts();
            self.enabled.is_none_or(|wanted| wanted == enabled)
                && name.as_ref().is_none_or(|name| has.to_lowercase().contains(name))
        });
        rows.sort_by(|a, b| {
            let ((id, name, _, made, changed), (id2, name2, _, made2, changed2)) = (a.facts(), b.facts());
            let by = match self.sort.unwrap_or_default() {
                CatalogueSort::Id => id.cmp(&id2),
                CatalogueSort::Name => name.to_lowercase().cmp(&name2.to_lowercase()),
                CatalogueSort::CreatedAt => made.cmp(&made2),
                CatalogueSort::UpdatedAt => changed.cmp(&changed2),
            };
            let by = by.then(id.cmp(&id2));
            if self.order == Some(SortOrder::Desc) { by.reverse() } else { by }
        });
        let total = rows.len();
        if self.page.is_some() || self.limit.is_some() {
            let Window { limit, offset } = PageQuery { page: self.page, limit: self.limit }.window();
            let (skip, take) = (usize::try_from(offset), usize::try_from(limit));
            rows = rows.into_iter().skip(skip.unwrap_or(usize::MAX)).take(take.unwrap_or(0)).collect();
        }
        (HeaderMap::from_iter([(TOTAL, total.into())]), Json(rows))
    }
}
