//! What servers show of themselves that only those know who watch them.

use std::collections::HashMap;

use async_trait::async_trait;
use compute::servers::ServerFigures;
use compute::servers::figures::ServerStats;
use sqlx::PgConnection;

use crate::ids::ServerId;
use crate::{alerts, monitoring};

/// Alerts and samples.
#[derive(Debug)]
pub struct WatchedFigures;

#[async_trait]
impl ServerFigures for WatchedFigures {
    async fn open_alerts(&self, db: &mut PgConnection, servers: &[ServerId]) -> sqlx::Result<HashMap<ServerId, i64>> {
        alerts::service::count_open(db, servers).await
    }

    async fn stats(&self, db: &mut PgConnection, servers: &[ServerId]) -> sqlx::Result<HashMap<ServerId, ServerStats>> {
        monitoring::service::brief(db, servers).await
    }
}
