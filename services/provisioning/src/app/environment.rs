//! Environments.

use pavior_auth::Permit;
use pavior_core::{Fault, ResourceName};
use pavior_resource::ListQuery;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pavior_resource::check_etag;
use pavior_rpc::{ErrorReason, Problem, Violations};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::drift::Sight;
use super::facts::project_subject;
use super::planning::{current, narrow, parameters};
use super::submit::{Effect, Proposal, Target};
use super::{Answer, App, ChangeContext, Readable, etag_of};
use crate::domain::drift::Standing;
use crate::domain::environment::{Environment, EnvironmentView};
use crate::domain::facts::{Facts, Section, resource_name};
use crate::domain::names::{self, Parent};
use crate::domain::plan::Kind;
use crate::domain::project::{Project, ProjectState};
use crate::domain::question::{Fate, Touched, Verb};
use crate::domain::resource::{Resource, ResourceState};
use crate::domain::scope::{EnvironmentScope, ProjectScope};
use crate::domain::template::{EnvironmentClass, Wanted};
use crate::engine::artifact_of_run;
use crate::error::{Error, Result};
use crate::store::{Makes, NewEnvironment, Page, ResourceRecord};

/// The shortest life of an environment.
const MIN_TTL: Duration = Duration::from_secs(60);
/// The longest: a hundred years.
const MAX_TTL: Duration = Duration::from_secs(100 * 366 * 86_400);

/// An environment as it was asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct WantedEnvironment {
    pub(crate) display_name: String,
    pub(crate) class: String,
    pub(crate) parameters: Value,
    pub(crate) expiration: Option<Expiration>,
}

/// When an environment is taken down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiration {
    At(OffsetDateTime),
    /// So long after its operation ends.
    After(Duration),
}

impl Expiration {
    fn after(self) -> Option<i64> {
        match self {
            Self::After(span) => Some(i64::try_from(span.as_secs()).unwrap_or(i64::MAX)),
            Self::At(_) => None,
        }
    }

    fn at(self) -> Option<OffsetDateTime> {
        match self {
            Self::At(time) => Some(time),
            Self::After(_) => None,
        }
    }
}

/// A project that can be worked on, with everything that is recorded of it.
pub(crate) struct ProjectSnapshot {
    pub(crate) project: Project,
    pub(crate) rows: Vec<Resource>,
    pub(crate) path: super::planning::GoldenPath,
}

impl Readable for EnvironmentView {
    const PATTERN: &'static str = names::ENVIRONMENT;

    async fn get(app: &App, permit: &Permit, name: &ResourceName) -> Result<Self> {
        app.environment_now(permit, name.as_str()).await
    }

    async fn list(app: &App, permit: &Permit, parent: &Parent, query: &ListQuery) -> Result<Page<Self>> {
        app.project_of(permit, parent).await?;
        let page = app.db.environments_page(permit, parent, query).await?;
        page.of(async |rows| app.db.with_workloads(permit, rows).await).await
    }
}

impl App {
    /// One environment with its workloads.
    pub(crate) async fn environment_now(&self, permit: &Permit, name: &str) -> Result<EnvironmentView> {
        let environment = self.db.environment(permit, name).await?;
        self.db.environment_view(permit, environment).await
    }

    /// Reads what every change in a project starts from.
    pub(crate) async fn ground(&self, context: &ChangeContext, name: &str) -> Result<ProjectSnapshot> {
        let project = self.db.project(&context.permit, name).await?;
        if !project.operation.is_empty() || project.state != ProjectState::Active {
            return Err(Error::taken(name.to_owned(), project.operation));
        }
        let (path, rows) = futures::future::join(
            self.golden_path(&context.permit, &project.template_version),
            self.db.resources_of_project(&context.permit, name),
        )
        .await;
        Ok(ProjectSnapshot { path: path?, rows: rows?, project })
    }

    /// Makes an environment of a class of the project's golden path.
    pub(crate) async fn create_environment(
        &self,
        context: &ChangeContext,
        parent: &str,
        id: &str,
        wanted: WantedEnvironment,
        violations: Violations,
    ) -> Result<Answer> {
        let name = Self::name(&context.permit, context.action, "parent", parent, names::PROJECT);
        let id = self.id(id, "environment");
        violations.into_result()?;
        name?;
        if let Some(answer) = self.replayed(context).await? {
            return Ok(answer);
        }
        check_end(wanted.expiration, None, self.db.now())?;
        let name = format!("{parent}/environments/{id}");
        let (ground, exists) = futures::future::join(
            self.ground(context, parent),
            self.db.find_environment(&context.permit, &name),
        )
        .await;
        let ground = ground?;
        if exists?.is_some() {
            return Err(Error::AlreadyExists { kind: "Environment", name });
        }
        let class = if wanted.class.is_empty() { id } else { wanted.class.clone() };
        let class = class_of(&ground, &class, wanted.class.is_empty())?;
        let parameters = merged(&ground, &wanted.parameters)?;
        let section = section(&name, &class, &parameters);
        let artifact = self.newest_artifact(context, &ground.project.name, &class).await?;
        let facts = self.facts_for(context, &ground, section, artifact).await?;
        let changes = self.changes(&facts).await?;
        let expiration = wanted.expiration.or(class.ttl.map(Expiration::After));
        let (ttl, expire_time) =
            (expiration.and_then(Expiration::after), expiration.and_then(Expiration::at));
        let made = Touched::made(&name, &class.class, &ground.path.name);
        let settings = json!({
            "ttl_seconds": ttl,
            "expire_time": expire_time.map(pavior_store::micros),
            "display_name": wanted.display_name,
            "class": class.class,
        });
        let environment = NewEnvironment {
            name: name.clone(),
            display_name: wanted.display_name,
            class: class.class.clone(),
            parameters: wanted.parameters,
            ttl_seconds: ttl,
            expire_time,
        };
        let target = Target { name, parameters, ..new_environment(&ground, class.class, made) };
        let effect = Effect::new(Kind::CreateEnvironment, "create environment", settings);
        let effect =
            Effect { makes: Makes { environments: vec![environment], ..Makes::default() }, ..effect };
        let proposal = Proposal { target, changes, effect };
        self.submit(context, proposal).await
    }

    /// Changes parameters or lifetime, and the resources with them.
    pub(crate) async fn update_environment(
        &self,
        context: &ChangeContext,
        row: Environment,
        etag: &str,
        wanted: WantedEnvironment,
    ) -> Result<Answer> {
        if let Some(answer) = self.replayed(context).await? {
            return Ok(answer);
        }
        check_end(wanted.expiration, row.expire_time, self.db.now())?;
        check_etag(etag, etag_of(row.uid, row.revision))?;
        idle(&row)?;
        let ground = self.ground(context, &row.project).await?;
        let class = class_of(&ground, &row.class, false)?;
        let parameters = merged(&ground, &wanted.parameters)?;
        let section = section(&row.name, &class, &parameters);
        let artifact = match self.running_artifact(context, &row).await? {
            Some(artifact) => Some(artifact),
            None => self.newest_artifact(context, &row.project, &class).await?,
        };
        let facts = self.facts_for(context, &ground, section, artifact).await?;
        let changes = self.changes(&facts).await?;
        let settings = json!({
            // Whoever does not speak of the end leaves it where it is by then.
            "keeps_end": wanted.expiration == row.expire_time.map(Expiration::At),
            "ttl_seconds": wanted.expiration.and_then(Expiration::after),
            "expire_time": wanted.expiration.and_then(Expiration::at).map(pavior_store::micros),
            "display_name": wanted.display_name,
            "parameters": wanted.parameters,
        });
        let target = ground.changed(&row, parameters, Fate::Changed);
        let effect = Effect::new(Kind::UpdateEnvironment, "update environment", settings);
        let proposal = Proposal { target, changes, effect };
        self.submit(context, proposal).await
    }

    /// What the planner looks at for one section: also how what it is about stands now.
    pub(crate) async fn facts_for(
        &self,
        context: &ChangeContext,
        ground: &ProjectSnapshot,
        section: Section,
        artifact: Option<Value>,
    ) -> Result<Facts> {
        let facts = ground.facts(section, artifact);
        let (sights, matched) = futures::future::join(
            self.look(ground.planned(&facts)),
            self.matched(&context.permit, &ground.project.labels, &facts),
        )
        .await;
        Ok(Facts { matched: matched?, ..seen_as(facts, sights?) })
    }

    /// The same of what a project has itself, as far as it is not known to be as it is recorded: definitions are asked for
    /// that only.
    pub(super) async fn facts_to_repair(
        &self,
        context: &ChangeContext,
        ground: &ProjectSnapshot,
    ) -> Result<Facts> {
        let facts = ground.facts(ground.own_section(), None);
        let sights = self.look(ground.planned(&facts)).await?;
        let mut facts = seen_as(facts, sights);
        let recorded: BTreeSet<&str> = ground.rows.iter().map(|row| row.name.as_str()).collect();
        narrow(&mut facts, |name, _, standing| match standing {
            Some(standing) => *standing != Standing::AsRecorded,
            // What is not even recorded went with a deletion that was given up.
            None => !recorded.contains(name),
        });
        let matched = self.matched(&context.permit, &ground.project.labels, &facts).await?;
        Ok(Facts { matched, ..facts })
    }

    /// The artifact of the newest successful run, under the name that the class's workload wants.
    async fn newest_artifact(
        &self,
        context: &ChangeContext,
        project: &str,
        class: &EnvironmentClass,
    ) -> Result<Option<Value>> {
        let name = class.resources.iter().find_map(|wanted| wanted.artifact.clone()).unwrap_or_default();
        let run = self.db.newest_run(&context.permit, project).await?;
        Ok(run.and_then(|run| artifact_of_run(&run, &name)))
    }

    /// The artifact that runs in an environment.
    pub(crate) async fn running_artifact(
        &self,
        context: &ChangeContext,
        row: &Environment,
    ) -> Result<Option<Value>> {
        let deployment = self.db.running_deployment(&context.permit, &row.name).await?;
        Ok(deployment.map(|deployment| deployment.artifact))
    }
}

/// What is proposed of an environment that is to be made, but for its name and its parameters.
fn new_environment(ground: &ProjectSnapshot, class: String, made: Touched) -> Target {
    let project = &ground.project;
    let asked = Verb {
        subject: project_subject(project),
        environment_class: class,
        new_owner: project.owner.clone(),
    };
    let target = Target::new(project, project_subject(project), vec![made]);
    Target { template_version: ground.path.name.clone(), asked, ..target }
}

/// The facts with what the drivers say of what is there.
fn seen_as(mut facts: Facts, sights: BTreeMap<String, Sight>) -> Facts {
    for (name, sight) in sights {
        if let Some(current) = facts.current.get_mut(&name) {
            current.standing = sight.standing;
        }
    }
    facts
}

/// What an environment of a class consists of.
pub(super) fn section(name: &str, class: &EnvironmentClass, parameters: &Value) -> Section {
    Section {
        environment: Some(EnvironmentScope { name: name.to_owned(), class: class.class.clone() }),
        parameters: parameters.clone(),
        wanted: class.resources.clone(),
    }
}

impl ProjectSnapshot {
    /// What the planner looks at for one section, as it is recorded.
    fn facts(&self, section: Section, artifact: Option<Value>) -> Facts {
        Facts {
            project: ProjectScope { name: self.project.name.clone(), owner: self.project.owner.clone() },
            sections: vec![section],
            current: current(&self.rows),
            artifact,
            ..Facts::default()
        }
    }

    /// What is recorded of what is to be planned.
    fn planned(&self, facts: &Facts) -> Vec<ResourceRecord> {
        let of_section = |section: &Section| {
            let environment = section.environment.as_ref();
            let name = |wanted: &Wanted| resource_name(&facts.project, environment, &wanted.id);
            section.wanted.iter().map(name).collect::<Vec<_>>()
        };
        let planned: BTreeSet<String> = facts.sections.iter().flat_map(of_section).collect();
        let standing = self.rows.iter().filter(|row| row.state == ResourceState::Active);
        standing.filter(|row| planned.contains(&row.name)).map(ResourceRecord::from).collect()
    }

    /// What the project consists of besides its environments.
    fn own_section(&self) -> Section {
        Section {
            environment: None,
            parameters: self.project.parameters.clone(),
            wanted: self.path.template.project.clone(),
        }
    }

    /// What is proposed of an environment that there is.
    pub(super) fn changed(&self, row: &Environment, parameters: Value, fate: Fate) -> Target {
        Target {
            costs: costs_of(&self.rows, &row.name),
            template_version: self.path.name.clone(),
            parameters,
            ..Target::environment(&self.project, row, fate)
        }
    }
}

/// Refuses an environment that something works on.
pub(crate) fn idle(row: &Environment) -> Result<()> {
    if row.operation.is_empty() {
        return Ok(());
    }
    Err(Error::Busy { name: row.name.clone(), operation: row.operation.clone() })
}

pub(crate) fn costs_of(rows: &[Resource], environment: &str) -> Vec<String> {
    rows.iter().filter(|row| row.environment == environment).map(|row| row.monthly_cost.clone()).collect()
}

/// The class of a project's golden path; unknown ones are refused with those that there are.
pub(crate) fn class_of(ground: &ProjectSnapshot, class: &str, from_id: bool) -> Result<EnvironmentClass> {
    if let Some(found) = ground.path.template.environment(class) {
        return Ok(found.clone());
    }
    let known: Vec<String> =
        ground.path.template.environments.iter().map(|class| format!("`{}`", class.class)).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    let whence = if from_id { " (taken from the environment's id)" } else { "" };
    let message = format!("the golden path has no environment class `{class}`{whence}; it has {known}");
    Err(Problem::invalid_reason(
        ErrorReason::InvalidField,
        "environment.environment_class_id",
        Fault::Unknown,
        message,
    )
    .into())
}

/// The project's parameters with the environment's over them.
pub(crate) fn merged(ground: &ProjectSnapshot, own: &Value) -> Result<Value> {
    let mut all = ground.project.parameters.as_object().cloned().unwrap_or_default();
    for (key, value) in own.as_object().into_iter().flatten() {
        all.insert(key.clone(), value.clone());
    }
    let mut violations = Violations::new();
    let filled =
        parameters(&ground.path.schema, &Value::Object(all), "environment.parameters", &mut violations);
    violations.into_result()?;
    Ok(filled)
}

/// What depends on the time: asked once it is known that the request was not answered before. `kept` is when the environment
/// is taken down as things are, which may be any time.
fn check_end(wanted: Option<Expiration>, kept: Option<OffsetDateTime>, now: OffsetDateTime) -> Result<()> {
    let mut violations = Violations::new();
    match wanted {
        Some(Expiration::At(time)) if kept != Some(time) && time < now + MIN_TTL => {
            violations.add("environment.expire_time", Fault::OutOfRange, "is less than a minute from now");
        }
        Some(Expiration::At(time)) if kept != Some(time) && time > now + MAX_TTL => {
            violations.add("environment.expire_time", Fault::OutOfRange, "is more than 100 years from now");
        }
        _ => {}
    }
    Ok(violations.into_result()?)
}
