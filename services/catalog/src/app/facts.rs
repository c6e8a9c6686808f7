//! What policy needs to know about a resource of the catalog.

use std::collections::BTreeMap;

use pavior_auth::Permit;
use pavior_core::ResourceName;

use super::App;
use crate::domain::{
    EntityFields, GroupFields, KindFields, OrganizationFields, Resource, ResourceDefinitionFields,
    ResourceTypeFields, TemplateFields, UserFields, VersionFields,
};
use crate::error::Error;
use crate::store::Table;

/// The facts of a resource, or of its nearest ancestor that exists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Facts {
    pub(crate) name: String,
    pub(crate) exists: bool,
    pub(crate) resource_type: &'static str,
    /// A group.
    pub(crate) owner: String,
    pub(crate) labels: BTreeMap<String, String>,
}

impl App {
    /// Returns the facts of a resource. A name that is none of the catalog's gives the organization.
    pub(crate) async fn facts(&self, permit: &Permit, name: &ResourceName) -> Result<Facts, Error> {
        let mut at = Some(name.clone());
        while let Some(candidate) = at {
            if let Some(mut facts) = self.facts_of(permit, &candidate).await? {
                facts.exists = candidate == *name;
                facts.name = candidate.to_string();
                return Ok(facts);
            }
            at = candidate.parent();
        }
        let name = format!("organizations/{}", name.organization());
        Ok(Facts { name, resource_type: OrganizationFields::TYPE, ..Facts::default() })
    }

    async fn facts_of(&self, permit: &Permit, name: &ResourceName) -> Result<Option<Facts>, Error> {
        let collections: Vec<&str> = name.pairs().map(|(collection, _)| collection).collect();
        match collections.as_slice() {
            ["organizations"] => self.plain::<OrganizationFields>(permit, "", name.id()).await,
            ["organizations", "groups"] => self.plain::<GroupFields>(permit, "", name.id()).await,
            ["organizations", "users"] => self.plain::<UserFields>(permit, "", name.id()).await,
            ["organizations", "kinds"] => self.plain::<KindFields>(permit, "", name.id()).await,
            ["organizations", "kinds", "entities"] => self.entity(permit, name).await,
            ["organizations", "templates"] => self.plain::<TemplateFields>(permit, "", name.id()).await,
            ["organizations", "templates", "versions"] => {
                self.plain::<VersionFields>(permit, name.get("templates").unwrap_or_default(), name.id())
                    .await
            }
            ["organizations", "resourceTypes"] => {
                self.plain::<ResourceTypeFields>(permit, "", name.id()).await
            }
            ["organizations", "resourceDefinitions"] => {
                self.plain::<ResourceDefinitionFields>(permit, "", name.id()).await
            }
            _ => Ok(None),
        }
    }

    async fn plain<T: Table>(&self, permit: &Permit, parent: &str, id: &str) -> Result<Option<Facts>, Error> {
        let found = self.store.read().find::<T>(permit, parent, id).await?;
        Ok(found.map(|_| Facts { resource_type: <T as Resource>::TYPE, ..Facts::default() }))
    }

    async fn entity(&self, permit: &Permit, name: &ResourceName) -> Result<Option<Facts>, Error> {
        let kind = name.get("kinds").unwrap_or_default();
        let found = self.store.read().find::<EntityFields>(permit, kind, name.id()).await?;
        Ok(found.map(|entity| {
            let EntityFields { owner, labels, .. } = entity.fields;
            let owner = if owner.contains("/groups/") { owner } else { String::new() };
            Facts { resource_type: EntityFields::TYPE, owner, labels, ..Facts::default() }
        }))
    }
}
