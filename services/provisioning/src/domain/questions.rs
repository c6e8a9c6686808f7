//! What policy is asked about a plan: the verb's own question, and for everything in the plan that is an action of its
//! own, the question that this action alone would be asked with. So nothing is done as a part of something else that may
//! not be done by itself.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::{Entry, owning_group};
use super::names;
use super::plan::{Action, Artifact, Change, Plan, Spec};
use super::question::{
    CREATE_ENTITY, DELETE_ENTITY, DELETE_ENVIRONMENT, DEPLOY, Fate, KIND, PROMOTE, Question, RUN_PIPELINE,
    Subject, Touched, UPDATE_ENTITY, Unasked, Verb, WorksOn,
};

/// Every question about a plan, the verb's own first. Each other one is exactly the question that its action would be
/// asked with, had somebody asked for it alone.
pub fn questions(plan: &Plan, verb: &Verb, ground: &WorksOn) -> Result<Vec<Question>, Unasked> {
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
    let names = entries.flat_map(|Entry { before, after, .. }| [names::entity_of(before).0, after.as_str()]);
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

/// What somebody is asked who changes the catalog as this entry does. One that is gone already is not removed, and another
/// that has its name by now is not it.
fn of_entry(entry: &Entry, entities: &BTreeMap<String, Subject>) -> Vec<Question> {
    let Entry { before, after, owner } = entry;
    let mut questions = Vec::new();
    if let Some(gone) = entities.get(before).filter(|_| names::entity_of(before).0 != after) {
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

fn of_environment(action: &str, environment: &Touched, ground: &WorksOn, within: &[&Change]) -> Question {
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
#[path = "questions_tests.rs"]
mod tests;
