//! The sections of a document: the project's resources, and each environment class.

use pavior_core::Fault;
use std::collections::{BTreeMap, BTreeSet};

use super::scope::{self, Names};
use crate::domain::violation_path as join;
use crate::domain::{Violations, text};
use crate::json::{Json, JsonMap};

/// Most resources of one section.
const MAX_RESOURCES: usize = 200;
/// The type that provisioning itself knows; an organization need not define it.
pub(crate) const BUILT_IN_TYPE: &str = "catalog-entity";
/// The type of a workload that names none, and the id of the workload among the resources.
pub(super) const WORKLOAD: &str = "workload";
/// The type whose `artifacts` workloads run.
const PIPELINE: &str = "ci-pipeline";
const RESOURCE_KEYS: [&str; 2] = ["type", "inputs"];
const WORKLOAD_KEYS: [&str; 3] = ["type", "artifact", "inputs"];
const ENVIRONMENT_KEYS: [&str; 4] = ["create", "ttl", "resources", "workload"];

/// What a resource type says about inputs and outputs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TypeContract {
    pub(crate) input_schema: Json,
    /// The outputs that it lists; `None` when it lists none and so has any.
    pub(crate) outputs: Option<BTreeSet<String>>,
}

/// Checks sections against what the document and the organization have.
pub(super) struct Checker<'a> {
    pub(super) types: &'a BTreeMap<String, TypeContract>,
    pub(super) parameters: Option<BTreeSet<String>>,
    pub(super) project: &'a JsonMap<String, Json>,
}

/// A map, empty when it is absent.
pub(super) fn map(value: Option<&Json>, path: &str, violations: &mut Violations) -> JsonMap<String, Json> {
    match value {
        None | Some(Json::Null) => JsonMap::new(),
        Some(Json::Object(map)) => map.clone(),
        Some(_) => {
            violations.add(path, Fault::Type, "must be a map");
            JsonMap::new()
        }
    }
}

/// The items of a list, none when it is something else.
pub(super) fn items(value: Option<&Json>) -> impl Iterator<Item = &Json> {
    value.and_then(Json::as_array).into_iter().flatten()
}

pub(super) fn unknown_keys(
    map: &JsonMap<String, Json>,
    known: &[&str],
    path: &str,
    violations: &mut Violations,
) {
    for key in map.keys().filter(|key| !known.contains(&key.as_str())) {
        let listed: Vec<String> = known.iter().map(|key| format!("`{key}`")).collect();
        let message = format!("is not a known field; known are {}", listed.join(", "));
        violations.add(join(path, &text::shown(key)), Fault::Unknown, message);
    }
}

pub(super) fn unknown_type(id: &str, path: String, violations: &mut Violations) {
    violations.add(
        path,
        Fault::NotFound,
        format!("`{}` is not a resource type of the organization", text::shown(id)),
    );
}

/// The id of a resource's type, when it has one that is a text.
pub(super) fn type_of(resource: &Json, default: Option<&str>) -> Option<String> {
    match resource.get("type") {
        None => default.map(str::to_owned),
        Some(id) => id.as_str().map(str::to_owned),
    }
}

impl Checker<'_> {
    /// The project's resources.
    pub(super) fn project(&self, violations: &mut Violations) {
        let at = "document.project";
        self.resources(self.project, at, violations);
        let names = Names {
            parameters: self.parameters.as_ref(),
            resources: self.outputs(self.project, None),
            project_resources: None,
            environment: false,
            artifact: false,
        };
        for (id, resource) in self.project {
            names.check(resource.get("inputs"), &format!("{at}.{id}.inputs"), violations);
        }
        let resources = self.project.iter().map(|(id, resource)| (id.as_str(), resource)).collect();
        scope::circles(&resources, |id| format!("{at}.{id}"), violations);
    }

    /// One environment class; paths are relative to it.
    pub(super) fn environment(&self, section: &JsonMap<String, Json>, violations: &mut Violations) {
        unknown_keys(section, &ENVIRONMENT_KEYS, "", violations);
        match section.get("create") {
            None => {}
            Some(create) if matches!(create.as_str(), Some("with_project" | "on_request")) => {}
            Some(_) => violations.add("create", Fault::Unknown, "must be `with_project` or `on_request`"),
        }
        match section.get("ttl") {
            None => {}
            Some(ttl) if ttl.as_str().is_some_and(is_duration) => {}
            Some(_) => {
                violations.add("ttl", Fault::Pattern, "must be a duration such as `30m`, `8h` or `7d`")
            }
        }
        let resources = map(section.get("resources"), "resources", violations);
        self.resources(&resources, "resources", violations);
        if resources.contains_key(WORKLOAD) {
            let message = "the id `workload` is that of the class's workload; write it under `workload`";
            violations.add(format!("resources.{WORKLOAD}"), Fault::Reserved, message);
        }
        let workload = section.get("workload").filter(|workload| !workload.is_null());
        if let Some(workload) = workload {
            self.workload(workload, violations);
        }
        let mut names = Names {
            parameters: self.parameters.as_ref(),
            resources: self.outputs(&resources, workload),
            project_resources: Some(self.outputs(self.project, None)),
            environment: true,
            artifact: false,
        };
        for (id, resource) in &resources {
            names.check(resource.get("inputs"), &format!("resources.{id}.inputs"), violations);
        }
        let mut nodes: BTreeMap<&str, &Json> = resources.iter().map(|(id, r)| (id.as_str(), r)).collect();
        if let Some(workload) = workload {
            names.artifact = true;
            names.check(workload.get("inputs"), "workload.inputs", violations);
            nodes.insert(WORKLOAD, workload);
        }
        let path = |id: &str| match id {
            WORKLOAD => WORKLOAD.to_owned(),
            id => format!("resources.{id}"),
        };
        scope::circles(&nodes, path, violations);
    }

    /// The shape of some resources.
    fn resources(&self, resources: &JsonMap<String, Json>, path: &str, violations: &mut Violations) {
        if resources.len() > MAX_RESOURCES {
            violations.add(path, Fault::TooMany, format!("must have at most {MAX_RESOURCES} resources"));
        }
        for (id, resource) in resources {
            let at = join(path, id);
            violations.check(&at, Fault::Pattern, pavior_core::validate_id(id));
            let Some(map) = resource.as_object() else {
                violations.add(at, Fault::Type, "must be a map with `type` and perhaps `inputs`");
                continue;
            };
            unknown_keys(map, &RESOURCE_KEYS, &at, violations);
            match map.get("type") {
                None | Some(Json::Null) => {
                    violations.add(format!("{at}.type"), Fault::Required, "is required")
                }
                Some(Json::String(id)) => self.known_type(id, &at, violations),
                Some(_) => {
                    violations.add(format!("{at}.type"), Fault::Pattern, "must be the id of a resource type")
                }
            }
            self.inputs(resource, type_of(resource, None), &at, true, violations);
        }
    }

    fn workload(&self, workload: &Json, violations: &mut Violations) {
        let Some(map) = workload.as_object() else {
            violations.add(
                WORKLOAD,
                Fault::Type,
                "must be a map with `inputs` and perhaps `type` and `artifact`",
            );
            return;
        };
        unknown_keys(map, &WORKLOAD_KEYS, WORKLOAD, violations);
        match map.get("type") {
            None => self.known_type(WORKLOAD, WORKLOAD, violations),
            Some(Json::String(id)) => self.known_type(id, WORKLOAD, violations),
            Some(_) => violations.add("workload.type", Fault::Pattern, "must be the id of a resource type"),
        }
        // The engine adds to a workload's inputs, so what is missing here may come from there.
        self.inputs(workload, type_of(workload, Some(WORKLOAD)), WORKLOAD, false, violations);
        self.artifact(map, violations);
    }

    /// The artifact must come out of a pipeline of the project.
    fn artifact(&self, workload: &JsonMap<String, Json>, violations: &mut Violations) {
        let named = match workload.get("artifact") {
            None | Some(Json::Null) => None,
            Some(Json::String(name)) => Some(name.as_str()),
            Some(_) => {
                violations.add(
                    "workload.artifact",
                    Fault::Pattern,
                    "must be the name of an artifact of the pipeline",
                );
                return;
            }
        };
        let pipelines: Vec<&Json> =
            self.project.values().filter(|r| type_of(r, None).as_deref() == Some(PIPELINE)).collect();
        let inputs = workload.get("inputs");
        let used = inputs.is_some_and(|inputs| {
            references_of(inputs).iter().any(|reference| reference.root() == "artifact")
        });
        if pipelines.is_empty() {
            if named.is_some() || used {
                let at = if named.is_some() { "workload.artifact" } else { "workload.inputs" };
                let message =
                    format!("uses an artifact, but the project has no resource of type `{PIPELINE}`");
                violations.add(at, Fault::Pattern, message);
            }
            return;
        }
        let artifacts =
            pipelines.iter().flat_map(|p| items(p.get("inputs").and_then(|i| i.get("artifacts"))));
        let names: Vec<&str> = artifacts.filter_map(|a| a.get("name").and_then(Json::as_str)).collect();
        // A name that is computed is known only when the project is planned.
        let computed = names.iter().any(|name| name.contains("${{"));
        if let Some(named) = named.filter(|named| !computed && !names.contains(named)) {
            let listed: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            let message =
                format!("`{}` is not an artifact of the pipeline: {}", text::shown(named), listed.join(", "));
            violations.add("workload.artifact", Fault::Unknown, message);
        }
    }

    fn known_type(&self, id: &str, path: &str, violations: &mut Violations) {
        if id != BUILT_IN_TYPE && !self.types.contains_key(id) {
            unknown_type(id, format!("{path}.type"), violations);
        }
    }

    /// The inputs by the schema of the type; a text with expressions may turn out to be anything.
    fn inputs(
        &self,
        resource: &Json,
        id: Option<String>,
        path: &str,
        complete: bool,
        violations: &mut Violations,
    ) {
        let at = format!("{path}.inputs");
        let inputs = match resource.get("inputs") {
            None | Some(Json::Null) => Json::Object(JsonMap::new()),
            Some(inputs @ Json::Object(_)) => inputs.clone(),
            Some(_) => {
                violations.add(at, Fault::Type, "must be a map");
                return;
            }
        };
        if let Err(errors) = pavior_expr::check(&inputs) {
            for error in errors {
                violations.add(join(&at, &error.path), Fault::Syntax, error.message);
            }
        }
        let Some(contract) = id.and_then(|id| self.types.get(&id)) else { return };
        let planned = hide_expressions(&inputs);
        for problem in pavior_expr::schema::validate_planned(&contract.input_schema, &planned) {
            if complete || problem.message != "is required" {
                violations.add(join(&at, &problem.path), Fault::Schema, problem.message);
            }
        }
    }

    /// The outputs of each resource of a section.
    fn outputs(
        &self,
        resources: &JsonMap<String, Json>,
        workload: Option<&Json>,
    ) -> BTreeMap<String, Option<BTreeSet<String>>> {
        let of = |id: Option<String>| id.and_then(|id| self.types.get(&id)).and_then(|t| t.outputs.clone());
        let mut outputs: BTreeMap<_, _> =
            resources.iter().map(|(id, resource)| (id.clone(), of(type_of(resource, None)))).collect();
        if let Some(workload) = workload {
            outputs.insert(WORKLOAD.to_owned(), of(type_of(workload, Some(WORKLOAD))));
        }
        outputs
    }
}

fn references_of(value: &Json) -> Vec<pavior_expr::Reference> {
    scope::references_with_paths(value).into_iter().map(|(_, reference)| reference).collect()
}

/// Every text with an expression as a value that is not known yet.
fn hide_expressions(value: &Json) -> Json {
    match value {
        Json::String(text) if text.contains("${{") => pavior_expr::unknown(text),
        Json::Array(items) => Json::Array(items.iter().map(hide_expressions).collect()),
        Json::Object(map) => {
            Json::Object(map.iter().map(|(key, item)| (key.clone(), hide_expressions(item))).collect())
        }
        other => other.clone(),
    }
}

/// A whole number and a unit: `ms`, `s`, `m`, `h` or `d`; not zero, at most ten years.
fn is_duration(text: &str) -> bool {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return false,
    };
    let limit = 10 * 366 * 86_400_000;
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).is_some_and(|ms| (1..=limit).contains(&ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_table() {
        for text in ["1ms", "30s", "90m", "8h", "7d", "3660d"] {
            assert!(is_duration(text), "{text}");
        }
        for text in ["", "8", "h", "0h", "-1h", "1.5h", "8 h", "1w", "3661d", "99999999999999999999h"] {
            assert!(!is_duration(text), "{text}");
        }
    }
}
