//! From what is asked to the changes: facts from catalog and store, the pure planner, and the drivers' say.

use pavior_core::{Fault, pointer};
use std::collections::{BTreeMap, HashMap};

use futures::future::join_all;
use pavior_auth::Permit;
use pavior_driver::{FailureCode, PinRequest, PlanAction, PlanRequest, Prior, Undo, ValidateRequest};
use pavior_expr::schema;
use pavior_proto::google::r#type::Money;
use pavior_proto::pavior::catalog::v1::match_resource_definitions_request::Context;
use pavior_proto::pavior::catalog::v1::match_resource_definitions_response::Match;
use pavior_rpc::{ErrorReason, Problem, Violations, convert};
use serde_json::{Value, json};

use super::App;
use super::drift::refuse_held;
use crate::domain::drift::Standing;
use crate::domain::facts::{Current, Facts, Matched, Section, resource_name};
use crate::domain::names::{self, ENTITY_DRIVER};
use crate::domain::plan::{Action, Change, Draft, FieldChange};
use crate::domain::planner::{self, Answer, Obstacle};
use crate::domain::resource::{Resource, ResourceState};
use crate::domain::template::{Template, Wanted};
use crate::domain::{scope, teardown};
use crate::error::{Error, Result};
use crate::store::ResourceRecord;

/// A golden path, read.
#[derive(Debug, Clone)]
pub(crate) struct GoldenPath {
    /// The version, by resource name; never a channel.
    pub(crate) name: String,
    /// Schema of its parameters.
    pub(crate) schema: Value,
    /// Its sections.
    pub(crate) template: Template,
}

impl App {
    /// Reads a golden path.
    pub(crate) async fn golden_path(&self, permit: &Permit, name: &str) -> Result<GoldenPath> {
        let version = self.peers.template_version(permit, name).await?;
        let content = version.content.as_ref().map(convert::from_struct).unwrap_or_default();
        let template = Template::parse(&content).map_err(|error| Error::Corrupt(error.to_string()))?;
        let schema = schema_of(&version.parameter_schema_json)?;
        Ok(GoldenPath { name: version.name, schema, template })
    }

    /// The definitions for everything that is wanted.
    pub(crate) async fn matched(
        &self,
        permit: &Permit,
        labels: &BTreeMap<String, String>,
        facts: &Facts,
    ) -> Result<BTreeMap<String, Matched>> {
        let labels: HashMap<String, String> = labels.clone().into_iter().collect();
        let organization = format!("organizations/{}", permit.organization());
        let mut wanted = Vec::new();
        let mut contexts = Vec::new();
        for section in &facts.sections {
            for one in &section.wanted {
                let environment = section.environment.as_ref();
                wanted.push((resource_name(&facts.project, environment, &one.id), one.type_id.clone()));
                contexts.push(Context {
                    resource_type: format!("{organization}/resourceTypes/{}", one.type_id),
                    resource_id: one.id.clone(),
                    project: facts.project.name.clone(),
                    environment_class_id: environment.map(|e| e.class.clone()).unwrap_or_default(),
                    project_labels: labels.clone(),
                });
            }
        }
        let mut matched = BTreeMap::new();
        let mut missing = Vec::new();
        for chunk in 0..contexts.len().div_ceil(500) {
            let range = chunk * 500..((chunk + 1) * 500).min(contexts.len());
            let asked = contexts.get(range.clone()).unwrap_or_default().to_vec();
            let answers = self.peers.matches(permit, asked).await?;
            for ((name, type_id), answer) in wanted.get(range).unwrap_or_default().iter().zip(answers) {
                match self.matched_one(&organization, type_id, answer)? {
                    Some(one) => drop(matched.insert(name.clone(), one)),
                    None => missing.push((name.clone(), type_id.clone())),
                }
            }
        }
        if missing.is_empty() {
            return Ok(matched);
        }
        let message = "no resource definition matches everything that is asked for";
        let mut problem = Problem::precondition(ErrorReason::NoMatchingDefinition, message);
        for (name, type_id) in missing {
            let what = format!("no definition makes `{type_id}` here: the platform team can add one");
            problem = problem.because("REFERENCE", name, what);
        }
        Err(problem.into())
    }

    fn matched_one(&self, organization: &str, type_id: &str, answer: Match) -> Result<Option<Matched>> {
        let kind = answer.resource_type.unwrap_or_default();
        let json = |value: &Option<prost_types::Struct>| value.as_ref().map(convert::from_struct);
        let definition = match answer.resource_definition {
            Some(definition) => definition,
            None if type_id == ENTITY_DRIVER => Default::default(),
            None => return Ok(None),
        };
        let driver = if definition.driver_id.is_empty() {
            ENTITY_DRIVER.to_owned()
        } else {
            definition.driver_id.clone()
        };
        let drivers = self.engine.drivers();
        let Some(info) = drivers.get(&driver).map(|driver| driver.info()) else {
            if drivers.awaits() {
                let message = format!("driver `{driver}` is not there now");
                return Err(Problem::unavailable(message).with("dependency", driver).into());
            }
            let message =
                format!("driver `{driver}` of `{}` is not part of this installation", definition.name);
            return Err(Problem::precondition(ErrorReason::NotConfigured, message)
                .because(
                    "STATE",
                    definition.name,
                    "the operator can add the driver, or another definition can be used",
                )
                .into());
        };
        let schema = info.resource_type(type_id);
        let mut driver_inputs = json(&definition.driver_inputs).unwrap_or_else(|| json!({}));
        if driver == ENTITY_DRIVER {
            driver_inputs = scope::merge(json!({ "owner": "${{ project.owner }}" }), driver_inputs);
        }
        let mut secret_outputs = kind.secret_outputs;
        secret_outputs.extend(info.secret_outputs(type_id));
        secret_outputs.sort();
        secret_outputs.dedup();
        Ok(Some(Matched {
            definition: definition.name,
            resource_type: format!("{organization}/resourceTypes/{type_id}"),
            driver,
            driver_version: info.version.clone(),
            driver_inputs,
            monthly_cost: cost_of(definition.monthly_cost.as_ref())?,
            input_schema: schema_of(&kind.input_schema_json)?,
            secret_outputs,
            secret_inputs: info.secret_inputs(type_id).to_vec(),
            undoable: schema.is_none_or(|schema| schema.undo == Undo::Destroy),
            has_commit: schema.is_some_and(|schema| schema.outputs.pointer("/properties/commit").is_some()),
        }))
    }

    /// The changes that make the facts so, after every driver has had its say.
    pub(crate) async fn changes(&self, facts: &Facts) -> Result<Vec<Change>> {
        let drafts = planner::draft(facts).map_err(refused)?;
        let organization = names::organization_of(&facts.project.name);
        let answers = join_all(drafts.iter().map(|draft| self.driver_answer(organization, draft))).await;
        let mut concluded = Vec::with_capacity(answers.len());
        let mut violations = Violations::new();
        for answer in answers {
            match answer {
                Ok(answer) => concluded.push(answer),
                Err(obstacles) => {
                    concluded.push(None);
                    obstacles.into_iter().for_each(|o| violations.add(o.field, o.fault, o.description));
                }
            }
        }
        violations.into_result()?;
        let mut changes = planner::conclude(drafts, concluded);
        self.refuse_replacements(organization, facts, &changes).await?;
        if let Some((change, why)) = planner::untold(facts, &changes).next() {
            let (driver, step) = (&change.driver, &change.step);
            let message =
                format!("driver `{driver}` does not say whether `{step}` is as it is recorded: {why}");
            return Err(Problem::unavailable(message).with("dependency", driver.clone()).into());
        }
        for change in changes.iter_mut().filter(|change| change.action == Action::Run) {
            if let Some(pipeline) = facts.current.get(&change.resource) {
                self.pin_run(organization, &pipeline.identity, change).await?;
            }
        }
        Ok(changes)
    }

    /// To replace is to destroy: what others need stays as it is.
    async fn refuse_replacements(&self, organization: &str, facts: &Facts, changes: &[Change]) -> Result<()> {
        let replaced =
            changes.iter().filter(|change| change.action == Action::Replace).filter_map(|change| {
                let current = facts.current.get(&change.resource)?;
                Some(ResourceRecord {
                    driver: current.made_by.driver.clone(),
                    identity: current.identity.clone(),
                    name: change.resource.clone(),
                    organization: organization.to_owned(),
                    type_id: current.type_id.clone(),
                    state: ResourceState::Active,
                    inputs: current.inputs.clone(),
                    sealed_inputs: String::new(),
                })
            });
        let holds = self.holds(replaced.collect()).await?;
        refuse_held(&teardown::held(&[], &holds))
    }

    /// Holds a run of a pipeline that exists to the commit that its revision is now.
    pub(crate) async fn pin_run(
        &self,
        organization: &str,
        identity: &str,
        change: &mut Change,
    ) -> Result<()> {
        let Some(driver) = self.engine.drivers().get(&change.driver) else {
            let message = format!("driver `{}` is not there", change.driver);
            return Err(Problem::unavailable(message).into());
        };
        let request = PinRequest {
            organization: organization.to_owned(),
            resource_type: change.spec.type_id.clone(),
            action: Some((identity.to_owned(), "run".to_owned())),
            inputs: change.spec.arguments(),
        };
        change.spec.pinned = driver.pin(request).await.map_err(|failure| match failure.code {
            FailureCode::InvalidArgument => {
                Problem::invalid_field("revision", Fault::NotFound, failure.message)
            }
            FailureCode::Unavailable | FailureCode::Internal | FailureCode::Timeout => {
                Problem::unavailable(failure.message)
            }
            _ => Problem::precondition(ErrorReason::InvalidState, failure.message),
        })?;
        Ok(())
    }

    async fn driver_answer(
        &self,
        organization: &str,
        draft: &Draft,
    ) -> std::result::Result<Option<Answer>, Vec<Obstacle>> {
        let Some(desired) = &draft.desired else { return Ok(None) };
        let change = &draft.change;
        let field = format!("resources.{}.inputs", change.step);
        let obstacle = |description: String| {
            vec![Obstacle { field: field.clone(), fault: Fault::Conflict, description }]
        };
        let Some(driver) = self.engine.drivers().get(&change.driver) else {
            return Err(obstacle(format!("driver `{}` is not there", change.driver)));
        };
        let resource_type = change.spec.type_id.clone();
        let validate = |inputs: Value| ValidateRequest { resource_type: resource_type.clone(), inputs };
        let desired = driver.validate(validate(desired.clone())).await.map_err(|violations| {
            let join = |path: &str| if path.is_empty() { field.clone() } else { format!("{field}.{path}") };
            violations
                .into_iter()
                .map(|v| Obstacle {
                    field: join(&pointer::dotted(&v.path)),
                    fault: Fault::Schema,
                    description: v.message,
                })
                .collect::<Vec<_>>()
        })?;
        let pin = PinRequest {
            organization: organization.to_owned(),
            resource_type: resource_type.clone(),
            action: None,
            inputs: desired.clone(),
        };
        let pinned = driver.pin(pin).await.map_err(|failure| obstacle(failure.message))?;
        let desired = scope::merge(desired, pinned.clone());
        let prior = match &draft.prior {
            // Recorded inputs get the same defaults, so that a default is no change.
            Some(prior) => {
                Some(driver.validate(validate(prior.clone())).await.unwrap_or_else(|_| prior.clone()))
            }
            None => None,
        };
        let prior = prior.map(|inputs| Prior { inputs, ..Prior::default() });
        let request = PlanRequest { resource_type, prior, desired: Some(desired) };
        let plan = driver.plan(request).await.map_err(|failure| obstacle(failure.message))?;
        let action = match plan.action {
            PlanAction::Noop => Action::Noop,
            PlanAction::Create => Action::Create,
            PlanAction::Update => Action::Update,
            PlanAction::Replace => Action::Replace,
            PlanAction::Delete => {
                return Err(obstacle("the driver would remove what is asked for".to_owned()));
            }
        };
        let fields = plan
            .diff
            .into_iter()
            .map(|field| FieldChange { path: field.path, before: field.before, after: field.after })
            .collect();
        Ok(Some(Answer { action, fields, pinned }))
    }
}

/// The parameters with defaults; every violation with its path below `prefix`.
pub(crate) fn parameters(schema: &Value, given: &Value, prefix: &str, violations: &mut Violations) -> Value {
    if let Some(at) = pavior_expr::marker_path(given) {
        let path = if at.is_empty() { prefix.to_owned() } else { format!("{prefix}.{at}") };
        violations.add(
            path,
            Fault::Reserved,
            "must not have a key `$secret` or `$unknown`: only the platform makes those",
        );
        return given.clone();
    }
    let filled = schema::with_defaults(schema, given);
    for violation in schema::validate(schema, &filled) {
        let path = if violation.path.is_empty() {
            prefix.to_owned()
        } else {
            format!("{prefix}.{}", violation.path)
        };
        violations.add(path, Fault::Schema, violation.message);
    }
    filled
}

fn refused(obstacles: Vec<Obstacle>) -> Error {
    let mut violations = Violations::new();
    obstacles
        .into_iter()
        .for_each(|obstacle| violations.add(obstacle.field, obstacle.fault, obstacle.description));
    Problem::invalid(violations.into_vec()).into()
}

/// What exists, as the planner looks at it.
pub(crate) fn current(rows: &[Resource]) -> BTreeMap<String, Current> {
    let standing = rows.iter().filter(|row| row.state == ResourceState::Active);
    standing
        .map(|row| {
            let made_by = Matched {
                definition: row.resource_definition.clone(),
                resource_type: row.resource_type.clone(),
                driver: row.driver.clone(),
                driver_version: row.driver_version.clone(),
                monthly_cost: row.monthly_cost.clone(),
                undoable: row.undoable,
                ..Matched::default()
            };
            let current = Current {
                made_by,
                type_id: row.type_id.clone(),
                identity: row.identity.clone(),
                inputs: row.inputs.clone(),
                outputs: row.outputs.clone(),
                depends_on: Vec::new(),
                standing: Standing::default(),
            };
            (row.name.clone(), current)
        })
        .collect()
}

/// What is recorded, as a teardown looks at it.
pub(crate) fn recorded(rows: Vec<Resource>) -> Vec<teardown::Recorded> {
    rows.into_iter()
        .map(|row| teardown::Recorded {
            name: row.name,
            resource_type: row.resource_type,
            resource_definition: row.resource_definition,
            driver: row.driver,
            driver_version: row.driver_version,
            depends_on: row.depends_on,
            monthly_cost: row.monthly_cost,
            spec: row.spec,
            identity: row.identity,
        })
        .collect()
}

/// Leaves of what is wanted what is to be planned: `keep` is told its name and how it stands, which is nothing where
/// nothing is recorded of it, or an operation works on it.
pub(crate) fn narrow(facts: &mut Facts, keep: impl Fn(&str, &Wanted, Option<&Standing>) -> bool) {
    let Facts { project, sections, current, .. } = facts;
    for Section { environment, wanted, parameters: _ } in sections {
        wanted.retain(|wanted| {
            let name = resource_name(project, environment.as_ref(), &wanted.id);
            keep(&name, wanted, current.get(&name).map(|current| &current.standing))
        });
    }
}

/// A schema as the catalog writes it; empty for one that allows everything.
fn schema_of(text: &str) -> Result<Value> {
    match text {
        "" => Ok(json!({})),
        text => serde_json::from_str(text).map_err(|error| Error::Corrupt(format!("a schema: {error}"))),
    }
}

/// A cost as the plan has it: empty where the definition does not say.
fn cost_of(cost: Option<&Money>) -> Result<String> {
    let cost = cost.map(|cost| convert::from_money(cost).map(|cost| cost.to_string())).transpose();
    Ok(cost.map_err(|error| Error::Corrupt(format!("a cost {error}")))?.unwrap_or_default())
}
