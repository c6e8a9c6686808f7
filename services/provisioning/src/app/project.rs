//! Projects.

use pavior_core::Fault;
use std::collections::BTreeMap;

use pavior_auth::Permit;
use pavior_core::ResourceName;
use pavior_core::name::{RESERVED_KEY, is_reserved_key};
use pavior_rpc::Violations;
use serde_json::{Value, json};

use super::submit::{Effect, Proposal, Target};
use super::{Answer, App, ChangeContext, ListQuery, Listed, check_display_name, planning};
use crate::domain::facts::{Facts, Section};
use crate::domain::names;
use crate::domain::plan::Kind;
use crate::domain::project::Project;
use crate::domain::question::{Subject, Touched, Verb, WorksOn};
use crate::domain::scope::{EnvironmentScope, ProjectScope};
use crate::domain::template::Template;
use crate::error::{Error, Result};
use crate::store::{NewEnvironment, NewProject, Seen};

const MAX_LABELS: usize = 64;

/// A project as it was asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct WantedProject {
    pub(crate) parent: String,
    pub(crate) id: String,
    pub(crate) display_name: String,
    pub(crate) owner: String,
    pub(crate) template_version: String,
    pub(crate) parameters: Value,
    pub(crate) labels: BTreeMap<String, String>,
}

impl App {
    /// One project.
    pub(crate) async fn get_project(&self, permit: &Permit, name: &str) -> Result<Project> {
        Self::name(permit, "provisioning.projects.get", "name", name, names::PROJECT)?;
        self.db.project(permit, name).await
    }

    /// A page of projects.
    pub(crate) async fn list_projects(&self, permit: &Permit, query: ListQuery) -> Result<Listed<Project>> {
        Self::name(permit, "provisioning.projects.list", "parent", &query.parent, names::ORGANIZATION)?;
        self.list("ListProjects", query, async |db, listing| db.projects_page(permit, listing).await).await
    }

    /// Makes a project with its own resources and the environments that come with it.
    pub(crate) async fn create_project(
        &self,
        context: &ChangeContext,
        wanted: WantedProject,
        mut violations: Violations,
    ) -> Result<Answer> {
        let parent = ResourceName::parse_as(&wanted.parent, names::ORGANIZATION);
        let parent = violations.check("parent", Fault::Pattern, parent);
        if let Some(parent) = &parent {
            Self::permitted(&context.permit, context.action, parent.organization(), &wanted.parent)?;
        }
        let id = self.id(&wanted.id, "project", "project_id", &mut violations);
        check(&context.permit, &wanted, &mut violations);
        if parent.is_none() || !violations.is_empty() {
            violations.into_result()?;
        }
        if let Some(answer) = self.replayed(context).await? {
            return Ok(answer);
        }
        let name = format!("{}/projects/{id}", wanted.parent);
        let own = self.own_permit(context.permit.organization());
        let (path, exists, owned) = futures::future::join3(
            self.golden_path(&context.permit, &wanted.template_version),
            self.db.find_project(&context.permit, &name),
            self.peers.has_group(&own, &wanted.owner),
        )
        .await;
        if exists?.is_some() {
            return Err(Error::AlreadyExists { kind: "Project", name });
        }
        let path = path?;
        let mut violations = Violations::new();
        if !owned? {
            violations.add("project.owner", Fault::NotFound, format!("`{}` does not exist", wanted.owner));
        }
        let parameters =
            planning::parameters(&path.schema, &wanted.parameters, "project.parameters", &mut violations);
        violations.into_result()?;

        let project = ProjectScope { name: name.clone(), owner: wanted.owner.clone() };
        let (sections, environments) = sections(&path.template, &name, &parameters);
        let mut facts = Facts { project, sections, ..Facts::default() };
        facts.matched = self.matched(&context.permit, &wanted.labels, &facts).await?;
        let changes = self.changes(&facts).await?;
        let made = |new: &NewEnvironment| Touched::made(&new.name, &new.class, &path.name);
        let works_on =
            WorksOn::new(Subject::project(&name, &wanted.owner), environments.iter().map(made).collect());
        let WantedProject { parent, display_name, owner, labels, .. } = wanted;
        let settings = json!({ "owner": owner, "labels": labels, "display_name": display_name });
        let project = NewProject { display_name, owner: owner.clone(), labels: labels.clone() };
        let target = Target {
            name,
            costs: Vec::new(),
            template_version: path.name,
            parameters,
            asked: Verb { new_owner: owner, ..Verb::on(Subject::organization(&parent)) },
            works_on,
            labels,
            seen: Seen::new(),
        };
        let effect = Effect::new(Kind::CreateProject, "create project", settings);
        let proposal =
            Proposal { target, changes, effect: Effect { project: Some(project), environments, ..effect } };
        self.submit(context, proposal).await
    }
}

/// The project's own section, and those of the environments that come with it.
fn sections(template: &Template, project: &str, parameters: &Value) -> (Vec<Section>, Vec<NewEnvironment>) {
    let own = template.project.clone();
    let mut sections = vec![Section { environment: None, parameters: parameters.clone(), wanted: own }];
    let mut environments = Vec::new();
    for class in template.environments.iter().filter(|class| class.with_project) {
        let name = format!("{project}/environments/{}", class.class);
        environments.push(NewEnvironment {
            name: name.clone(),
            display_name: String::new(),
            class: class.class.clone(),
            parameters: json!({}),
            ttl_seconds: class.ttl.and_then(|ttl| i64::try_from(ttl.as_secs()).ok()),
            expire_time: None,
        });
        sections.push(Section {
            environment: Some(EnvironmentScope { name, class: class.class.clone() }),
            parameters: parameters.clone(),
            wanted: class.resources.clone(),
        });
    }
    (sections, environments)
}

fn check(permit: &Permit, wanted: &WantedProject, violations: &mut Violations) {
    check_display_name("project.display_name", &wanted.display_name, violations);
    let organization = permit.organization();
    let own = |violations: &mut Violations, field: &str, name: &str, pattern: &str| {
        if name.is_empty() {
            // Said by the check of required fields already.
            return;
        }
        if let Some(parsed) = violations.check(field, Fault::Pattern, ResourceName::parse_as(name, pattern))
            && parsed.organization() != organization
        {
            violations.add(
                field,
                Fault::Conflict,
                format!("`{name}` is not in organization `{organization}`"),
            );
        }
    };
    own(violations, "project.owner", &wanted.owner, "organizations/{organization}/groups/{group}");
    let pattern = "organizations/{organization}/templates/{template}/versions/{version}";
    own(violations, "project.template_version", &wanted.template_version, pattern);
    if wanted.labels.len() > MAX_LABELS {
        violations.add("project.labels", Fault::TooMany, format!("has more than {MAX_LABELS} entries"));
    }
    for (key, value) in &wanted.labels {
        if key.is_empty() || key.chars().count() > 128 {
            violations.add(
                "project.labels",
                Fault::TooLong,
                format!("key `{key}` must have 1 to 128 characters"),
            );
        }
        if is_reserved_key(key) {
            violations.add(format!("project.labels.{key}"), Fault::Reserved, RESERVED_KEY);
        }
        if value.chars().count() > 256 {
            violations.add(
                "project.labels",
                Fault::TooLong,
                format!("the value of `{key}` is longer than 256 characters"),
            );
        }
    }
}
