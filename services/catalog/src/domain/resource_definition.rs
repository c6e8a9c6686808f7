//! Resource definitions, and which of them a context gets.
//!
//! Specificity decides. A criteria that matches is compared field by field, in this order: the resource's id, the
//! project, the environment's class, and then how many labels it asks for. No criteria at all applies everywhere and
//! loses against every other. Two definitions of one type that could both match one context equally well are refused
//! when they are written, so that a match is never a matter of chance.

use std::collections::BTreeMap;

use pavior_core::Fault;
use pavior_core::money::Money;

use super::{Fields, Violations, text};
use crate::json::{Json, json};

/// A context to match; every field that is set must match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Criteria {
    pub(crate) resource_id: Option<String>,
    /// The project, by resource name.
    pub(crate) project: Option<String>,
    /// The id of the class of the environment.
    pub(crate) environment_class: Option<String>,
    /// Those of the project.
    pub(crate) labels: BTreeMap<String, String>,
}

/// How specific a criteria is; greater wins.
pub(crate) type Specificity = (bool, bool, bool, usize);

/// One resource in its context.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Context {
    /// The id of the type.
    pub(crate) resource_type: String,
    pub(crate) resource_id: String,
    pub(crate) project: String,
    pub(crate) environment_class: String,
    /// Those of the project.
    pub(crate) labels: BTreeMap<String, String>,
}

impl Criteria {
    pub(crate) fn specificity(&self) -> Specificity {
        let Self { resource_id, project, environment_class, labels } = self;
        (resource_id.is_some(), project.is_some(), environment_class.is_some(), labels.len())
    }

    pub(crate) fn matches(&self, context: &Context) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        same(&self.resource_id, &context.resource_id)
            && same(&self.project, &context.project)
            && same(&self.environment_class, &context.environment_class)
            && self.labels.iter().all(|(key, value)| context.labels.get(key) == Some(value))
    }

    /// Whether one context could match both.
    fn overlaps(&self, other: &Criteria) -> bool {
        let meet = |a: &Option<String>, b: &Option<String>| a.is_none() || b.is_none() || a == b;
        meet(&self.resource_id, &other.resource_id)
            && meet(&self.project, &other.project)
            && meet(&self.environment_class, &other.environment_class)
            && self.labels.iter().all(|(key, value)| other.labels.get(key).is_none_or(|other| other == value))
    }

    /// `resource id `db`, environment class `production``, for people.
    pub(crate) fn describe(&self) -> String {
        let mut parts = Vec::new();
        let mut part = |what: &str, value: &Option<String>| {
            if let Some(value) = value {
                parts.push(format!("{what} `{value}`"));
            }
        };
        part("resource id", &self.resource_id);
        part("project", &self.project);
        part("environment class", &self.environment_class);
        parts.extend(self.labels.iter().map(|(key, value)| format!("project label `{key}` = `{value}`")));
        if parts.is_empty() { "everything".to_owned() } else { parts.join(", ") }
    }
}

/// A way to make a resource type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ResourceDefinitionFields {
    pub(crate) display_name: String,
    pub(crate) description: String,
    /// The id of the type.
    pub(crate) resource_type: String,
    pub(crate) driver: String,
    pub(crate) driver_inputs: Json,
    pub(crate) match_criteria: Vec<Criteria>,
    /// Zero for one that costs nothing; `None` for one of which nobody knows.
    pub(crate) monthly_cost: Option<Money>,
}

/// The names that expressions in `driver_inputs` may use.
const SCOPE: [&str; 4] = ["inputs", "project", "environment", "parameters"];

impl Fields for ResourceDefinitionFields {
    const SINGULAR: &'static str = "resource definition";
    const TYPE: &'static str = "catalog.pavior.dev/ResourceDefinition";

    fn name(&self, organization: &str, id: &str) -> String {
        format!("organizations/{organization}/resourceDefinitions/{id}")
    }

    fn check(&self, organization: &str, _id: &str) -> Violations {
        let mut violations = Violations::new();
        text::json(&mut violations, "driver_inputs", &self.driver_inputs);
        self.check_expressions(&mut violations);
        for (index, criteria) in self.match_criteria.iter().enumerate() {
            criteria.check(organization, &format!("match_criteria.{index}"), &mut violations);
        }
        violations
    }

    fn snapshot(&self) -> Json {
        let Self {
            display_name,
            description,
            resource_type,
            driver,
            driver_inputs,
            match_criteria,
            monthly_cost,
        } = self;
        let criteria: Vec<Json> = match_criteria.iter().map(Criteria::snapshot).collect();
        json!({
            "displayName": display_name, "description": description, "resourceType": resource_type,
            "driverId": driver, "driverInputs": driver_inputs, "matchCriteria": criteria,
            "monthlyCost": monthly_cost.as_ref().map(Money::to_string),
        })
    }
}

impl Criteria {
    fn check(&self, organization: &str, path: &str, violations: &mut Violations) {
        if let Some(project) = &self.project {
            let pattern = "organizations/{organization}/projects/{project}";
            let at = format!("{path}.project");
            let parsed =
                violations.check(&at, Fault::Pattern, pavior_core::ResourceName::parse_as(project, pattern));
            if parsed.is_some_and(|name| name.organization() != organization) {
                violations.add(at, Fault::Conflict, "must be a project of the same organization");
            }
        }
    }

    pub(crate) fn snapshot(&self) -> Json {
        let Self { resource_id, project, environment_class, labels } = self;
        json!({
            "resourceId": resource_id, "project": project,
            "environmentClassId": environment_class, "projectLabels": labels,
        })
    }
}

impl ResourceDefinitionFields {
    fn check_expressions(&self, violations: &mut Violations) {
        if let Err(errors) = pavior_expr::check(&self.driver_inputs) {
            for error in errors {
                violations.add(
                    super::violation_path("driver_inputs", &error.path),
                    Fault::Syntax,
                    error.message,
                );
            }
            return;
        }
        for (path, reference) in super::template::references_with_paths(&self.driver_inputs) {
            if !SCOPE.contains(&reference.root()) {
                let at = super::violation_path("driver_inputs", &path);
                let names = SCOPE.map(|name| format!("`{name}`")).join(", ");
                violations.add(
                    at,
                    Fault::Unknown,
                    format!("`{reference}` is not known here; there are {names}"),
                );
            } else if reference.root() == "project" && reference.segment(1) == Some("resources") {
                let at = super::violation_path("driver_inputs", &path);
                violations.add(
                    at,
                    Fault::Conflict,
                    format!(
                        "`{reference}`: a definition sees no outputs; let the golden path give them as inputs"
                    ),
                );
            }
        }
    }

    fn criteria(&self) -> Vec<Criteria> {
        if self.match_criteria.is_empty() { vec![Criteria::default()] } else { self.match_criteria.clone() }
    }
}

/// The criteria that matches best, if one does.
pub(crate) fn best_criteria(fields: &ResourceDefinitionFields, context: &Context) -> Option<Criteria> {
    let criteria = fields.criteria().into_iter();
    criteria.filter(|criteria| criteria.matches(context)).max_by_key(Criteria::specificity)
}

/// The context that two definitions of one type would match equally well, for people.
pub(crate) fn ambiguity(a: &ResourceDefinitionFields, b: &ResourceDefinitionFields) -> Option<String> {
    if a.resource_type != b.resource_type {
        return None;
    }
    for one in a.criteria() {
        for other in b.criteria() {
            if one.specificity() == other.specificity() && one.overlaps(&other) {
                let mut both = one.clone();
                both.labels.extend(other.labels.clone());
                return Some(both.describe());
            }
        }
    }
    None
}

#[cfg(test)]
#[path = "resource_definition_tests.rs"]
mod tests;
