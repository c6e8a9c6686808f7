//! The plan: everything that is decided before anything happens.

use pavior_core::digest::{canonical_json, sha256_digest};
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::drift::Drift;
use super::entry::Entry;
use super::form::{Form, Unreadable, form, member};
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
        /// Makes anew what a project has itself.
        RepairProject = "REPAIR_PROJECT",
        /// Takes a project down.
        DestroyProject = "DESTROY_PROJECT",
        /// Makes an environment.
        CreateEnvironment = "CREATE_ENVIRONMENT",
        /// Changes an environment.
        UpdateEnvironment = "UPDATE_ENVIRONMENT",
        /// Takes an environment down.
        DestroyEnvironment = "DESTROY_ENVIRONMENT",
        /// Removes something that a driver has and no resource declares.
        DeleteOrphan = "DELETE_ORPHAN",
        /// Runs a pipeline.
        Run = "RUN",
        /// Puts an artifact into an environment.
        Deploy = "DEPLOY",
    }
}

impl Kind {
    /// Whether what it did can be undone. Deletions only go forward.
    pub fn reversible(self) -> bool {
        !matches!(self, Self::DestroyProject | Self::DestroyEnvironment | Self::DeleteOrphan)
    }

    /// Whether what it works on is its own while people are asked about it. What mends or removes one thing beside others
    /// keeps nobody from those for as long as people take: it takes what it needs when it begins.
    pub fn holds_while_asked(self) -> bool {
        !matches!(self, Self::RepairProject | Self::DeleteOrphan)
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

form!(FieldChange { path; omit before, after });

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

impl Form for Artifact {
    fn to_json(&self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Known(value) => json!({ "known": value }),
            Self::FromStep { step, name } => json!({ "step": step, "name": name }),
        }
    }

    fn from_json(json: &Value) -> Result<Self, Unreadable> {
        Ok(match json.get("known") {
            _ if json.is_null() => Self::None,
            Some(known) => Self::Known(known.clone()),
            None => Self::FromStep { step: member(json, "step")?, name: member(json, "name")? },
        })
    }
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

form!(Spec {
    resource_id, type_id, environment, inputs, driver_inputs, scope, artifact, secret_outputs, revision,
    source_deployment; omit pinned
});

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

form!(Change {
    step, resource, resource_type, resource_definition, driver, driver_version, action, fields, depends_on, undoable,
    monthly_cost, spec; omit entry, drift
});

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

form!(Plan {
    id,
    organization,
    kind,
    action,
    target,
    changes,
    monthly_cost_before,
    monthly_cost_after,
    template_version,
    parameters,
    settings,
    requester,
    author,
    summary,
    create_time,
    expire_time,
    digest,
    questions,
    answers,
    decision
});

/// What does not decide what is done: who asked, when, and what policy said.
const NOT_DECIDING: [&str; 10] = [
    "id",
    "organization",
    "requester",
    "author",
    "summary",
    "create_time",
    "expire_time",
    "digest",
    "answers",
    "decision",
];

/// An answer of policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The decision, by resource name.
    pub decision: String,
    /// What it says: `ALLOW`, `REQUIRE_APPROVAL` or `DENY`.
    pub effect: String,
}

form!(Given { decision, effect });

impl Plan {
    /// The project that it is carried out in. What nobody declares is no project's: neither are those who look after it in
    /// charge.
    pub fn project(&self) -> String {
        match self.kind {
            Kind::DeleteOrphan => String::new(),
            _ => names::project_of(&self.target),
        }
    }

    /// The digest over what decides what is done.
    pub fn compute_digest(&self) -> String {
        let mut json = self.to_json();
        if let Value::Object(map) = &mut json {
            map.retain(|key, _| !NOT_DECIDING.contains(&key.as_str()));
        }
        sha256_digest(&canonical_json(&json))
    }

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

#[cfg(test)]
mod tests {
    use super::super::question::Subject;
    use super::*;

    pub(crate) fn sample() -> Plan {
        let spec = Spec {
            resource_id: "db".into(),
            type_id: "sql-database".into(),
            inputs: json!({"name": "${{ project.id }}"}),
            driver_inputs: json!({}),
            scope: json!({"project": {"id": "p"}}),
            artifact: Artifact::FromStep { step: "pipeline:run".into(), name: String::new() },
            ..Spec::default()
        };
        let mut plan = Plan {
            id: Uuid::from_u128(1),
            organization: "acme".into(),
            kind: Kind::CreateProject,
            action: "provisioning.projects.create".into(),
            target: "organizations/acme/projects/p".into(),
            changes: vec![Change {
                step: "db".into(),
                resource: "organizations/acme/projects/p/resources/db".into(),
                resource_type: "organizations/acme/resourceTypes/sql-database".into(),
                resource_definition: "organizations/acme/resourceDefinitions/x".into(),
                driver: "fake".into(),
                driver_version: "1.0.0".into(),
                action: Action::Create,
                fields: vec![FieldChange { path: "name".into(), before: None, after: Some(json!("p")) }],
                depends_on: vec![],
                undoable: true,
                monthly_cost: "1.50 USD".into(),
                spec,
                entry: None,
                drift: None,
            }],
            monthly_cost_before: String::new(),
            monthly_cost_after: "1.50 USD".into(),
            template_version: String::new(),
            parameters: json!({"b": 1, "a": 2}),
            settings: json!({}),
            requester: "organizations/acme/users/alice".into(),
            author: "organizations/acme/users/carol".into(),
            summary: "s".into(),
            create_time: time::macros::datetime!(2026-01-01 00:00:00.123456 UTC),
            expire_time: time::macros::datetime!(2026-01-02 00:00 UTC),
            digest: String::new(),
            questions: vec![],
            answers: vec![],
            decision: Value::Null,
        };
        plan.digest = plan.compute_digest();
        plan
    }

    fn question() -> Question {
        Question {
            action: "provisioning.environments.delete".into(),
            subject: Subject::project("organizations/acme/projects/p", "organizations/acme/groups/g"),
            environment_class: "production".into(),
            template_version: "t".into(),
            new_owner: "o".into(),
            moves_owner: true,
            counts: [1, 2, 3, 4],
            resource_types: vec!["sql-database".into()],
        }
    }

    #[test]
    fn a_plan_reads_back_as_it_was() {
        let plan = sample();
        assert_eq!(Plan::from_json(&plan.to_json()).unwrap(), plan);
        let mut asked = plan;
        let labels = [("tier".to_owned(), "gold".to_owned())].into();
        let entity = Subject::entity("organizations/acme/kinds/component/entities/p", "", labels);
        asked.questions = vec![question(), Question { subject: entity, ..Question::default() }];
        let owner = "organizations/acme/groups/g".to_owned();
        asked.changes[0].entry = Some(Entry { before: "b".into(), after: "a".into(), owner });
        asked.answers = vec![Given { decision: "d".into(), effect: "ALLOW".into() }];
        asked.changes[0].spec.pinned = json!({"commit": "c"});
        asked.changes[0].drift = Some(Drift::Broken);
        assert_eq!(Plan::from_json(&asked.to_json()).unwrap(), asked);
        assert_eq!(Plan::from_json(&json!({})), Err(Unreadable("id")));
        let mut json = asked.to_json();
        json["changes"][0]["undoable"] = Value::Null;
        assert_eq!(Plan::from_json(&json), Err(Unreadable("undoable")));
    }

    #[test]
    fn the_digest_covers_what_decides_and_nothing_else() {
        let plan = sample();
        let mut same = plan.clone();
        same.id = Uuid::from_u128(2);
        same.requester = "organizations/acme/users/bob".into();
        same.parameters = json!({"a": 2, "b": 1});
        assert_eq!(same.compute_digest(), plan.digest);
        type Tweak = fn(&mut Plan);
        let changes: [Tweak; 8] = [
            |plan| plan.changes[0].drift = Some(Drift::Gone),
            |plan| plan.questions = vec![question()],
            |plan| plan.changes[0].spec.pinned = json!({}),
            |plan| plan.target.push('x'),
            |plan| plan.parameters = json!({}),
            |plan| plan.changes[0].spec.inputs = json!({}),
            |plan| plan.changes[0].undoable = false,
            |plan| plan.changes[0].spec.artifact = Artifact::None,
        ];
        for change in changes {
            let mut other = plan.clone();
            change(&mut other);
            assert_ne!(other.compute_digest(), plan.digest);
        }
    }

    #[test]
    fn the_digest_of_a_recorded_plan_does_not_change() {
        // Approvals are bound to it: a change of its form voids what people have said.
        assert_eq!(
            sample().digest,
            "sha256:8f7cf87f6ae5c6f9e7180df04ccf69dfadd0725b9a40fc09df3b092f9f85803d"
        );
    }
}
