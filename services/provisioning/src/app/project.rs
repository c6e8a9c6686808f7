//! Projects.

use pavior_core::Fault;
use std::collections::BTreeMap;

use pavior_auth::Permit;
use pavior_core::ResourceName;
use pavior_core::audit::Affected;
use pavior_core::name::{RESERVED_KEY, is_reserved_key};
use pavior_proto::pavior::governance::internal::v1::ResourceFacts;
use pavior_resource::check_etag;
use pavior_resource::{self as kernel, AuditEntry, Done, Kernel, ListQuery, Service, Work};
use pavior_rpc::Violations;
use pavior_store::Tx;
use prost::Message;
use serde_json::{Value, json};

use super::facts::{nothing, project_facts};
use super::submit::{Effect, Proposal, Target};
use super::{Answer, App, ChangeContext, Readable, etag_of, planning};
use crate::domain::facts::{Facts, Section};
use crate::domain::names::{self, Parent};
use crate::domain::plan::Kind;
use crate::domain::project::Project;
use crate::domain::question::{self, Subject, Touched, Verb, WorksOn};
use crate::domain::scope::{EnvironmentScope, ProjectScope};
use crate::domain::template::Template;
use crate::error::{Error, Result};
use crate::store::{Makes, NewEnvironment, NewProject, Page, Seen, one_at_a_time};

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

impl Readable for Project {
    const PATTERN: &'static str = names::PROJECT;

    async fn get(app: &App, permit: &Permit, name: &ResourceName) -> Result<Self> {
        app.db.project(permit, name.as_str()).await
    }

    async fn list(app: &App, permit: &Permit, _: &Parent, query: &ListQuery) -> Result<Page<Self>> {
        app.db.projects_page(permit, query).await
    }
}

impl App {
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
        let id = self.id(&wanted.id, "project");
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
        let proposal = Proposal {
            target,
            changes,
            effect: Effect {
                makes: Makes { project: Some(project), environments, ..Makes::default() },
                ..effect
            },
        };
        self.submit(context, proposal).await
    }
}

/// What is to be said about a project from now on.
pub(crate) struct Description<F> {
    /// Its resource name.
    pub(crate) name: String,
    /// Which revision of it; empty for any.
    pub(crate) etag: String,
    /// The project with what is said about it.
    pub(crate) merge: F,
}

impl Service for App {
    type Error = Error;

    fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    async fn lock(tx: &Tx, permit: &Permit) -> Result<()> {
        one_at_a_time(tx, "description", permit.organization()).await
    }

    async fn facts(&self, tx: &Tx, permit: &Permit) -> Result<Option<ResourceFacts>> {
        let row = self.db.held_project(tx, permit, permit.resource()).await?;
        let none = || nothing(&format!("organizations/{}", permit.organization()));
        Ok(Some(row.map_or_else(none, |row| project_facts(&row))))
    }
}

impl App {
    /// Changes what is said about a project, and nothing that it is made of.
    pub(crate) async fn describe_project<M, F>(
        &self,
        context: &kernel::ChangeContext,
        encode: fn(&Project) -> M,
        description: Description<F>,
    ) -> Result<M>
    where
        M: Message + Default + 'static,
        F: Fn(&Project) -> Result<Project> + Send + Sync + 'static,
    {
        let done =
            kernel::run(self, context, encode, description, |work, wanted| Box::pin(describe(work, wanted)));
        match done.await {
            Err(refusal) => Err(self.explained(&context.permit, refusal).await),
            done => done,
        }
    }
}

async fn describe<F>(work: &Work<'_, App>, wanted: &Description<F>) -> Result<Done<Project>>
where
    F: Fn(&Project) -> Result<Project> + Send + Sync,
{
    let Description { name, etag, merge } = wanted;
    let db = &work.service.db;
    let found = db.held_project(work.tx, work.permit, name).await?;
    let before = found.ok_or_else(|| Error::NotFound { kind: "Project", name: name.clone() })?;
    check_etag(etag, etag_of(before.uid, before.revision))?;
    let after = merge(&before)?;
    if after == before {
        return Ok(Done::unchanged(before));
    }
    if !before.operation.is_empty() {
        return Err(Error::Busy { name: before.name, operation: before.operation });
    }
    // Whoever planned with it as it was plans anew.
    let after = Project { revision: before.revision + 1, update_time: work.now, ..after };
    db.describe_project(work.tx, work.permit, &after).await?;
    let said = |project: &Project| json!({ "displayName": project.display_name, "labels": project.labels });
    let entry = AuditEntry {
        target: Affected { project: name.clone(), ..Affected::new(question::PROJECT, name) },
        affected: Vec::new(),
        before: Some(said(&before)),
        after: Some(said(&after)),
        plan_digest: None,
        refused: None,
        summary: format!("updated project `{name}`"),
    };
    Ok(Done::new(after, entry))
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
    check_labels(&wanted.labels, violations);
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
}

/// Refuses labels that only the platform sets.
pub(crate) fn check_labels(labels: &BTreeMap<String, String>, violations: &mut Violations) {
    for key in labels.keys().filter(|key| is_reserved_key(key)) {
        violations.add(format!("project.labels.{key}"), Fault::Reserved, RESERVED_KEY);
    }
}
