//! The plan: everything that is decided before anything happens.

use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::drift::Drift;
use super::entry::Entry;
use super::names;
use super::question::Question;
use super::state::named;

named! {
    /// What happens to a resource.
    Action {
        /// Nothing.
        Noop = "NOOP",
        /// It is made.
        Create = "CREATE",
        /// It is changed in place.
        Update = "UPDATE",
        /// It is taken down and made anew.
        Replace = "REPLACE",
        /// It is taken down.
        Delete = "DELETE",
        /// It does something.
        Run = "RUN",
    }
}

named! {
    /// What an operation is for; decides what becomes of its target at the end.
    Kind {
        /// Makes a project with the environments that come with it.
        CreateProject = "CREATE_PROJECT",
        /// Takes a project down.
        DestroyProject = "DESTROY_PROJECT",
        /// Makes an environment.
        CreateEnvironment = "CREATE_ENVIRONMENT",
        /// Changes an environment.
        UpdateEnvironment = "UPDATE_ENVIRONMENT",
        /// Takes an environment down.
        DestroyEnvironment = "DESTROY_ENVIRONMENT",
        /// Runs a pipeline.
        Run = "RUN",
        /// Puts an artifact into an environment.
        Deploy = "DEPLOY",
    }
}

impl Kind {
    /// Whether what it did can be undone. Deletions only go forward.
    pub fn reversible(self) -> bool {
        !matches!(self, Self::DestroyProject | Self::DestroyEnvironment)
    }
}

/// One field that changes.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldChange {
    /// Where in the inputs: a JSON Pointer.
    pub path: String,
    /// Before; absent when there was none.
    pub before: Option<Value>,
    /// After; absent when it goes away. What is known only once another step is done stands as its expression.
    pub after: Option<Value>,
}

/// Where a workload's artifact comes from.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Artifact {
    /// It uses none.
    #[default]
    None,
    /// Known while planning: the value of `artifact` in expressions.
    Known(Value),
    /// Made by a step of the same plan; the name in the pipeline, the first when empty.
    FromStep {
        /// The step.
        step: String,
        /// The artifact.
        name: String,
    },
}

/// What a step is told: everything that its execution needs, so that nothing is left to choose.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Spec {
    /// The id of the resource in its section.
    pub resource_id: String,
    /// The id of its type.
    pub type_id: String,
    /// The environment that it belongs to, by resource name; empty for the project's own.
    pub environment: String,
    /// Inputs of the template, with expressions.
    pub inputs: Value,
    /// Inputs of the definition, with expressions; win over the template's.
    pub driver_inputs: Value,
    /// `parameters`, `project` and `environment` of the expressions.
    pub scope: Value,
    /// The artifact.
    pub artifact: Artifact,
    /// Names of the outputs that are secret.
    pub secret_outputs: Vec<String>,
    /// For a run: the commit, branch or tag; the default branch when empty.
    pub revision: String,
    /// What the plan holds fast, laid over inputs or arguments; may refer to what an earlier step makes.
    pub pinned: Value,
    /// For a workload: the deployment that its artifact is taken from, by resource name.
    pub source_deployment: String,
}

impl Spec {
    /// Whether an artifact is put into it, which is a deployment.
    pub fn takes_artifact(&self) -> bool {
        !self.environment.is_empty() && self.artifact != Artifact::None
    }

    /// Whether it runs an environment's code: people find it where it answers.
    pub fn is_workload(&self) -> bool {
        self.takes_artifact() || (!self.environment.is_empty() && self.resource_id == names::WORKLOAD)
    }

    /// What a run is asked with, before what the plan holds fast is laid over it.
    pub fn arguments(&self) -> Value {
        let revision = &self.revision;
        let commit = (7..=64).contains(&revision.len())
            && revision.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match revision.as_str() {
            "" => json!({}),
            revision if commit => json!({ "commit": revision }),
            revision => json!({ "ref": revision }),
        }
    }
}

/// One resource that changes: one step of the operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The id of the step.
    pub step: String,
    /// The resource, by resource name.
    pub resource: String,
    /// Its type, by resource name.
    pub resource_type: String,
    /// The definition that makes it, by resource name.
    pub resource_definition: String,
    /// The id of the driver.
    pub driver: String,
    /// The version of the driver.
    pub driver_version: String,
    /// What happens to it.
    pub action: Action,
    /// The fields that change.
    pub fields: Vec<FieldChange>,
    /// The steps that come first.
    pub depends_on: Vec<String>,
    /// Whether it can be undone.
    pub undoable: bool,
    /// What it costs a month; empty when its definition does not say.
    pub monthly_cost: String,
    /// What its execution is told.
    pub spec: Spec,
    /// The entry of the catalog that it is, if it is one.
    pub entry: Option<Entry>,
    /// In what it is not as it is recorded: it is changed then although nothing else is asked of it.
    pub drift: Option<Drift>,
}

/// A change before its driver has answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// The change as far as it is known.
    pub change: Change,
    /// The inputs as far as they are known; none for a run.
    pub desired: Option<Value>,
    /// The inputs of the last apply; none when there was none.
    pub prior: Option<Value>,
}

impl Change {
    /// Whether something is done at all.
    pub fn is_step(&self) -> bool {
        self.action != Action::Noop
    }
}

/// The plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Its id.
    pub id: Uuid,
    /// The organization's id.
    pub organization: String,
    /// What it is for.
    pub kind: Kind,
    /// What is asked, for example `provisioning.environments.create`.
    pub action: String,
    /// What it is about, by resource name.
    pub target: String,
    /// The changes, in an order in which they can be made.
    pub changes: Vec<Change>,
    /// What the target costs a month now, as far as definitions say; empty when none does.
    pub monthly_cost_before: String,
    /// What it would cost a month, likewise.
    pub monthly_cost_after: String,
    /// The template version, by resource name.
    pub template_version: String,
    /// The parameters with defaults.
    pub parameters: Value,
    /// What else of the request is carried out with it: labels, owner, time to live and so on.
    pub settings: Value,
    /// Who asked, by resource name.
    pub requester: String,
    /// The person who had it kept, by resource name; empty for nobody.
    pub author: String,
    /// The plan in a sentence.
    pub summary: String,
    /// When it was made.
    pub create_time: OffsetDateTime,
    /// When it expires if it has not begun.
    pub expire_time: OffsetDateTime,
    /// SHA-256 over what decides, with its algorithm.
    pub digest: String,
    /// What policy is asked, the verb's own question first. What was approved is an answer to all of them.
    pub questions: Vec<Question>,
    /// What policy said to each, in the same order.
    pub answers: Vec<Given>,
    /// What policy said in all, in its JSON form.
    pub decision: Value,
}

/// An answer of policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The decision, by resource name.
    pub decision: String,
    /// What it says: `ALLOW`, `REQUIRE_APPROVAL` or `DENY`.
    pub effect: String,
}

impl Plan {
    /// The changes that are steps.
    pub fn steps(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.is_step())
    }

    /// The runs that nothing holds to a commit: what they will run is not known.
    pub fn unheld(&self) -> impl Iterator<Item = &Change> {
        let says = |value: &Value| value.get("commit").is_some();
        self.changes.iter().filter(move |change| {
            change.action == Action::Run && !says(&change.spec.pinned) && !says(&change.spec.arguments())
        })
    }

    /// How many changes are of this action.
    pub fn count(&self, action: Action) -> usize {
        self.changes.iter().filter(|change| change.action == action).count()
    }

    /// A sentence for people: `create 3, run 1`.
    pub fn summarize(&self, verb: &str) -> String {
        let counts: Vec<String> = Action::ALL
            .iter()
            .filter(|action| **action != Action::Noop && self.count(**action) > 0)
            .map(|action| format!("{} {}", action.as_str().to_lowercase(), self.count(*action)))
            .collect();
        let counts = if counts.is_empty() { "no resource changes".to_owned() } else { counts.join(", ") };
        format!("{verb} `{}`: {counts}", self.target)
    }
}
