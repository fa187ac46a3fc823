//! The response of the server-management API to a request for a console.

use serde::Serialize;

use super::model::ConsoleLink;
use crate::servers::wire::SUCCESS;

/// A link to a console.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ConsoleUrl {
    /// `success`.
    pub status: &'static str,
    /// The page to open, with a ticket that works once, within half a minute, from the client address that requested
    /// it.
    pub url: String,
}

impl From<ConsoleLink> for ConsoleUrl {
    fn from(ConsoleLink { url }: ConsoleLink) -> Self {
        Self { status: SUCCESS, url }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_that_an_older_version_stored_is_read() {
        let stored = r#"{"status":"success","url":"https://example.com/console/#ink_c_1"}"#;
        let url = ConsoleUrl::from(serde_json::from_str::<ConsoleLink>(stored).unwrap());
        assert_eq!(serde_json::to_string(&url).unwrap(), stored);
    }
}
