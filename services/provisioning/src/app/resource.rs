//! Resources, as callers read them.

use pavior_auth::Permit;
use pavior_core::{Fault, ResourceName};
use pavior_resource::ListQuery;
use pavior_rpc::Problem;

use super::{App, Readable};
use crate::domain::names::{self, Parent};
use crate::domain::resource::Resource;
use crate::error::{Error, Result};
use crate::store::Page;

impl Readable for Resource {
    const PATTERN: &'static str = "";

    fn named(permit: &Permit, action: &str, name: &str) -> Result<ResourceName> {
        let parsed = ResourceName::parse(name)
            .ok()
            .filter(|parsed| patterns(RESOURCE).iter().any(|pattern| parsed.matches(pattern)));
        let parsed = parsed.ok_or_else(|| malformed("name", name, RESOURCE))?;
        App::permitted(permit, action, parsed.organization(), name)?;
        Ok(parsed)
    }

    fn below(permit: &Permit, action: &str, parent: &str) -> Result<Parent> {
        let known = [names::PROJECT, names::ENVIRONMENT];
        let parsed = known.iter().find_map(|pattern| Parent::parse(parent, pattern).ok());
        let parsed = parsed.ok_or_else(|| malformed("parent", parent, ""))?;
        App::permitted(permit, action, parsed.organization(), parent)?;
        Ok(parsed)
    }

    async fn get(app: &App, permit: &Permit, name: &ResourceName) -> Result<Self> {
        let row = app.db.find_resource(permit, name.as_str()).await?;
        row.ok_or_else(|| Error::NotFound { kind: "Resource", name: name.to_string() })
    }

    async fn list(app: &App, permit: &Permit, parent: &Parent, query: &ListQuery) -> Result<Page<Self>> {
        match parent.one() {
            Some(environment) if parent.pattern() == names::ENVIRONMENT => {
                drop(app.db.environment(permit, environment.as_str()).await?);
            }
            _ => app.project_of(permit, parent).await?,
        }
        app.db.resources_page(permit, parent, query).await
    }
}

/// What a resource's name has below that of its project or environment.
const RESOURCE: &str = "/resources/{resource}";

/// The patterns of names in a project, and in one of its environments.
fn patterns(below: &str) -> [String; 2] {
    [names::PROJECT, names::ENVIRONMENT].map(|pattern| format!("{pattern}{below}"))
}

fn malformed(field: &str, name: &str, below: &str) -> Problem {
    let message = format!("`{name}` must have the form `{}`", patterns(below).join("` or `"));
    Problem::invalid_field(field, Fault::Pattern, message)
}
