use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::domain::drift::Drift;
use crate::domain::entry::Entry;
use crate::domain::facts::Current;
use crate::domain::scope::{EnvironmentScope, ProjectScope};
use crate::domain::template::Template;

fn content() -> Value {
    json!({
        "project": {
            "repository": { "type": "git-repository", "inputs": { "language": "${{ parameters.language }}" } },
            "pipeline": { "type": "ci-pipeline", "inputs": { "repository": "${{ resources.repository.path }}" } },
            "entry": { "type": "catalog-entity", "inputs": { "id": "${{ project.id }}" } }
        },
        "environments": { "development": {
            "create": "with_project",
            "resources": { "database": { "type": "sql-database", "inputs": {} } },
            "workload": { "inputs": {
                "command": ["${{ artifact.path }}"],
                "variables": { "URL": "${{ resources.database.url }}", "ENV": "${{ environment.id }}" }
            } }
        } }
    })
}

fn facts() -> Facts {
    let template = Template::parse(&content()).unwrap();
    let project = ProjectScope {
        name: "organizations/acme/projects/p".into(),
        owner: "organizations/acme/groups/g".into(),
    };
    let environment = EnvironmentScope {
        name: format!("{}/environments/development", project.name),
        class: "development".into(),
    };
    let parameters = json!({"language": "rust"});
    let sections = vec![
        Section { environment: None, parameters: parameters.clone(), wanted: template.project.clone() },
        Section {
            environment: Some(environment),
            parameters,
            wanted: template.environments[0].resources.clone(),
        },
    ];
    let mut matched = BTreeMap::new();
    for section in &sections {
        for wanted in &section.wanted {
            let name = resource_name(&project, section.environment.as_ref(), &wanted.id);
            matched.insert(
                name,
                Matched {
                    definition: format!("organizations/acme/resourceDefinitions/{}", wanted.type_id),
                    resource_type: format!("organizations/acme/resourceTypes/{}", wanted.type_id),
                    driver: "fake".into(),
                    driver_version: "1.0.0".into(),
                    monthly_cost: "1.00 USD".into(),
                    undoable: true,
                    driver_inputs: json!({}),
                    input_schema: json!({}),
                    ..Matched::default()
                },
            );
        }
    }
    Facts { project, sections, matched, ..Facts::default() }
}

fn show(drafts: &[Draft]) -> Vec<String> {
    drafts
        .iter()
        .map(|d| format!("{} {} <- {}", d.change.action, d.change.step, d.change.depends_on.join(",")))
        .collect()
}

/// As if every change of `drafts` had been carried out.
fn applied(facts: &mut Facts, drafts: &[Draft], outputs: &Value) {
    for draft in drafts.iter().filter(|draft| draft.change.action != Action::Run) {
        let mut outputs = outputs.clone();
        outputs["url"] = json!(format!("url-of-{}", draft.change.step));
        facts.current.insert(
            draft.change.resource.clone(),
            Current {
                made_by: facts.matched[&draft.change.resource].clone(),
                type_id: draft.change.spec.type_id.clone(),
                identity: String::new(),
                inputs: draft.desired.clone().unwrap_or_default(),
                outputs,
                depends_on: Vec::new(),
                standing: Standing::default(),
            },
        );
    }
}

#[test]
fn a_new_project_runs_its_pipeline_before_the_workload() {
    let drafts = draft(&facts()).unwrap();
    assert_eq!(
        show(&drafts),
        [
            "CREATE repository <- ",
            "CREATE pipeline <- repository",
            "CREATE entry <- ",
            "CREATE development.database <- ",
            "RUN pipeline:run <- pipeline",
            "CREATE development.workload <- development.database,pipeline:run",
        ]
    );
    assert_eq!(drafts[0].desired, Some(json!({"language": "rust"})));
    let workload = drafts.last().unwrap();
    let desired = workload.desired.as_ref().unwrap();
    assert_eq!(desired["variables"]["ENV"], "development");
    assert!(pavior_expr::is_unknown(&desired["variables"]["URL"]));
    assert_eq!(
        workload.change.spec.artifact,
        Artifact::FromStep { step: "pipeline:run".into(), name: String::new() }
    );
}

#[test]
fn nothing_changed_is_no_operation() {
    let mut facts = facts();
    facts.artifact = Some(json!({"path": "/a"}));
    let first = draft(&facts).unwrap();
    applied(&mut facts, &first, &json!({"path": "/repo"}));
    // What was recorded for the references holds the values that they had.
    for _ in 0..2 {
        let drafts = draft(&facts).unwrap();
        applied(&mut facts, &drafts, &json!({"path": "/repo"}));
    }
    let drafts = draft(&facts).unwrap();
    assert!(drafts.iter().all(|draft| draft.change.action == Action::Noop), "{:?}", show(&drafts));
}

#[test]
fn a_secret_of_a_resource_that_changes_is_not_known() {
    for input in ["${{ resources.database.password }}", "${{ resources.database }}"] {
        let mut facts = facts();
        facts.artifact = Some(json!({"path": "/a"}));
        for wanted in facts.sections[1].wanted.iter_mut().filter(|wanted| wanted.id == "workload") {
            wanted.inputs = json!({ "password": input });
        }
        let workload = resource_name(&facts.project, facts.sections[1].environment.as_ref(), "workload");
        for matched in facts.matched.values_mut() {
            matched.secret_inputs = vec!["/*".to_owned()];
        }
        let outputs = json!({ "path": "/repo", "password": { "$secret": "1/1/password" } });
        for _ in 0..2 {
            let drafts = draft(&facts).unwrap();
            applied(&mut facts, &drafts, &outputs);
        }
        let action = |facts: &Facts| {
            let drafts = draft(facts).unwrap();
            drafts.iter().find(|draft| draft.change.resource == workload).unwrap().change.action
        };
        assert_eq!(action(&facts), Action::Noop, "{input}");
        for wanted in facts.sections[1].wanted.iter_mut().filter(|wanted| wanted.id == "database") {
            wanted.inputs = json!({ "size": 2 });
        }
        assert_eq!(action(&facts), Action::Update, "{input}");
    }
}

#[test]
fn a_changed_resource_makes_its_dependents_unknown() {
    let mut facts = facts();
    facts.artifact = Some(json!({"path": "/a"}));
    for _ in 0..3 {
        let drafts = draft(&facts).unwrap();
        applied(&mut facts, &drafts, &json!({"path": "/repo"}));
    }
    facts
        .matched
        .get_mut("organizations/acme/projects/p/environments/development/resources/database")
        .unwrap()
        .driver_inputs = json!({"size": 2});
    let drafts: Vec<Draft> =
        draft(&facts).unwrap().into_iter().filter(|draft| draft.change.action != Action::Noop).collect();
    assert_eq!(
        show(&drafts),
        ["UPDATE development.database <- ", "UPDATE development.workload <- development.database"]
    );
}

const DATABASE: &str = "organizations/acme/projects/p/environments/development/resources/database";

/// Everything is made, and nothing else is asked for.
fn settled() -> Facts {
    let mut facts = facts();
    facts.artifact = Some(json!({"path": "/a"}));
    for _ in 0..3 {
        let drafts = draft(&facts).unwrap();
        applied(&mut facts, &drafts, &json!({"path": "/repo"}));
    }
    facts
}

/// The changes when every driver finds nothing to do about its inputs.
fn concluded(facts: &Facts) -> Vec<Change> {
    let drafts = draft(facts).unwrap();
    let answer = |_| Some(Answer { action: Action::Noop, fields: vec![], pinned: Value::Null });
    let answers = drafts.iter().map(answer).collect();
    conclude(drafts, answers)
}

#[test]
fn what_is_not_as_recorded_is_changed_and_what_needs_it_with_it() {
    for drift in Drift::ALL {
        let mut facts = settled();
        assert!(concluded(&facts).iter().all(|change| change.action == Action::Noop));
        facts.current.get_mut(DATABASE).unwrap().standing = Standing::Drifted(*drift);
        let changes = concluded(&facts);
        let done: Vec<_> = changes
            .iter()
            .filter(|change| change.action != Action::Noop)
            .map(|change| (change.step.as_str(), change.action, change.drift, change.depends_on.join(",")))
            .collect();
        let database = ("development.database", Action::Update, Some(*drift), String::new());
        let needs = ("development.workload", Action::Update, None, "development.database".to_owned());
        assert_eq!(done, [database, needs]);
    }
}

#[test]
fn that_there_is_nothing_to_do_is_not_said_of_what_nobody_saw() {
    let mut facts = settled();
    let blind = |facts: &Facts| -> Vec<String> {
        let changes = concluded(facts);
        untold(facts, &changes).map(|(change, why)| format!("{}: {why}", change.step)).collect()
    };
    assert_eq!(blind(&facts), Vec::<String>::new());
    facts.current.get_mut(DATABASE).unwrap().standing = Standing::Untold("away".to_owned());
    assert_eq!(blind(&facts), ["development.database: away"]);
    // What is changed anyway need not be seen.
    facts.matched.get_mut(DATABASE).unwrap().driver_inputs = json!({"size": 2});
    let drafts = draft(&facts).unwrap();
    let answer =
        |draft: &Draft| Some(Answer { action: draft.change.action, fields: vec![], pinned: Value::Null });
    let answers = drafts.iter().map(answer).collect();
    let changes = conclude(drafts, answers);
    assert_eq!(untold(&facts, &changes).count(), 0);
}

#[test]
fn an_artifact_without_a_pipeline_is_an_obstacle() {
    let mut facts = facts();
    facts.sections.remove(0);
    let obstacles = draft(&facts).unwrap_err();
    assert!(obstacles[0].description.contains("no resource of type `ci-pipeline`"), "{obstacles:?}");
}

#[test]
fn all_obstacles_are_named_at_once() {
    let mut facts = facts();
    facts.sections[0].parameters = json!({});
    let name = "organizations/acme/projects/p/environments/development/resources/database";
    facts.matched.get_mut(name).unwrap().input_schema = json!({"type": "object", "required": ["size"]});
    let fields: Vec<String> = draft(&facts).unwrap_err().into_iter().map(|obstacle| obstacle.field).collect();
    assert_eq!(
        fields,
        ["resources.repository.inputs.language", "resources.development.database.inputs.size"]
    );
}

#[test]
fn what_cannot_be_undone_stands_last() {
    let mut facts = facts();
    facts.matched.get_mut("organizations/acme/projects/p/resources/entry").unwrap().undoable = false;
    let drafts = draft(&facts).unwrap();
    assert_eq!(drafts.last().unwrap().change.step, "entry");
    assert_eq!(drafts.last().unwrap().change.depends_on.len(), 5);
}

#[test]
fn drivers_have_the_last_word_on_the_action() {
    let drafts = draft(&facts()).unwrap();
    let answers = drafts
        .iter()
        .map(|draft| {
            draft.desired.as_ref().map(|_| Answer {
                action: if draft.change.step == "entry" { Action::Noop } else { Action::Create },
                fields: vec![],
                pinned: json!({"held": draft.change.step}),
            })
        })
        .collect();
    let changes = conclude(drafts, answers);
    assert_eq!(changes.iter().filter(|change| change.action == Action::Create).count(), 4);
    assert_eq!(changes.iter().find(|change| change.step == "pipeline:run").unwrap().action, Action::Run);
    assert_eq!(
        changes[0].spec.pinned,
        json!({"held": changes[0].step}),
        "what the driver holds fast is kept"
    );
}

#[test]
fn a_run_of_a_new_repository_is_held_to_the_commit_that_its_step_makes() {
    let mut facts = facts();
    let run =
        |facts: &Facts| draft(facts).unwrap().into_iter().find(|draft| draft.desired.is_none()).unwrap();
    assert_eq!(run(&facts).change.spec.pinned, Value::Null, "nothing says what the commit is");
    let repository = facts.matched.iter_mut().find(|(name, _)| name.ends_with("/repository")).unwrap().1;
    repository.has_commit = true;
    let spec = run(&facts).change.spec;
    assert_eq!(spec.pinned, json!({"commit": "${{ resources.repository.commit }}"}));
    assert_eq!(spec.scope["project"]["name"], facts.project.name.as_str());
}

#[test]
fn a_secret_goes_where_its_driver_takes_one_and_nowhere_else() {
    let workload = "organizations/acme/projects/p/environments/development/resources/workload";
    let mut facts = facts();
    let names: Vec<String> = facts.matched.keys().cloned().collect();
    let workload = names.iter().find(|name| name.ends_with("/workload")).map_or(workload, String::as_str);
    let database = names.iter().find(|name| name.ends_with("/database")).unwrap();
    facts.matched.get_mut(database).unwrap().secret_outputs = vec!["url".into()];
    let fields = |facts: &Facts| -> Vec<String> {
        let obstacles = draft(facts).err().unwrap_or_default();
        obstacles.into_iter().map(|obstacle| obstacle.field).collect()
    };
    assert_eq!(fields(&facts), ["resources.development.workload.inputs.variables.URL"]);
    facts.matched.get_mut(workload).unwrap().secret_inputs = vec!["/variables".into()];
    assert_eq!(fields(&facts), Vec::<String>::new());
    // A definition does not lead it on to somewhere else.
    facts.matched.get_mut(workload).unwrap().driver_inputs =
        json!({"command": "${{ inputs.variables.URL }}"});
    assert_eq!(fields(&facts), ["resources.development.workload.inputs.command"]);
}

#[test]
fn what_nobody_could_read_again_is_not_planned() {
    let refused = |parameter: Value| -> Vec<String> {
        let mut facts = facts();
        for section in &mut facts.sections {
            section.parameters = json!({ "language": parameter });
        }
        let obstacles = draft(&facts).err().unwrap_or_default();
        obstacles
            .into_iter()
            .map(|Obstacle { field, fault: _, description }| format!("{field}: {description}"))
            .collect()
    };
    // One level more than the parameter has: it stands in an object of the inputs.
    let nested = |levels: u32| (0..levels).fold(json!(1), |value, _| json!([value]));
    assert_eq!(refused(nested(MAX_DEPTH - 1)), Vec::<String>::new());
    assert_eq!(refused(nested(MAX_DEPTH)), ["resources.repository.inputs: would nest deeper than 32 levels"]);
    let large = "x".repeat(MAX_INPUT_BYTES);
    let wanted = "template: all inputs together would have more than 2097152 bytes";
    let found = refused(json!([large]));
    assert_eq!(found, [wanted], "{} obstacles", found.len());
}

#[test]
fn an_entry_of_the_catalog_has_a_name_when_it_is_planned() {
    let name = "organizations/acme/projects/p/resources/entry";
    let found = |inputs: Value| {
        let mut facts = facts();
        let matched = facts.matched.get_mut(name).unwrap();
        (matched.driver, matched.driver_inputs) = (names::ENTITY_DRIVER.to_owned(), inputs);
        draft(&facts)
    };
    let owner = "organizations/acme/groups/g";
    let drafts = found(json!({ "kind": "component", "owner": owner })).unwrap();
    let entry = drafts.iter().find_map(|draft| draft.change.entry.clone()).unwrap();
    let after = "organizations/acme/kinds/component/entities/p".to_owned();
    assert_eq!(entry, Entry { before: String::new(), after, owner: owner.to_owned() });
    for (inputs, field) in [
        (json!({ "kind": "Component" }), "kind"),
        (json!({ "kind": "../x" }), "kind"),
        (json!({}), "kind"),
        (json!({ "kind": "component", "id": "A" }), "id"),
    ] {
        let obstacles = found(inputs.clone()).unwrap_err();
        let fields: Vec<&str> = obstacles.iter().map(|obstacle| obstacle.field.as_str()).collect();
        assert_eq!(fields, [format!("resources.entry.inputs.{field}")], "{inputs}");
    }
}
