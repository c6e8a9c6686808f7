use proptest::prelude::*;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::plan::{Kind, Spec};
use super::*;
use crate::domain::question::{CREATE_ENVIRONMENT, UPDATE_ENVIRONMENT};

const PROJECT_NAME: &str = "organizations/acme/projects/p";
const CLASSES: [&str; 3] = ["development", "staging", "production"];

/// What is asked of one environment.
#[derive(Debug, Clone)]
struct Part {
    class: &'static str,
    resources: usize,
    workload: Option<Artifact>,
}

impl Part {
    fn name(&self) -> String {
        format!("{PROJECT_NAME}/environments/{}", self.class)
    }

    fn touched(&self, fate: Fate) -> Touched {
        Touched {
            name: self.name(),
            class: self.class.to_owned(),
            template_version: "templates/t/versions/1".into(),
            fate,
        }
    }

    fn changes(&self, action: Action, from: &str) -> Vec<Change> {
        let mut changes: Vec<Change> = (0..self.resources)
            .map(|index| change(&self.name(), &format!("r{index}"), action, Artifact::None, ""))
            .collect();
        if let Some(artifact) = &self.workload {
            changes.push(change(&self.name(), "workload", action, artifact.clone(), from));
        }
        changes
    }
}

fn change(environment: &str, id: &str, action: Action, artifact: Artifact, from: &str) -> Change {
    let parent = if environment.is_empty() { PROJECT_NAME } else { environment };
    Change {
        step: id.into(),
        resource: format!("{parent}/resources/{id}"),
        resource_type: format!("organizations/acme/resourceTypes/{id}"),
        resource_definition: String::new(),
        driver: "fake".into(),
        driver_version: "1".into(),
        action,
        fields: vec![],
        depends_on: vec![],
        undoable: true,
        monthly_cost: String::new(),
        spec: Spec {
            environment: environment.into(),
            artifact,
            source_deployment: from.into(),
            ..Spec::default()
        },
        entry: None,
        drift: None,
    }
}

/// An entry of the catalog; what there is of it and what there will be, by id.
fn entry(before: &str, after: &str) -> Change {
    let named = |id: &str| match id {
        "" => String::new(),
        id => format!("organizations/acme/kinds/component/entities/{id}"),
    };
    let action = match (before, after) {
        ("", _) => Action::Create,
        (_, "") => Action::Delete,
        _ if before == after => Action::Update,
        _ => Action::Replace,
    };
    let entry = Entry { before: named(before), after: named(after), owner: project().owner };
    Change { entry: Some(entry), ..change("", "entry", action, Artifact::None, "") }
}

fn run() -> Change {
    change("", "pipeline", Action::Run, Artifact::None, "")
}

fn plan(kind: Kind, action: &str, target: &str, changes: Vec<Change>) -> Plan {
    Plan {
        id: Uuid::nil(),
        organization: "acme".into(),
        kind,
        action: action.into(),
        target: target.into(),
        changes,
        monthly_cost_before: String::new(),
        monthly_cost_after: String::new(),
        template_version: "templates/t/versions/1".into(),
        parameters: json!({}),
        settings: json!({}),
        requester: String::new(),
        author: String::new(),
        summary: String::new(),
        create_time: OffsetDateTime::UNIX_EPOCH,
        expire_time: OffsetDateTime::UNIX_EPOCH,
        digest: String::new(),
        questions: vec![],
        answers: vec![],
        decision: Value::Null,
    }
}

fn project() -> Subject {
    Subject::project(PROJECT_NAME, "organizations/acme/groups/payments")
}

fn ground(environments: Vec<Touched>) -> WorksOn {
    WorksOn::new(project(), environments)
}

fn on(part: &Part) -> Verb {
    Verb::on(project().environment(&part.name(), part.class))
}

/// What somebody is asked who does just this.
fn alone(plan: &Plan, verb: &Verb, ground: &WorksOn) -> Question {
    questions(plan, verb, ground).unwrap().remove(0)
}

fn creating_alone(part: &Part) -> Question {
    let verb = Verb { subject: project(), environment_class: part.class.into(), new_owner: project().owner };
    let plan =
        plan(Kind::CreateEnvironment, CREATE_ENVIRONMENT, &part.name(), part.changes(Action::Create, ""));
    alone(&plan, &verb, &ground(vec![part.touched(Fate::Made)]))
}

fn deleting_alone(part: &Part) -> Question {
    let plan =
        plan(Kind::DestroyEnvironment, DELETE_ENVIRONMENT, &part.name(), part.changes(Action::Delete, ""));
    alone(&plan, &on(part), &ground(vec![part.touched(Fate::Removed)]))
}

fn deploying_alone(part: &Part, action: Action, from: &str) -> Option<Question> {
    let artifact = part.workload.clone()?;
    let change = change(&part.name(), "workload", action, artifact, from);
    let verb = if from.is_empty() { DEPLOY } else { PROMOTE };
    let plan = plan(Kind::Deploy, verb, &part.name(), vec![change]);
    Some(alone(&plan, &on(part), &ground(vec![part.touched(Fate::Kept)])))
}

fn running_alone() -> Question {
    let name = format!("{PROJECT_NAME}/pipelines/pipeline");
    let plan = plan(Kind::Run, RUN_PIPELINE, &name, vec![run()]);
    alone(&plan, &Verb::on(project().pipeline(&name)), &ground(vec![]))
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let artifact = prop_oneof![
        Just(Artifact::Known(json!({"path": "a"}))),
        Just(Artifact::FromStep { step: "pipeline:run".into(), name: String::new() }),
    ];
    let part = (0..3_usize, proptest::option::of(artifact));
    (proptest::sample::subsequence(CLASSES.to_vec(), 0..=3), prop::collection::vec(part, 3)).prop_map(
        |(classes, parts)| {
            let both = classes.into_iter().zip(parts);
            both.map(|(class, (resources, workload))| Part { class, resources, workload }).collect()
        },
    )
}

/// A policy of no sense: how strong its answer is follows from every part of the question.
fn strength(question: &Question, seed: u64) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (format!("{question:?}"), seed).hash(&mut hasher);
    hasher.finish() % 3
}

/// Whatever policy says, it is never milder to the plan than to the acts that it is made of.
fn never_milder(asked: &[Question], acts: &[Question], seed: u64) -> Result<(), TestCaseError> {
    for act in acts {
        prop_assert!(asked.contains(act), "not asked: {act:#?}\nasked: {asked:#?}");
    }
    let strongest = |questions: &[Question]| questions.iter().map(|question| strength(question, seed)).max();
    prop_assert!(strongest(asked) >= strongest(acts));
    Ok(())
}

proptest! {
    #[test]
    fn making_a_project_is_never_milder_than_making_its_parts(
        parts in parts(), runs in any::<bool>(), seed in any::<u64>(),
    ) {
        let mut changes = vec![change("", "repository", Action::Create, Artifact::None, "")];
        changes.extend(runs.then(run));
        changes.extend(parts.iter().flat_map(|part| part.changes(Action::Create, "")));
        let plan = plan(Kind::CreateProject, "provisioning.projects.create", PROJECT_NAME, changes);
        let verb = Verb {
            subject: Subject::organization("organizations/acme"),
            environment_class: String::new(),
            new_owner: project().owner,
        };
        let ground = ground(parts.iter().map(|part| part.touched(Fate::Made)).collect());
        let asked = questions(&plan, &verb, &ground).unwrap();
        let mut acts: Vec<Question> = parts.iter().map(creating_alone).collect();
        acts.extend(parts.iter().filter_map(|part| deploying_alone(part, Action::Create, "")));
        acts.extend(runs.then(running_alone));
        never_milder(&asked, &acts, seed)?;
        prop_assert_eq!(asked.len(), acts.len() + 1, "nothing is asked twice");
        prop_assert_eq!(&asked[0].action, "provisioning.projects.create");
    }

    #[test]
    fn deleting_a_project_is_never_milder_than_deleting_its_environments(
        parts in parts(), seed in any::<u64>(),
    ) {
        let changes = parts.iter().flat_map(|part| part.changes(Action::Delete, "")).collect();
        let mut plan = plan(Kind::DestroyProject, "provisioning.projects.delete", PROJECT_NAME, changes);
        let ground = ground(parts.iter().map(|part| part.touched(Fate::Removed)).collect());
        let asked = questions(&plan, &Verb::on(project()), &ground).unwrap();
        let acts: Vec<Question> = parts.iter().map(deleting_alone).collect();
        never_milder(&asked, &acts, seed)?;
        prop_assert_eq!(asked.len(), acts.len() + 1);
        plan.questions = asked;
        let names: BTreeSet<String> = parts.iter().map(Part::name).collect();
        prop_assert_eq!(plan.removes(), names.iter().map(String::as_str).collect());
    }

    #[test]
    fn changing_an_environment_is_never_milder_than_what_it_comes_to(
        parts in parts(), runs in any::<bool>(), made in any::<bool>(), seed in any::<u64>(),
    ) {
        for part in &parts {
            let (kind, action, fate, what) = if made {
                (Kind::CreateEnvironment, CREATE_ENVIRONMENT, Fate::Made, Action::Create)
            } else {
                (Kind::UpdateEnvironment, UPDATE_ENVIRONMENT, Fate::Changed, Action::Update)
            };
            let mut changes: Vec<Change> = runs.then(run).into_iter().collect();
            changes.extend(part.changes(what, ""));
            let plan = plan(kind, action, &part.name(), changes);
            let asked = questions(&plan, &on(part), &ground(vec![part.touched(fate)])).unwrap();
            let mut acts: Vec<Question> = deploying_alone(part, what, "").into_iter().collect();
            acts.extend(runs.then(running_alone));
            never_milder(&asked, &acts, seed)?;
            prop_assert_eq!(asked.len(), acts.len() + 1);
        }
    }

    #[test]
    fn putting_an_artifact_somewhere_asks_one_thing(parts in parts(), whence in 0..3) {
        for part in &parts {
            let (verb, from) = match whence {
                0 => (DEPLOY, String::new()),
                // An earlier deployment of the same environment is a way back.
                1 => (DEPLOY, format!("{}/deployments/1", part.name())),
                _ => (PROMOTE, format!("{PROJECT_NAME}/environments/other/deployments/1")),
            };
            let plan = plan(Kind::Deploy, verb, &part.name(), part.changes(Action::Update, &from));
            let asked = questions(&plan, &on(part), &ground(vec![part.touched(Fate::Kept)])).unwrap();
            prop_assert_eq!(asked.len(), 1);
            prop_assert_eq!(asked[0].action.as_str(), verb);
        }
    }
}

#[test]
fn what_nobody_is_asked_about_is_not_planned() {
    let part = Part { class: "production", resources: 1, workload: None };
    let plan = plan(Kind::Deploy, DEPLOY, "somewhere/else", part.changes(Action::Update, ""));
    let refused = questions(&plan, &Verb::on(project()), &ground(vec![]));
    assert_eq!(refused, Err(Unasked(part.name())));
}

#[test]
fn a_deployment_that_goes_away_is_not_one_that_is_made() {
    let part = Part { class: "production", resources: 0, workload: Some(Artifact::Known(json!({}))) };
    let gone = part.changes(Action::Delete, "");
    assert_eq!(deploys(&gone[0]), None);
    let plan = plan(Kind::DestroyEnvironment, DELETE_ENVIRONMENT, &part.name(), gone);
    let asked = questions(&plan, &on(&part), &ground(vec![part.touched(Fate::Removed)])).unwrap();
    assert_eq!(asked.len(), 1);
}

#[test]
fn entries_of_the_catalog_are_asked_about_as_their_own_acts_are() {
    let owner = "organizations/acme/groups/search";
    let entity = |id: &str| {
        let labels = [("tier".to_owned(), "gold".to_owned())].into();
        Subject::entity(&format!("organizations/acme/kinds/component/entities/{id}"), owner, labels)
    };
    let there = |ids: &[&str]| -> BTreeMap<String, Subject> {
        ids.iter().map(|id| (entity(id).name.clone(), entity(id))).collect()
    };
    let asked = |change: Change, ids: &[&str]| {
        let plan = plan(Kind::CreateProject, "provisioning.projects.create", PROJECT_NAME, vec![change]);
        let ground = WorksOn { entities: there(ids), ..ground(vec![]) };
        questions(&plan, &Verb::on(project()), &ground).unwrap().split_off(1)
    };
    let created = Question {
        action: CREATE_ENTITY.into(),
        subject: Subject {
            name: "organizations/acme/kinds/component".into(),
            kind: KIND.into(),
            ..Subject::default()
        },
        new_owner: project().owner,
        ..Question::default()
    };
    let updated = Question {
        action: UPDATE_ENTITY.into(),
        subject: entity("a"),
        new_owner: project().owner,
        moves_owner: true,
        ..Question::default()
    };
    let deleted = Question { action: DELETE_ENTITY.into(), subject: entity("a"), ..Question::default() };
    assert_eq!(asked(entry("", "a"), &[]), std::slice::from_ref(&created));
    assert_eq!(
        asked(entry("", "a"), &["a"]),
        std::slice::from_ref(&updated),
        "one that is there is taken over"
    );
    assert_eq!(asked(entry("a", "a"), &["a"]), [updated]);
    assert_eq!(asked(entry("a", "a"), &[]), std::slice::from_ref(&created), "one that is gone is made anew");
    assert_eq!(asked(entry("a", "b"), &["a"]), [deleted.clone(), created]);
    assert_eq!(asked(entry("a", ""), &["a"]), [deleted]);
    assert_eq!(asked(entry("a", ""), &[]), []);
    // The one that is recorded is known by its uid, too: another of its name is not removed with it.
    let recorded = || entry("a#its-uid", "");
    assert_eq!(asked(recorded(), &["a", "a#another"]), []);
    assert_eq!(asked(recorded(), &["a", "a#its-uid"]).len(), 1);
}
