//! Resources, as callers read them.

use pavior_auth::Permit;
use pavior_core::{Fault, ResourceName};
use pavior_rpc::Problem;

use super::{App, ListQuery, Listed};
use crate::domain::names;
use crate::domain::resource::Resource;
use crate::error::{Error, Result};

impl App {
    /// One resource.
    pub(crate) async fn get_resource(&self, permit: &Permit, name: &str) -> Result<Resource> {
        scoped(permit, "provisioning.resources.get", "name", name, "/resources/{resource}")?;
        self.db.resource(permit, name).await
    }

    /// A page of resources, of a project's own section or of an environment.
    pub(crate) async fn list_resources(&self, permit: &Permit, query: ListQuery) -> Result<Listed<Resource>> {
        let name = scoped(permit, "provisioning.resources.list", "parent", &query.parent, "")?;
        match name.collection() {
            "environments" => drop(self.db.environment(permit, &query.parent).await?),
            _ => drop(self.db.project(permit, &query.parent).await?),
        }
        self.list("ListResources", query, async |db, listing| db.resources_page(permit, listing).await).await
    }
}

/// A name in a project, or in one of its environments.
fn scoped(permit: &Permit, action: &str, field: &str, name: &str, below: &str) -> Result<ResourceName> {
    let patterns = [names::PROJECT, names::ENVIRONMENT].map(|pattern| format!("{pattern}{below}"));
    let parsed = ResourceName::parse(name).ok().filter(|parsed| patterns.iter().any(|p| parsed.matches(p)));
    let Some(parsed) = parsed else {
        let message = format!("`{name}` must have the form `{}`", patterns.join("` or `"));
        return Err(Error::from(Problem::invalid_field(field, Fault::Pattern, message)));
    };
    App::permitted(permit, action, parsed.organization(), name)?;
    Ok(parsed)
}
