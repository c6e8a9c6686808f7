//! What policy needs to know of the resources that a service keeps: found by name, read from the message of each.

use pavior_auth::Permit;
use pavior_core::{Fault, ResourceName};
use pavior_proto::pavior::governance::internal::v1::{GetResourceFactsRequest, ResourceFacts};
use pavior_proto::shape::{self, Request as _};
use pavior_rpc::facts::recall;
use pavior_rpc::problem::Problem;
use pavior_store::{StoreError, Tx, idempotency};

use crate::Service;
use crate::error::Error;
use crate::message::Wire;
use crate::names::above;
use crate::table::{ConnectionTrait, Rows};

/// The type of organizations, in which everything is.
const ORGANIZATION: &str = "identity.pavior.dev/Organization";

/// A service that keeps resources of the type `T`. [`keeps`](crate::keeps) implements it: a type that is missing there
/// has no facts for policy, and cannot have [`Rules`](crate::Rules).
pub trait Keeps<T> {}

/// A service that tells the facts of everything that it keeps; [`keeps`](crate::keeps) implements it.
pub trait Keeper: Service {
    /// Whether resources of this name are kept here, if they exist.
    fn knows(name: &ResourceName) -> bool;

    /// The facts of a resource that exists, without its name.
    fn find<C: ConnectionTrait>(
        rows: &Rows<'_, C>,
        permit: &Permit,
        name: &ResourceName,
    ) -> impl Future<Output = Result<Option<ResourceFacts>, StoreError>> + Send;
}

/// Says which types of resources a service keeps: `keeps!(App: GroupFields, UserFields);`
#[macro_export]
macro_rules! keeps {
    ($service:ty: $($fields:ty),+ $(,)?) => {
        $(impl $crate::Keeps<$fields> for $service {})+

        impl $crate::Keeper for $service {
            fn knows(name: &$crate::ResourceName) -> bool {
                [$($crate::facts::pattern::<$fields>()),+].iter().any(|pattern| name.matches(pattern))
            }

            async fn find<C: $crate::ConnectionTrait>(
                rows: &$crate::Rows<'_, C>,
                permit: &$crate::Permit,
                name: &$crate::ResourceName,
            ) -> Result<Option<$crate::ResourceFacts>, $crate::StoreError> {
                $(if name.matches($crate::facts::pattern::<$fields>()) {
                    return $crate::facts::of::<$fields, C>(rows, permit, name).await;
                })+
                Ok(None)
            }
        }
    };
}

/// The form of the names of a type of resource.
#[doc(hidden)]
pub fn pattern<T: Wire>() -> &'static str {
    <T::Message as shape::Resource>::PATTERN
}

/// The facts of one resource: its type, and what its message says of its owner and its labels.
#[doc(hidden)]
pub async fn of<T: Wire, C: ConnectionTrait>(
    rows: &Rows<'_, C>,
    permit: &Permit,
    name: &ResourceName,
) -> Result<Option<ResourceFacts>, StoreError> {
    let parent = above(pattern::<T>()).and_then(|collection| name.get(collection)).unwrap_or_default();
    let Some(stored) = rows.find::<T>(permit, parent, name.id()).await? else { return Ok(None) };
    let message = T::encode(&stored);
    let labels = shape::Resource::labels(&message).cloned().unwrap_or_default();
    let owner = group_or_nobody(shape::Resource::owner(&message)).to_owned();
    Ok(Some(ResourceFacts { r#type: T::TYPE.to_owned(), owner, labels, ..Default::default() }))
}

/// The owner as policy sees it: only groups own, so what a user owns has no owner.
pub fn group_or_nobody(owner: &str) -> &str {
    if owner.contains("/groups/") { owner } else { "" }
}

/// The facts of a resource, or of the nearest one above it that the service keeps and that exists; at least the
/// organization, which may be kept elsewhere.
///
/// # Errors
/// The database's.
pub async fn facts<S: Keeper, C: ConnectionTrait>(
    rows: &Rows<'_, C>,
    permit: &Permit,
    name: &ResourceName,
) -> Result<ResourceFacts, StoreError> {
    let mut at = Some(name.clone());
    while let Some(candidate) = at {
        if let Some(found) = S::find(rows, permit, &candidate).await? {
            return Ok(ResourceFacts { exists: candidate == *name, name: candidate.to_string(), ..found });
        }
        at = candidate.parent();
    }
    let name = format!("organizations/{}", name.organization());
    Ok(ResourceFacts { name, r#type: ORGANIZATION.to_owned(), ..Default::default() })
}

/// The facts of the target of a call within its transaction; nothing where the call does not come with one. The
/// installation itself has no facts.
///
/// # Errors
/// The database's.
pub async fn facts_of_target<S: Keeper>(
    tx: &Tx,
    permit: &Permit,
) -> Result<Option<ResourceFacts>, StoreError> {
    match ResourceName::parse(permit.resource()) {
        Ok(name) => facts::<S, _>(&Rows::new(tx), permit, &name).await.map(Some),
        Err(_) => Ok(None),
    }
}

/// Facts as they are told to the gateway.
#[derive(Debug)]
pub enum Told {
    /// Those that were kept with the first answer to the same request.
    Recalled(ResourceFacts),
    /// As it is now.
    Current(ResourceFacts),
}

/// Answers the gateway's question about a resource of this service, or above one.
///
/// # Errors
/// A name of nothing that is kept here, or in another organization than the permit's, and the database's.
pub async fn tell_facts<S: Keeper>(
    service: &S,
    permit: &Permit,
    asked: &GetResourceFactsRequest,
) -> Result<Told, Error> {
    let GetResourceFactsRequest { name: text, request_id, method, principal, message: _ } = asked;
    let refuse = |text: String| Problem::invalid_field("name", Fault::Pattern, text);
    let name = ResourceName::parse(text).map_err(|error| refuse(error.to_string()))?;
    if name.organization() != permit.organization() {
        let action = GetResourceFactsRequest::ACTION.to_owned();
        return Err(Error::Denied { action, resource: text.clone() });
    }
    let kernel = service.kernel();
    if !request_id.is_empty() {
        let key = idempotency::Key::new(permit.organization(), principal, method, request_id);
        let kept = idempotency::facts(kernel.store.read(), &key, kernel.clock.now()).await?;
        if let Some(first) = recall(kept, text)? {
            return Ok(Told::Recalled(first));
        }
    }
    if name.parent().is_some() && !S::knows(&name) {
        return Err(refuse(format!("`{name}` is not a resource of this service")).into());
    }
    Ok(Told::Current(facts::<S, _>(&Rows::new(kernel.store.read()), permit, &name).await?))
}
