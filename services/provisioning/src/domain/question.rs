//! What policy is asked about a plan: the verb's own question, and for everything in the plan that is an action of its
//! own, the question that this action alone would be asked with. So nothing is done as a part of something else that may
//! not be done by itself.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::{Entry, owning_group};
use super::names;
use super::plan::{Action, Artifact, Change, Plan, Spec};

/// Makes an environment.
pub const CREATE_ENVIRONMENT: &str = "provisioning.environments.create";
/// Changes an environment.
pub const UPDATE_ENVIRONMENT: &str = "provisioning.environments.update";
/// Takes an environment down.
pub const DELETE_ENVIRONMENT: &str = "provisioning.environments.delete";
/// Runs a pipeline.
pub const RUN_PIPELINE: &str = "provisioning.pipelines.run";
/// Puts an artifact into an environment.
pub const DEPLOY: &str = "provisioning.deployments.create";
/// Puts what runs in one environment into another.
pub const PROMOTE: &str = "provisioning.deployments.promote";

/// Makes an entry of the catalog.
pub const CREATE_ENTITY: &str = "catalog.entities.create";
/// Changes an entry of the catalog.
pub const UPDATE_ENTITY: &str = "catalog.entities.update";
/// Removes an entry of the catalog.
pub const DELETE_ENTITY: &str = "catalog.entities.delete";

/// The kind of a project, as policy knows it.
pub const PROJECT: &str = "provisioning.pavior.dev/Project";
/// The kind of an environment.
pub const ENVIRONMENT: &str = "provisioning.pavior.dev/Environment";
/// The kind of a pipeline.
pub const PIPELINE: &str = "provisioning.pavior.dev/Pipeline";
/// The kind of an entry of the catalog.
pub const ENTITY: &str = "catalog.pavior.dev/Entity";
/// The kind of a kind of entries.
pub const KIND: &str = "catalog.pavior.dev/Kind";
/// The kind of an organization.
pub const ORGANIZATION: &str = "identity.pavior.dev/Organization";

/// Something that an action is done to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subject {
    /// Its resource name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Its owner; of what is yet to be made, the one that it will have.
    pub owner: String,
    /// Its project; empty outside projects.
    pub project: String,
    /// The class of its environment; empty outside environments.
    pub environment_class: String,
    /// Its labels, of an entry of the catalog. Within a project they are those of the project, and not kept here.
    pub labels: BTreeMap<String, String>,
}

impl Subject {
    /// An organization.
    pub fn organization(name: &str) -> Self {
        Self { name: name.to_owned(), kind: ORGANIZATION.to_owned(), ..Self::default() }
    }

    /// A project, existing or yet to be made.
    pub fn project(name: &str, owner: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: PROJECT.to_owned(),
            owner: owner.to_owned(),
            project: name.to_owned(),
            ..Self::default()
        }
    }

    /// An entry of the catalog.
    pub fn entity(name: &str, owner: &str, labels: BTreeMap<String, String>) -> Self {
        Self {
            name: name.to_owned(),
            kind: ENTITY.to_owned(),
            owner: owner.to_owned(),
            labels,
            ..Self::default()
        }
    }

    /// Something in this project.
    fn within(&self, name: &str, kind: &str, environment_class: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            environment_class: environment_class.to_owned(),
            ..self.clone()
        }
    }

    /// An environment of this project.
    pub fn environment(&self, name: &str, class: &str) -> Self {
        self.within(name, ENVIRONMENT, class)
    }

    /// A pipeline of this project.
    pub fn pipeline(&self, name: &str) -> Self {
        self.within(name, PIPELINE, "")
    }
}

/// What becomes of an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is made.
    Made,
    /// It is changed.
    Changed,
    /// It is removed.
    Removed,
    /// It stays as it is; something is put into it.
    Kept,
}

impl Fate {
    /// The action that would do this and nothing else.
    fn action(self) -> Option<&'static str> {
        match self {
            Self::Made => Some(CREATE_ENVIRONMENT),
            Self::Changed => Some(UPDATE_ENVIRONMENT),
            Self::Removed => Some(DELETE_ENVIRONMENT),
            Self::Kept => None,
        }
    }
}

/// An environment that a plan touches, whether or not it has resources that change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// Its resource name.
    pub name: String,
    /// Its class.
    pub class: String,
    /// The template version that it is made from.
    pub template_version: String,
    /// What becomes of it.
    pub fate: Fate,
}

impl Touched {
    /// One that is made.
    pub fn made(name: &str, class: &str, template_version: &str) -> Self {
        Self {
            name: name.to_owned(),
            class: class.to_owned(),
            template_version: template_version.to_owned(),
            fate: Fate::Made,
        }
    }
}

/// What a plan works on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ground {
    /// The project, as it is or as it will be.
    pub project: Subject,
    /// Every environment that the plan makes, changes or removes, or puts something into.
    pub environments: Vec<Touched>,
    /// The entries of the catalog that its changes are about and that there are, by resource name.
    pub entities: BTreeMap<String, Subject>,
}

impl Ground {
    /// Before anything is known of the catalog.
    pub fn new(project: Subject, environments: Vec<Touched>) -> Self {
        Self { project, environments, entities: BTreeMap::new() }
    }
}

/// One question. The parameters are the plan's; labels and owner are looked up when it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Question {
    /// The action.
    pub action: String,
    /// What it is done to.
    pub subject: Subject,
    /// The class of the environment that is meant; empty outside environments.
    pub environment_class: String,
    /// The template version.
    pub template_version: String,
    /// The owner of what is made; empty when nothing with an owner is made.
    pub new_owner: String,
    /// Whether the subject goes from the owner that it has to `new_owner`.
    pub moves_owner: bool,
    /// Resources created, updated, replaced and deleted by that part of the plan.
    pub counts: [usize; 4],
    /// Ids of the types of those resources.
    pub resource_types: Vec<String>,
}

impl Question {
    /// Whether it is about the catalog, and not about what this service owns.
    pub fn is_of_catalog(&self) -> bool {
        [CREATE_ENTITY, UPDATE_ENTITY, DELETE_ENTITY].contains(&self.action.as_str())
    }
}

/// An environment that changes although the plan is not about it: a mistake of ours, and never allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the plan changes `{0}`, about which nobody was asked")]
pub struct Unasked(pub String);

/// What the verb itself is asked with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verb {
    /// What the request names.
    pub subject: Subject,
    /// The class of the environment that is meant.
    pub environment_class: String,
    /// The owner of what is made.
    pub new_owner: String,
}

impl Verb {
    /// A verb that makes nothing with an owner.
    pub fn on(subject: Subject) -> Self {
        Self { environment_class: subject.environment_class.clone(), subject, new_owner: String::new() }
    }
}

/// Every question about a plan, the verb's own first. Each other one is exactly the question that its action would be
/// asked with, had somebody asked for it alone.
pub fn questions(plan: &Plan, verb: &Verb, ground: &Ground) -> Result<Vec<Question>, Unasked> {
    let all: Vec<&Change> = plan.steps().collect();
    let own = Question {
        action: plan.action.clone(),
        subject: verb.subject.clone(),
        environment_class: verb.environment_class.clone(),
        template_version: plan.template_version.clone(),
        new_owner: verb.new_owner.clone(),
        ..about(&all)
    };
    let mut questions = vec![own];
    for environment in &ground.environments {
        let within: Vec<&Change> =
            all.iter().copied().filter(|change| change.spec.environment == environment.name).collect();
        if let Some(action) = environment.fate.action()
            && !(plan.action == action && plan.target == environment.name)
        {
            questions.push(of_environment(action, environment, ground, &within));
        }
    }
    for change in &all {
        if change.action == Action::Run {
            let name = format!("{}/pipelines/{}", ground.project.name, names::last(&change.resource));
            if !(plan.action == RUN_PIPELINE && plan.target == name) {
                questions.push(Question {
                    action: RUN_PIPELINE.to_owned(),
                    subject: ground.project.pipeline(&name),
                    template_version: plan.template_version.clone(),
                    ..about(&[change])
                });
            }
        }
        if let Some(entry) = &change.entry {
            questions.extend(of_entry(entry, &ground.entities));
        }
        let name = &change.spec.environment;
        if name.is_empty() {
            continue;
        }
        let environment = ground.environments.iter().find(|environment| environment.name == *name);
        let environment = environment.ok_or_else(|| Unasked(name.clone()))?;
        if let Some(action) = deploys(change)
            && !(plan.action == action && plan.target == *name)
        {
            questions.push(Question {
                action: action.to_owned(),
                subject: ground.project.environment(name, &environment.class),
                environment_class: environment.class.clone(),
                template_version: environment.template_version.clone(),
                ..about(&[change])
            });
        }
    }
    Ok(questions)
}

/// The entries of the catalog that changes are about, by resource name.
pub fn entities<'a>(changes: impl Iterator<Item = &'a Change>) -> BTreeSet<&'a str> {
    let entries = changes.filter_map(|change| change.entry.as_ref());
    let names = entries.flat_map(|Entry { before, after, .. }| [before.as_str(), after.as_str()]);
    names.filter(|name| !name.is_empty()).collect()
}

/// The action that puts an artifact into an environment as this change does.
pub fn deploys(change: &Change) -> Option<&'static str> {
    let puts = matches!(change.action, Action::Create | Action::Update | Action::Replace);
    match (&change.spec.artifact, puts) {
        (Artifact::None, _) | (_, false) => None,
        _ if comes_from_elsewhere(&change.spec) => Some(PROMOTE),
        _ => Some(DEPLOY),
    }
}

/// Whether an artifact is taken from another environment. From an earlier deployment of the same one it is a way back.
fn comes_from_elsewhere(spec: &Spec) -> bool {
    !spec.source_deployment.is_empty() && names::environment_of(&spec.source_deployment) != spec.environment
}

/// What somebody is asked who changes the catalog as this entry does. One that is gone already is not removed.
fn of_entry(entry: &Entry, entities: &BTreeMap<String, Subject>) -> Vec<Question> {
    let Entry { before, after, owner } = entry;
    let mut questions = Vec::new();
    if let Some(gone) = entities.get(before).filter(|_| before != after) {
        questions.push(Question {
            action: DELETE_ENTITY.to_owned(),
            subject: gone.clone(),
            ..Question::default()
        });
    }
    if after.is_empty() {
        return questions;
    }
    let new_owner = owning_group(owner).to_owned();
    questions.push(match entities.get(after) {
        Some(there) => Question {
            action: UPDATE_ENTITY.to_owned(),
            moves_owner: there.owner != new_owner,
            subject: there.clone(),
            new_owner,
            ..Question::default()
        },
        None => Question {
            action: CREATE_ENTITY.to_owned(),
            subject: Subject {
                name: names::parent(after).to_owned(),
                kind: KIND.to_owned(),
                ..Subject::default()
            },
            new_owner,
            ..Question::default()
        },
    });
    questions
}

fn of_environment(action: &str, environment: &Touched, ground: &Ground, within: &[&Change]) -> Question {
    let made = environment.fate == Fate::Made;
    Question {
        action: action.to_owned(),
        // Who makes an environment acts on the project.
        subject: match made {
            true => ground.project.clone(),
            false => ground.project.environment(&environment.name, &environment.class),
        },
        environment_class: environment.class.clone(),
        template_version: environment.template_version.clone(),
        new_owner: if made { ground.project.owner.clone() } else { String::new() },
        ..about(within)
    }
}

/// The figures of some changes.
fn about(changes: &[&Change]) -> Question {
    let count = |action| changes.iter().filter(|change| change.action == action).count();
    let types: BTreeSet<&str> = changes.iter().map(|change| names::last(&change.resource_type)).collect();
    Question {
        counts: [Action::Create, Action::Update, Action::Replace, Action::Delete].map(count),
        resource_types: types.into_iter().map(str::to_owned).collect(),
        ..Question::default()
    }
}

impl Plan {
    /// The ids of the decisions on it, in the order of its questions.
    pub fn decisions(&self) -> Vec<String> {
        self.answers.iter().map(|given| given.decision.clone()).collect()
    }

    /// The environments that it takes down, in order.
    pub fn removes(&self) -> BTreeSet<&str> {
        let removals = self.questions.iter().filter(|question| question.action == DELETE_ENVIRONMENT);
        removals.map(|question| question.subject.name.as_str()).collect()
    }
}

#[cfg(test)]
#[path = "question_tests.rs"]
mod tests;
