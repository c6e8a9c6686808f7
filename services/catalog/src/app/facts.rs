//! What policy needs to know about a resource of the catalog.

use pavior_auth::Permit;
use pavior_core::ResourceName;
use pavior_proto::pavior::governance::internal::v1::ResourceFacts;
use pavior_resource::Table;
use pavior_store::idempotency;

use super::App;
use crate::domain::{
    EntityFields, Fields as _, GroupFields, KindFields, MembershipFields, OrganizationFields,
    ResourceDefinitionFields, ResourceTypeFields, TemplateFields, UserFields, VersionFields,
};
use crate::error::Error;
use crate::store::{ConnectionTrait, Db, Tx};

impl App {
    /// Returns the facts of a resource. A name that is none of the catalog's gives the organization.
    pub(crate) async fn facts(&self, permit: &Permit, name: &ResourceName) -> Result<ResourceFacts, Error> {
        FactsReader { db: &self.read(), permit }.facts(name).await
    }

    /// The facts that were kept with the answer to an earlier call.
    pub(crate) async fn recorded_facts(&self, key: &idempotency::Key) -> Result<Option<Vec<u8>>, Error> {
        let (store, now) = (&self.kernel.store, self.kernel.clock.now());
        Ok(idempotency::facts(store.read(), key, now).await?)
    }
}

/// The target of a call as it is within its transaction; nothing where the call does not come with one.
pub(super) async fn facts_of_target(tx: &Tx<'_>, permit: &Permit) -> Result<Option<ResourceFacts>, Error> {
    match ResourceName::parse(permit.resource()) {
        Ok(name) => FactsReader { db: tx, permit }.facts(&name).await.map(Some),
        // The installation itself has no facts.
        Err(_) => Ok(None),
    }
}

/// The owner as policy sees it: only groups own, so an entity that a user owns has no owner.
pub(super) fn group_or_nobody(owner: String) -> String {
    if owner.contains("/groups/") { owner } else { String::new() }
}

/// Reads facts over a connection, confined to a permit.
struct FactsReader<'a, 'c, C> {
    db: &'a Db<'c, C>,
    permit: &'a Permit,
}

impl<C: ConnectionTrait> FactsReader<'_, '_, C> {
    async fn facts(&self, name: &ResourceName) -> Result<ResourceFacts, Error> {
        let mut at = Some(name.clone());
        while let Some(candidate) = at {
            if let Some(mut facts) = self.facts_of(&candidate).await? {
                facts.exists = candidate == *name;
                facts.name = candidate.to_string();
                return Ok(facts);
            }
            at = candidate.parent();
        }
        let name = format!("organizations/{}", name.organization());
        Ok(ResourceFacts { name, r#type: OrganizationFields::TYPE.to_owned(), ..ResourceFacts::default() })
    }

    async fn facts_of(&self, name: &ResourceName) -> Result<Option<ResourceFacts>, Error> {
        let collections: Vec<&str> = name.pairs().map(|(collection, _)| collection).collect();
        match collections.as_slice() {
            ["organizations"] => self.typed::<OrganizationFields>("", name.id()).await,
            ["organizations", "groups"] => self.typed::<GroupFields>("", name.id()).await,
            ["organizations", "groups", "memberships"] => {
                self.typed::<MembershipFields>(name.get("groups").unwrap_or_default(), name.id()).await
            }
            ["organizations", "users"] => self.typed::<UserFields>("", name.id()).await,
            ["organizations", "kinds"] => self.typed::<KindFields>("", name.id()).await,
            ["organizations", "kinds", "entities"] => self.entity(name).await,
            ["organizations", "templates"] => self.typed::<TemplateFields>("", name.id()).await,
            ["organizations", "templates", "versions"] => {
                self.typed::<VersionFields>(name.get("templates").unwrap_or_default(), name.id()).await
            }
            ["organizations", "resourceTypes"] => self.typed::<ResourceTypeFields>("", name.id()).await,
            ["organizations", "resourceDefinitions"] => {
                self.typed::<ResourceDefinitionFields>("", name.id()).await
            }
            _ => Ok(None),
        }
    }

    async fn typed<T: Table>(&self, parent: &str, id: &str) -> Result<Option<ResourceFacts>, Error> {
        let found = self.db.find::<T>(self.permit, parent, id).await?;
        Ok(found.map(|_| ResourceFacts { r#type: T::TYPE.to_owned(), ..ResourceFacts::default() }))
    }

    async fn entity(&self, name: &ResourceName) -> Result<Option<ResourceFacts>, Error> {
        let kind = name.get("kinds").unwrap_or_default();
        let found = self.db.find::<EntityFields>(self.permit, kind, name.id()).await?;
        Ok(found.map(|entity| {
            let EntityFields { owner, labels, .. } = entity.fields;
            let owner = group_or_nobody(owner);
            let labels = labels.into_iter().collect();
            ResourceFacts { r#type: EntityFields::TYPE.to_owned(), owner, labels, ..ResourceFacts::default() }
        }))
    }
}
