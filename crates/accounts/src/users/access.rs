//! Who may sign in as another user.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use kernel::auth::Caller;
use kernel::error::{Code, Error, Result};
use kernel::http::auth::UserCaller;

/// A provider or support staff who signed in with a password.
#[derive(Debug, Clone)]
pub(super) struct SupportCaller(pub Caller);

impl<S: Send + Sync> FromRequestParts<S> for SupportCaller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let UserCaller(caller) = UserCaller::from_request_parts(parts, state).await?;
        if !caller.sees_everything() {
            return Err(Error::new(Code::Forbidden, "Only the provider's support may do this."));
        }
        // A link is a login: a leaked token must not get one.
        caller.check_login()?;
        Ok(Self(caller))
    }
}
