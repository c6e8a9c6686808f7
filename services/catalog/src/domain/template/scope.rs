//! The names that expressions may use, and the circles that they make.

use pavior_core::Fault;
use std::collections::{BTreeMap, BTreeSet};

use pavior_expr::Reference;

use crate::domain::violation_path as join;
use crate::domain::{Violations, text};
use crate::json::Json;

const PROJECT: [&str; 4] = ["id", "name", "owner", "organization"];
const ENVIRONMENT: [&str; 3] = ["id", "name", "class"];
const ARTIFACT: [&str; 6] = ["name", "path", "sha256", "commit", "run", "version"];

/// The outputs that each resource lists; `None` for one that says nothing about its outputs.
type Outputs = BTreeMap<String, Option<BTreeSet<String>>>;

/// What can be named in one place of a document.
pub(super) struct Names<'a> {
    /// `None` when the schema lists no properties.
    pub(super) parameters: Option<&'a BTreeSet<String>>,
    /// The resources of the same section.
    pub(super) resources: Outputs,
    /// The project's resources, where they can be named.
    pub(super) project_resources: Option<Outputs>,
    pub(super) environment: bool,
    pub(super) artifact: bool,
}

/// Every reference with the dotted path of the text that it stands in. Texts that do not parse are left out.
pub(crate) fn references_with_paths(value: &Json) -> Vec<(String, Reference)> {
    let mut found = Vec::new();
    walk(value, "", &mut found);
    found
}

fn walk(value: &Json, path: &str, found: &mut Vec<(String, Reference)>) {
    match value {
        Json::String(text) if text.contains("${{") => {
            let references = pavior_expr::references(value).unwrap_or_default();
            found.extend(references.into_iter().map(|reference| (path.to_owned(), reference)));
        }
        Json::Array(items) => {
            items.iter().enumerate().for_each(|(i, item)| walk(item, &join(path, &i.to_string()), found));
        }
        Json::Object(map) => map.iter().for_each(|(key, item)| walk(item, &join(path, key), found)),
        _ => {}
    }
}

impl Names<'_> {
    /// Checks every expression of some inputs.
    pub(super) fn check(&self, inputs: Option<&Json>, path: &str, violations: &mut Violations) {
        for (at, reference) in inputs.map(references_with_paths).unwrap_or_default() {
            if let Err(problem) = self.problem(&reference) {
                violations.add(join(path, &at), Fault::Unknown, problem);
            }
        }
    }

    fn problem(&self, reference: &Reference) -> Result<(), String> {
        let second = reference.segment(1);
        match reference.root() {
            "parameters" => match (second, self.parameters) {
                (None, _) => Ok(()),
                (Some(name), Some(known)) if known.contains(name) => Ok(()),
                (Some(name), _) => Err(format!("`{name}` is not a parameter of the template")),
            },
            "project" => self.project(reference, second),
            "environment" if self.environment => attribute(reference, second, &ENVIRONMENT),
            "environment" => Err("`environment` is known only inside environments".to_owned()),
            "artifact" if self.artifact => attribute(reference, second, &ARTIFACT),
            "artifact" => Err("`artifact` is known only in a workload".to_owned()),
            "resources" => output(reference, 1, &self.resources),
            other => {
                let mut names = vec!["parameters", "project", "resources"];
                names.extend(self.environment.then_some("environment"));
                names.extend(self.artifact.then_some("artifact"));
                let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
                Err(format!("`{}` is not known here; there are {}", text::shown(other), names.join(", ")))
            }
        }
    }

    fn project(&self, reference: &Reference, second: Option<&str>) -> Result<(), String> {
        match (second, &self.project_resources) {
            (Some("resources"), Some(resources)) => output(reference, 2, resources),
            (Some("resources"), None) => {
                Err("`project.resources` is known only inside environments; here it is `resources`"
                    .to_owned())
            }
            _ => attribute(reference, second, &PROJECT),
        }
    }
}

fn attribute(reference: &Reference, name: Option<&str>, known: &[&str]) -> Result<(), String> {
    if name.is_some_and(|name| known.contains(&name)) && reference.segments().len() == 2 {
        return Ok(());
    }
    let root = reference.root();
    let known: Vec<String> = known.iter().map(|name| format!("`{root}.{name}`")).collect();
    Err(format!("`{reference}` is not known; there are {}", known.join(", ")))
}

/// `resources.<id>.<output>`, where the id stands at `index`.
fn output(reference: &Reference, index: usize, resources: &Outputs) -> Result<(), String> {
    let Some(id) = reference.segment(index) else {
        return Err(format!(
            "`{reference}` must name a resource as in `{reference}.database.url`, so that it is known what depends \
             on what"
        ));
    };
    match (resources.get(id), reference.segment(index + 1)) {
        (None, _) => Err(format!("`{}` is not a resource of this section", text::shown(id))),
        (Some(Some(outputs)), Some(output)) if !outputs.contains(output) => {
            let known: Vec<String> = outputs.iter().map(|output| format!("`{output}`")).collect();
            let shown = text::shown(output);
            Err(format!("`{shown}` is not an output of resource `{id}`; there are {}", known.join(", ")))
        }
        _ => Ok(()),
    }
}

/// Finds resources that wait for each other, and reports each circle once, at its first resource.
pub(super) fn circles(
    resources: &BTreeMap<&str, &Json>,
    path: impl Fn(&str) -> String,
    violations: &mut Violations,
) {
    let mut graph = petgraph::graphmap::DiGraphMap::<&str, ()>::new();
    for (id, resource) in resources {
        graph.add_node(id);
        for (_, reference) in resource.get("inputs").map(references_with_paths).unwrap_or_default() {
            let target = reference.segment(1).and_then(|target| resources.get_key_value(target));
            if let Some((target, _)) = target.filter(|_| reference.root() == "resources") {
                graph.add_edge(id, target, ());
            }
        }
    }
    for mut circle in petgraph::algo::tarjan_scc(&graph) {
        let alone = circle.len() == 1;
        circle.sort_unstable();
        let Some(first) = circle.first().copied() else { continue };
        if alone && !graph.contains_edge(first, first) {
            continue;
        }
        let message = if alone {
            format!("`{first}` refers to itself")
        } else {
            let names: Vec<String> = circle.iter().map(|id| format!("`{id}`")).collect();
            format!("{} wait for each other", names.join(", "))
        };
        violations.add(path(first), Fault::Cycle, message);
    }
}
