//! Access to what somebody owns: a handler can't get at the thing without the check.

use std::fmt::Debug;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::auth::{AnyCaller, core, level};
use super::extract::Path;
use crate::auth::{Access, Caller, Owner};
use crate::core::Core;
use crate::error::{Code, Error, Result};
use crate::subjects::Subject;

/// What decides who may reach something.
#[derive(Debug, Clone)]
pub enum Ownership {
    /// An account owns it. Scopes call it by the subject; without one, only scopes for the whole account cover it.
    Account(Owner, Option<Subject>),
    /// It is about this subject, and outlives it.
    About(Subject),
    /// It is the provider's.
    Provider,
}

/// Something that somebody owns and that a route's `{id}` names.
pub trait Ownable: Debug + Clone + Send + Sync + Sized + 'static {
    /// What errors call it.
    const NAME: &'static str;

    /// Its ids.
    type Id: DeserializeOwned + Send;

    /// The one with this id, if it is there.
    fn find(core: &Core, id: Self::Id) -> impl Future<Output = Result<Option<Self>>> + Send;

    /// Who owns it.
    fn ownership(&self, core: &Core) -> Ownership;
}

/// Something that the caller may read (GET) or change (other methods). What is not there and what is somebody else's
/// are the same 404.
#[derive(Debug, Clone)]
pub struct Owned<T> {
    /// The caller.
    pub caller: Caller,
    /// What the path names.
    pub thing: T,
}

impl<T: Ownable> Owned<T> {
    /// This thing, if there is one and the caller may do this much with it.
    pub async fn of(core: &Core, caller: &Caller, thing: Option<T>, level: Access) -> Result<Self> {
        let unknown = || Error::not_found(T::NAME);
        let thing = thing.ok_or_else(unknown)?;
        match thing.ownership(core) {
            Ownership::Account(owner, subject) => caller.check(T::NAME, subject.as_ref(), owner, level)?,
            Ownership::About(subject) => core
                .subjects()
                .authorize(caller, &subject, level)
                .await
                .map_err(|e| if e.code == Code::NotFound { unknown() } else { e })?,
            Ownership::Provider => caller.check_provider_owned(T::NAME, level)?,
        }
        Ok(Self { caller: caller.clone(), thing })
    }
}

#[derive(Deserialize)]
struct IdPath<T> {
    id: T,
}

impl<S: Send + Sync, T: Ownable> FromRequestParts<S> for Owned<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let AnyCaller(caller) = AnyCaller::from_request_parts(parts, state).await?;
        // By name: a path may have more parameters.
        let Path(IdPath { id }) = Path::<IdPath<T::Id>>::from_request_parts(parts, state).await?;
        let core = core(&parts.extensions)?;
        Self::of(core, &caller, T::find(core, id).await?, level(&parts.method)).await
    }
}
