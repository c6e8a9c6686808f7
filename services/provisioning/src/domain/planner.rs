//! The pure planner: what is asked, what matches and what is recorded go in, changes come out.
//!
//! In two halves, because drivers have a say: [`draft`] decides order, dependencies and inputs as far as they are
//! known; each driver then answers what its apply would do; [`conclude`] makes the changes of both.

mod inputs;

use pavior_core::Fault;
use std::collections::BTreeSet;

use pavior_core::value::{MAX_DEPTH, deeper_than};
use pavior_expr::Reference;
use serde_json::{Value, json};

use super::drift::Standing;
use super::facts::{Facts, Matched, Section, holds_unknown, resource_name};
use super::finality::late_where_final;
use super::plan::{Action, Artifact, Change, Draft, FieldChange, Spec};
use super::scope::{self, Outputs};
use super::teardown::step_id;
use super::template::Wanted;
use super::{entry, graph, names, taint};

/// Most bytes of the inputs of one plan, as JSON: a plan is kept, shown and recorded as a whole.
const MAX_INPUT_BYTES: usize = 2 << 20;

/// Something that keeps the plan from being made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// Where: `resources.<step>.inputs.<path>` or so.
    pub field: String,
    /// What, for programs.
    pub fault: Fault,
    /// What.
    pub description: String,
}

/// What a driver's plan says.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What its apply would do.
    pub action: Action,
    /// The fields that change.
    pub fields: Vec<FieldChange>,
    /// What has to be held fast, so that exactly this is carried out.
    pub pinned: Value,
}

struct Node<'a> {
    name: String,
    step: String,
    section: &'a Section,
    wanted: &'a Wanted,
    needs: Vec<String>,
    needs_artifact: bool,
}

/// The first half.
pub fn draft(facts: &Facts) -> Result<Vec<Draft>, Vec<Obstacle>> {
    let mut obstacles = Vec::new();
    let nodes = nodes(facts, &mut obstacles);
    let run = run_change(facts, &nodes, &mut obstacles);
    let mut names: Vec<String> = nodes.iter().map(|node| node.step.clone()).collect();
    let mut needs: Vec<Vec<String>> = nodes.iter().map(|node| node.needs.clone()).collect();
    if let Some(run) = &run {
        for (node, needs) in nodes.iter().zip(&mut needs) {
            if node.needs_artifact {
                needs.push(run.step.clone());
            }
        }
        names.push(run.step.clone());
        needs.push(run.depends_on.clone());
    }
    let order = graph::topological(&names, &needs).unwrap_or_else(|cycle| {
        obstacles.push(Obstacle {
            field: "template".into(),
            fault: Fault::Cycle,
            description: cycle.to_string(),
        });
        Vec::new()
    });
    let mut drafts = Vec::new();
    let mut changing = BTreeSet::new();
    let mut bytes = 0;
    for index in order {
        let made = match nodes.get(index) {
            Some(node) => one(facts, node, &changing, run.as_ref(), &mut obstacles),
            None => run.clone().map(|change| Draft { change, desired: None, prior: None }),
        };
        let Some(mut made) = made else {
            // What could not be planned is not known to those that need it, and not blamed on them.
            changing.extend(names.get(index).cloned());
            continue;
        };
        bytes += made.desired.as_ref().map_or(0, |inputs| inputs.to_string().len());
        if bytes > MAX_INPUT_BYTES {
            let description = format!("all inputs together would have more than {MAX_INPUT_BYTES} bytes");
            obstacles.push(Obstacle { field: "template".into(), fault: Fault::TooLong, description });
            break;
        }
        if let Some(needs) = needs.get(index) {
            made.change.depends_on = needs.iter().filter(|step| changing.contains(*step)).cloned().collect();
        }
        if made.change.action != Action::Noop {
            changing.insert(made.change.step.clone());
        }
        drafts.push(made);
    }
    if obstacles.is_empty() { Ok(late_where_final(drafts)) } else { Err(obstacles) }
}

fn nodes<'a>(facts: &'a Facts, obstacles: &mut Vec<Obstacle>) -> Vec<Node<'a>> {
    let mut nodes = Vec::new();
    for section in &facts.sections {
        for wanted in &section.wanted {
            let name = resource_name(&facts.project, section.environment.as_ref(), &wanted.id);
            let step = step_id(&name);
            let references = pavior_expr::references(&wanted.inputs).unwrap_or_else(|error| {
                let field = join(&format!("resources.{step}.inputs"), &error.path);
                obstacles.push(Obstacle { field, fault: Fault::Syntax, description: error.message });
                Vec::new()
            });
            let mut needs: Vec<String> = references
                .iter()
                .filter_map(|reference| referenced(facts, section, reference))
                .map(|name| step_id(&name))
                .collect();
            needs.dedup();
            let needs_artifact = references.iter().any(|reference| reference.root() == "artifact");
            nodes.push(Node { name, step, section, wanted, needs, needs_artifact });
        }
    }
    nodes
}

/// The resource that a reference reads, by resource name.
fn referenced(facts: &Facts, section: &Section, reference: &Reference) -> Option<String> {
    match (reference.root(), reference.segment(1), reference.segment(2)) {
        ("resources", Some(id), _) => Some(resource_name(&facts.project, section.environment.as_ref(), id)),
        ("project", Some("resources"), Some(id)) => Some(resource_name(&facts.project, None, id)),
        _ => None,
    }
}

fn run_change(facts: &Facts, nodes: &[Node<'_>], obstacles: &mut Vec<Obstacle>) -> Option<Change> {
    if facts.artifact.is_some() || !nodes.iter().any(|node| node.needs_artifact) {
        return None;
    }
    let planned = nodes
        .iter()
        .find(|node| node.section.environment.is_none() && node.wanted.type_id == names::PIPELINE_TYPE);
    if let Some(node) = planned {
        let matched = facts.matched.get(&node.name)?;
        let mut change = run(&node.name, matched, "", vec![node.step.clone()]);
        change.spec.scope = scope::base(&node.section.parameters, &facts.project, None);
        change.spec.pinned = commit_made_before(facts, nodes, node);
        return Some(change);
    }
    let recorded = facts.current.iter().find(|(name, current)| {
        names::environment_of(name).is_empty() && current.type_id == names::PIPELINE_TYPE
    });
    if recorded.is_none() {
        obstacles.push(Obstacle {
            field: "template".into(),
            fault: Fault::NotFound,
            description: format!(
                "the workload needs an artifact, but the project has no resource of type `{}`",
                names::PIPELINE_TYPE
            ),
        });
    }
    recorded.map(|(name, current)| run(name, &current.made_by, "", Vec::new()))
}

/// A repository that the same plan makes has no commit yet: the run is held to the one that its step makes, whatever is
/// pushed before the run begins.
fn commit_made_before(facts: &Facts, nodes: &[Node<'_>], pipeline: &Node<'_>) -> Value {
    let has_commit =
        |node: &&Node<'_>| facts.matched.get(&node.name).is_some_and(|made_by| made_by.has_commit);
    let mut sources = nodes.iter().filter(|node| pipeline.needs.contains(&node.step)).filter(has_commit);
    match (sources.next(), sources.next()) {
        (Some(source), None) => {
            json!({ "commit": format!("${{{{ resources.{}.commit }}}}", source.wanted.id) })
        }
        _ => Value::Null,
    }
}

/// The step that runs a pipeline.
pub fn run(resource: &str, made_by: &Matched, revision: &str, depends_on: Vec<String>) -> Change {
    Change {
        step: format!("{}:run", names::last(resource)),
        resource: resource.to_owned(),
        resource_type: made_by.resource_type.clone(),
        resource_definition: made_by.definition.clone(),
        driver: made_by.driver.clone(),
        driver_version: made_by.driver_version.clone(),
        action: Action::Run,
        fields: Vec::new(),
        depends_on,
        // A run leaves nothing that would have to go.
        undoable: true,
        monthly_cost: String::new(),
        spec: Spec {
            resource_id: names::last(resource).to_owned(),
            type_id: names::last(&made_by.resource_type).to_owned(),
            revision: revision.to_owned(),
            ..Spec::default()
        },
        entry: None,
        drift: None,
    }
}

fn one(
    facts: &Facts,
    node: &Node<'_>,
    changing: &BTreeSet<String>,
    run: Option<&Change>,
    obstacles: &mut Vec<Obstacle>,
) -> Option<Draft> {
    let field = format!("resources.{}", node.step);
    let matched = facts.matched.get(&node.name)?;
    let base = scope::base(&node.section.parameters, &facts.project, node.section.environment.as_ref());
    let desired = inputs::desired(facts, node, matched, &base, changing, run, obstacles)?;
    let current = facts.current.get(&node.name);
    if let Some(current) = current.filter(|current| current.made_by.driver != matched.driver) {
        obstacles.push(Obstacle {
            field,
            fault: Fault::Conflict,
            description: format!(
                "it was made by driver `{}`, and `{}` would be used now: delete it first",
                current.made_by.driver, matched.driver
            ),
        });
        return None;
    }
    let entry = match entry::planned(&facts.project, matched, current, &desired) {
        Ok(entry) => entry,
        Err((path, description)) => {
            let field = format!("{field}.inputs.{path}");
            // What may not be there at all is not asked to be known.
            if obstacles.iter().all(|obstacle| obstacle.field != field) {
                obstacles.push(Obstacle { field, fault: Fault::Conflict, description });
            }
            None
        }
    };
    let drift = current.and_then(|current| current.standing.drift());
    let action = match current {
        None => Action::Create,
        Some(current) if current.inputs == desired && !holds_unknown(&desired) && drift.is_none() => {
            Action::Noop
        }
        Some(_) => Action::Update,
    };
    let change = Change {
        step: node.step.clone(),
        resource: node.name.clone(),
        resource_type: matched.resource_type.clone(),
        resource_definition: matched.definition.clone(),
        driver: matched.driver.clone(),
        driver_version: matched.driver_version.clone(),
        action,
        fields: Vec::new(),
        depends_on: Vec::new(),
        undoable: matched.undoable,
        monthly_cost: matched.monthly_cost.clone(),
        spec: spec(facts, node, matched, base, run),
        entry,
        drift,
    };
    Some(Draft { change, desired: Some(desired), prior: current.map(|current| current.inputs.clone()) })
}

/// What carrying it out needs.
fn spec(facts: &Facts, node: &Node<'_>, matched: &Matched, base: Value, run: Option<&Change>) -> Spec {
    Spec {
        resource_id: node.wanted.id.clone(),
        type_id: node.wanted.type_id.clone(),
        environment: node.section.environment.as_ref().map(|e| e.name.clone()).unwrap_or_default(),
        inputs: node.wanted.inputs.clone(),
        driver_inputs: matched.driver_inputs.clone(),
        scope: base,
        artifact: match (node.needs_artifact, &facts.artifact, run) {
            (true, Some(known), _) => Artifact::Known(known.clone()),
            (true, None, Some(run)) => Artifact::FromStep {
                step: run.step.clone(),
                name: node.wanted.artifact.clone().unwrap_or_default(),
            },
            _ => Artifact::None,
        },
        secret_outputs: matched.secret_outputs.clone(),
        revision: String::new(),
        source_deployment: if node.needs_artifact { facts.source_deployment.clone() } else { String::new() },
        pinned: Value::Null,
    }
}

/// Whether a reference of a section reads a secret, or something that a secret is in.
fn reads_secret(facts: &Facts, section: &Section, reference: &Reference) -> bool {
    let holds = |name: &str, output: Option<&str>| {
        let made =
            facts.matched.get(name).map(|made_by| made_by.secret_outputs.as_slice()).unwrap_or_default();
        let recorded = facts.current.get(name).and_then(|current| current.outputs.as_object());
        let recorded = recorded.into_iter().flatten().filter(|(_, value)| pavior_expr::is_secret(value));
        let mut secrets = made.iter().map(String::as_str).chain(recorded.map(|(name, _)| name.as_str()));
        match output {
            Some(output) => secrets.any(|secret| secret == output),
            None => secrets.next().is_some(),
        }
    };
    if let Some(name) = referenced(facts, section, reference) {
        let output = if reference.root() == "project" { reference.segment(3) } else { reference.segment(2) };
        return holds(&name, output);
    }
    // A reference to all resources reads the secrets of each.
    let all = match (reference.root(), reference.segment(1)) {
        ("resources", None) | ("project", None) => true,
        ("project", Some(part)) => part == "resources",
        _ => false,
    };
    all && facts.matched.keys().chain(facts.current.keys()).any(|name| holds(name, None))
}

fn known_outputs(facts: &Facts, section: &Section) -> Outputs {
    let mut outputs = Outputs::default();
    let environment = section.environment.as_ref().map(|e| e.name.as_str()).unwrap_or_default();
    for (name, current) in &facts.current {
        let id = names::last(name).to_owned();
        let owner = names::environment_of(name);
        if owner == environment {
            outputs.section.insert(id.clone(), current.outputs.clone());
        }
        if owner.is_empty() {
            outputs.project.insert(id, current.outputs.clone());
        }
    }
    outputs
}

/// The second half: `answers` are those of the drivers, in the order of the drafts; none for a run.
pub fn conclude(drafts: Vec<Draft>, answers: Vec<Option<Answer>>) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::with_capacity(drafts.len());
    for (draft, answer) in drafts.into_iter().zip(answers) {
        let mut change = draft.change;
        if let Some(answer) = answer {
            // A value that becomes known later may still change it, so unknown inputs are never nothing.
            let unknown = draft.desired.as_ref().is_some_and(holds_unknown);
            // What is not as it is recorded is changed, whatever the driver would make of what is recorded.
            let needed = unknown || change.drift.is_some();
            change.action = match (change.action, answer.action) {
                (Action::Update, Action::Noop) if needed => Action::Update,
                (Action::Run, _) => Action::Run,
                (_, action) => action,
            };
            change.fields = answer.fields;
            change.spec.pinned = answer.pinned;
        }
        changes.push(change);
    }
    let steps: BTreeSet<String> =
        changes.iter().filter(|c| c.action != Action::Noop).map(|c| c.step.clone()).collect();
    for change in &mut changes {
        change.depends_on.retain(|step| steps.contains(step));
    }
    changes
}

/// The changes that nothing is to be done about although nobody has seen that this is so, with the reason.
pub fn untold<'a>(facts: &'a Facts, changes: &'a [Change]) -> impl Iterator<Item = (&'a Change, &'a str)> {
    changes.iter().filter(|change| change.action == Action::Noop).filter_map(|change| {
        match &facts.current.get(&change.resource)?.standing {
            Standing::Untold(why) => Some((change, why.as_str())),
            Standing::AsRecorded | Standing::Drifted(_) => None,
        }
    })
}

fn join(prefix: &str, path: &str) -> String {
    if path.is_empty() { prefix.to_owned() } else { format!("{prefix}.{path}") }
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
