//! What policy needs to know about things of this service.

use std::collections::HashMap;

use pavior_auth::Permit;
use pavior_core::ResourceName;
use pavior_proto::pavior::governance::v1::ResourceFacts;
use pavior_rpc::Problem;

use super::App;
use crate::domain::names;
use crate::error::{Error, Result};
use crate::store::entity::{environment, project};

/// Facts of a project.
pub(crate) fn project_facts(row: &project::Model) -> ResourceFacts {
    ResourceFacts {
        name: row.name.clone(),
        exists: true,
        r#type: "provisioning.pavior.dev/Project".to_owned(),
        owner: row.owner.clone(),
        project: row.name.clone(),
        environment_class: String::new(),
        labels: labels_of(row),
    }
}

/// The labels of a project.
pub(crate) fn labels_of(row: &project::Model) -> HashMap<String, String> {
    serde_json::from_value(row.labels.clone()).unwrap_or_default()
}

/// Facts of an environment: its class, and the owner and labels of its project.
pub(crate) fn environment_facts(row: &environment::Model, project: &project::Model) -> ResourceFacts {
    ResourceFacts {
        name: row.name.clone(),
        r#type: "provisioning.pavior.dev/Environment".to_owned(),
        environment_class: row.class.clone(),
        ..project_facts(project)
    }
}

/// Facts of something else in a project or an environment.
pub(crate) fn pipeline_facts(name: &str, above: &ResourceFacts) -> ResourceFacts {
    ResourceFacts {
        name: name.to_owned(),
        r#type: "provisioning.pavior.dev/Pipeline".to_owned(),
        ..above.clone()
    }
}

impl App {
    /// The facts of a resource, or of its nearest existing ancestor.
    pub(crate) async fn facts(&self, permit: &Permit, name: &str) -> Result<ResourceFacts> {
        let parsed = ResourceName::parse(name)
            .map_err(|error| Error::from(Problem::invalid_field("name", error.to_string())))?;
        Self::permitted(permit, "governance.facts.get", parsed.organization(), name)?;
        let organization = format!("organizations/{}", parsed.organization());
        let target = match parsed.collection() {
            "operations" => self.db.find_operation(permit, name).await?.map(|op| op.target),
            "plans" => self.db.find_plan(permit, name).await?.map(|plan| plan.target),
            _ => Some(name.to_owned()),
        };
        let Some(target) = target else { return Ok(nothing(&organization)) };
        let of_target = self.facts_of_target(permit, &target, &organization).await?;
        Ok(match parsed.collection() {
            // An operation is owned by whoever owns what it works on.
            "operations" => ResourceFacts {
                name: name.to_owned(),
                exists: true,
                r#type: "provisioning.pavior.dev/Operation".to_owned(),
                ..of_target
            },
            "plans" => ResourceFacts {
                name: name.to_owned(),
                exists: true,
                r#type: "provisioning.pavior.dev/Plan".to_owned(),
                ..of_target
            },
            _ => of_target,
        })
    }

    async fn facts_of_target(
        &self,
        permit: &Permit,
        target: &str,
        organization: &str,
    ) -> Result<ResourceFacts> {
        let Some(project) = self.db.find_project(permit, &names::project_of(target)).await? else {
            return Ok(nothing(organization));
        };
        let environment = names::environment_of(target);
        let mut facts = match self.db.find_environment(permit, &environment).await? {
            Some(environment) => environment_facts(&environment, &project),
            None => project_facts(&project),
        };
        facts.exists = facts.name == target;
        if facts.exists {
            return Ok(facts);
        }
        let kind = match ResourceName::parse(target)
            .ok()
            .as_ref()
            .map(|name| name.collection().to_owned())
            .as_deref()
        {
            Some("resources") => self.db.find_resource(permit, target).await?.map(|_| "Resource"),
            Some("runs") => self.db.find_run(permit, target).await?.map(|_| "Run"),
            Some("deployments") => self.db.find_deployment(permit, target).await?.map(|_| "Deployment"),
            Some("pipelines") => {
                let resource = format!("{}/resources/{}", project.name, names::last(target));
                self.db.find_resource(permit, &resource).await?.map(|_| "Pipeline")
            }
            _ => None,
        };
        if let Some(kind) = kind {
            facts.exists = true;
            facts.name = target.to_owned();
            facts.r#type = format!("provisioning.pavior.dev/{kind}");
        }
        Ok(facts)
    }
}

fn nothing(organization: &str) -> ResourceFacts {
    ResourceFacts {
        name: organization.to_owned(),
        exists: false,
        r#type: "catalog.pavior.dev/Organization".to_owned(),
        ..Default::default()
    }
}
