//! Who may do what in the organization of the starter kit.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use pavior::serve::DEV_OPERATOR;
use pavior_gateway::RouteTable;
use pavior_proto::pavior::platform::v1::ListAllowedActionsRequest;
use pavior_tests::{Embedded, Person};

use crate::golden;

const FILE: &str = "authorization.txt";
/// The columns. `nobody` has a valid token and stands in no directory.
const PERSONAS: [&str; 6] = ["alice", "bob", "vera", "nobody", "pia", DEV_OPERATOR];
/// Whose rights may grow with the platform: those who look after it.
const UNBOUND: [&str; 2] = ["pia", DEV_OPERATOR];
const PROJECT: &str = "matrix";

/// The actions that there are, by resource.
type Actions = BTreeMap<String, BTreeSet<String>>;
/// Resource, action and persona of everything that is allowed.
type Grants = BTreeSet<(String, String, String)>;

#[tokio::test(flavor = "multi_thread")]
async fn authorization_matrix() -> Result<()> {
    let system = Embedded::start().await?;
    system.person("alice")?.create_project(PROJECT).await?;
    let asked = actions()?;
    let mut grants = Grants::new();
    for persona in PERSONAS {
        let person = system.person(persona)?;
        for resource in asked.keys() {
            for action in allowed(&person, resource).await? {
                grants.insert((resource.clone(), action, persona.to_owned()));
            }
        }
    }
    system.stop().await?;
    let text = render(&asked, &grants);
    if let Some(before) = golden::read(FILE) {
        let grown = grown(&before, &grants);
        ensure!(
            grown.is_empty(),
            "somebody may do more than tests/golden/{FILE} says:\n  {}\n\
             This is a security list: it may only shrink for everybody but {}, and UPDATE_GOLDEN=1 does not make it \
             grow.\nIf more is truly wanted, write it into the file by hand, so that a review sees it.",
            grown.join("\n  "),
            UNBOUND.join(" and ")
        );
    }
    golden::assert_same(FILE, &text);
    Ok(())
}

async fn allowed(person: &Person, resource: &str) -> Result<Vec<String>> {
    let request = ListAllowedActionsRequest { resource: resource.to_owned() };
    let answer = person.platform().list_allowed_actions(request).await;
    let answer = answer.with_context(|| format!("asking about `{resource}`"))?.into_inner();
    Ok(answer.actions.into_iter().chain(answer.planned_actions).collect())
}

/// Every action that a method of the API names, by a resource of each kind that it can be done to: the project, its
/// environments, and otherwise one that does not exist, for which its nearest ancestor stands.
fn actions() -> Result<Actions> {
    let table = RouteTable::build(pavior_proto::DESCRIPTORS)?;
    let names = table.methods().flat_map(|method| &method.patterns).flat_map(|pattern| {
        let name = pattern.replace("{organization}", "acme").replace("{project}", PROJECT);
        let classes = ["development", "production"];
        classes.map(|class| fill(&name.replace("{environment}", class)))
    });
    // The audit service knows no facts about a single record or tile, and without them nobody can be answered.
    let names = names.filter(|name| !name.contains("/auditRecords/") && !name.contains("/auditTiles/"));
    Ok(names.map(|name| (name.clone(), table.actions_on(&name).into_iter().collect())).collect())
}

/// A pattern with `any` for the ids that it leaves open.
fn fill(pattern: &str) -> String {
    let parts = pattern.split('/').map(|part| if part.starts_with('{') { "any" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

fn render(asked: &Actions, grants: &Grants) -> String {
    let mut text = format!(
        "# Who may do what. It may only shrink, except for {}: see matrix.rs.\n",
        UNBOUND.join(" and ")
    );
    for (resource, actions) in asked {
        let told = grants.iter().filter(|(of, _, _)| of == resource).map(|(_, action, _)| action);
        let _ = writeln!(text, "\n{resource}");
        for action in actions.iter().chain(told).collect::<BTreeSet<_>>() {
            let may =
                |persona: &&str| grants.contains(&(resource.clone(), action.clone(), (*persona).to_owned()));
            let who: Vec<&str> = PERSONAS.into_iter().filter(may).collect();
            let who = if who.is_empty() { "-".to_owned() } else { who.join(" ") };
            let _ = writeln!(text, "  {action}: {who}");
        }
    }
    text
}

/// The grants of a rendered matrix.
fn parse(text: &str) -> Grants {
    let mut grants = Grants::new();
    let mut resource = "";
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.trim_start().split_once(": ") {
            Some((action, who)) if line.starts_with(' ') => grants.extend(
                who.split_whitespace()
                    .filter(|persona| *persona != "-")
                    .map(|persona| (resource.to_owned(), action.to_owned(), persona.to_owned())),
            ),
            _ => resource = line,
        }
    }
    grants
}

/// What is allowed and was not, to people whose rights must not grow unseen.
fn grown(before: &str, now: &Grants) -> Vec<String> {
    let before = parse(before);
    now.difference(&before)
        .filter(|(_, _, persona)| !UNBOUND.contains(&persona.as_str()))
        .map(|(resource, action, persona)| format!("{persona}: {action} on {resource}"))
        .collect()
}

#[test]
fn a_right_that_is_new_is_found_and_one_that_is_gone_is_not() {
    let resource = "organizations/acme".to_owned();
    let grant = |action: &str, persona: &str| (resource.clone(), action.to_owned(), persona.to_owned());
    let before: Grants = [grant("x.things.get", "alice"), grant("x.things.get", "bob")].into();
    let asked = Actions::from([(resource.clone(), BTreeSet::from(["x.things.delete".to_owned()]))]);
    let text = render(&asked, &before);
    assert!(
        text.contains("  x.things.get: alice bob\n") && text.contains("  x.things.delete: -\n"),
        "{text}"
    );
    assert_eq!(parse(&text), before);
    let shrunk: Grants = [grant("x.things.get", "alice")].into();
    assert_eq!(grown(&text, &shrunk), Vec::<String>::new());
    let more: Grants = [grant("x.things.delete", "nobody"), grant("x.things.delete", "pia")].into();
    assert_eq!(grown(&text, &more), ["nobody: x.things.delete on organizations/acme"]);
}
