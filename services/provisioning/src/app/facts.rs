//! What policy needs to know about things of this service.

use pavior_core::{Fault, ResourceName};
use std::collections::HashMap;

use pavior_auth::Permit;
use pavior_proto::pavior::governance::internal::v1::{GetResourceFactsRequest, ResourceFacts};
use pavior_rpc::Problem;
use pavior_rpc::facts::no_owners_within;
use pavior_store::idempotency;

use super::App;
use crate::domain::environment::Environment;
use crate::domain::names;
use crate::domain::operation::Operation;
use crate::domain::plan::Kind;
use crate::domain::project::Project;
use crate::domain::question::{self, Fate, Subject, Touched};
use crate::error::{Error, Result};
use crate::store::Seen;

/// Facts of a project.
pub(crate) fn project_facts(row: &Project) -> ResourceFacts {
    ResourceFacts {
        name: row.name.clone(),
        exists: true,
        r#type: question::PROJECT.to_owned(),
        owner: row.owner.clone(),
        project: row.name.clone(),
        environment_class: String::new(),
        labels: labels_of(row),
        owner_changes: Vec::new(),
    }
}

/// The labels of a project.
pub(crate) fn labels_of(row: &Project) -> HashMap<String, String> {
    row.labels.clone().into_iter().collect()
}

/// Facts of an environment: its class, and the owner and labels of its project.
pub(crate) fn environment_facts(row: &Environment, project: &Project) -> ResourceFacts {
    ResourceFacts {
        name: row.name.clone(),
        r#type: question::ENVIRONMENT.to_owned(),
        environment_class: row.class.clone(),
        ..project_facts(project)
    }
}

/// A project, as policy is asked about it.
pub(crate) fn project_subject(row: &Project) -> Subject {
    Subject::project(&row.name, &row.owner)
}

/// An environment, as policy is asked about it.
pub(crate) fn environment_subject(row: &Environment, project: &Project) -> Subject {
    project_subject(project).environment(&row.name, &row.class)
}

/// An environment to which something happens.
pub(crate) fn touched(row: &Environment, fate: Fate) -> Touched {
    Touched {
        name: row.name.clone(),
        class: row.class.clone(),
        template_version: row.template_version.clone(),
        fate,
    }
}

/// The rows that a plan is made with, as they are now.
pub(crate) fn seen(project: &Project, row: Option<&Environment>) -> Seen {
    let own = [(project.name.clone(), (project.uid, project.revision))];
    own.into_iter().chain(row.map(|row| (row.name.clone(), (row.uid, row.revision)))).collect()
}

impl App {
    /// What is told of a resource: to a call that was answered before what was told then, so that it is decided on as
    /// it was, whatever has become of the resource since.
    pub(crate) async fn facts_at_first(
        &self,
        permit: &Permit,
        request: &GetResourceFactsRequest,
    ) -> Result<ResourceFacts> {
        let GetResourceFactsRequest { name, request_id, method, principal, message } = request;
        no_owners_within(message)?;
        if !request_id.is_empty() {
            let key = idempotency::Key::new(permit.organization(), principal, method, request_id);
            if let Some(facts) =
                pavior_rpc::facts::recall(self.db.remembered_facts_unscoped(&key).await?, name)?
            {
                return Ok(facts);
            }
        }
        self.facts(permit, name).await
    }

    /// The facts of a resource, or of its nearest existing ancestor.
    pub(crate) async fn facts(&self, permit: &Permit, name: &str) -> Result<ResourceFacts> {
        let parsed = ResourceName::parse(name).map_err(|error| {
            Error::from(Problem::invalid_field("name", Fault::Pattern, error.to_string()))
        })?;
        Self::permitted(permit, "governance.facts.get", parsed.organization(), name)?;
        let organization = format!("organizations/{}", parsed.organization());
        let (op, kind) = match parsed.collection() {
            // Also of one that was deleted: whoever did that may ask again.
            "operations" => (self.db.find_kept_operation(permit, name).await?, "Operation"),
            "plans" => match self.db.find_plan(permit, name).await? {
                Some(stored) => (self.db.operation_of_plan(permit, stored.plan.id).await?, "Plan"),
                None => (None, "Plan"),
            },
            _ => return self.facts_of_target(permit, name, &organization).await,
        };
        match op {
            Some(op) => self.facts_of_operation(permit, name, kind, &op).await,
            None => Ok(nothing(&organization)),
        }
    }

    /// An operation is owned by whoever owns what it works on, also when that is gone or was never made.
    async fn facts_of_operation(
        &self,
        permit: &Permit,
        name: &str,
        kind: &str,
        op: &Operation,
    ) -> Result<ResourceFacts> {
        let own = ResourceFacts {
            name: name.to_owned(),
            exists: true,
            r#type: format!("provisioning.pavior.dev/{kind}"),
            owner: op.owner.clone(),
            project: op.project.clone(),
            environment_class: op.environment_class.clone(),
            labels: op.labels.clone().into_iter().collect(),
            owner_changes: Vec::new(),
        };
        if !own.owner.is_empty() || op.kind == Kind::DeleteOrphan {
            return Ok(own);
        }
        // One from before operations knew their owner.
        let organization = format!("organizations/{}", op.organization);
        let of_target = self.facts_of_target(permit, &op.target, &organization).await?;
        Ok(ResourceFacts { name: own.name, exists: true, r#type: own.r#type, ..of_target })
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

pub(super) fn nothing(organization: &str) -> ResourceFacts {
    ResourceFacts {
        name: organization.to_owned(),
        exists: false,
        r#type: question::ORGANIZATION.to_owned(),
        ..Default::default()
    }
}
