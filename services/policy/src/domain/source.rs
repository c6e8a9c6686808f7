//! The check of a policy's text: limits, syntax, strict validation against the schema, annotations.

use std::collections::BTreeSet;
use std::str::FromStr;

use cedar_policy::{ActionConstraint, Effect, EntityUid, Policy, PolicySet, ValidationMode};

use pavior_core::principal::{PLATFORM_SERVICES, service_name};

use serde_json::Value;

use super::annotation::Annotations;
use super::policy::PolicyType;
use super::schema::{self, PolicySchema};
use super::{action, lexer};

/// The stack of the thread on which policies are parsed and validated.
const STACK_BYTES: usize = 64 << 20;
/// A former name, for which the engine's own message names no remedy.
const FORMER_CLASS: &str = "environment_class";

/// One `permit` or `forbid` of a policy.
#[derive(Debug, Clone)]
pub struct Rule {
    /// `forbid` rather than `permit`.
    pub forbid: bool,
    /// What its annotations say.
    pub annotations: Annotations,
    /// The rule itself.
    pub policy: Policy,
}

impl Rule {
    /// Whether its scope includes this action. Exact, because the schema has all actions and their groups.
    pub fn concerns(&self, action_name: &str, groups: &[String]) -> bool {
        let names = |uid: &EntityUid| {
            let id: &str = uid.id().as_ref();
            id == action_name || groups.iter().any(|group| group == id)
        };
        match self.policy.action_constraint() {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(uid) => {
                let id: &str = uid.id().as_ref();
                id == action_name
            }
            ActionConstraint::In(uids) => uids.iter().any(names),
        }
    }
}

/// A policy whose text passed the check.
#[derive(Debug, Clone)]
pub struct CheckedPolicy {
    /// Its rules, in the order of the text.
    pub rules: Vec<Rule>,
}

/// Checks the text of a policy of an organization.
///
/// # Errors
/// One sentence for each thing that is wrong.
pub fn check(
    text: &str,
    kind: PolicyType,
    schema: &PolicySchema,
    organization: &str,
) -> Result<CheckedPolicy, Vec<String>> {
    lexer::check(text).map_err(|error| vec![error.to_string()])?;
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("policy-parser".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || parse(text, kind, schema, organization))
            .map_err(|error| vec![format!("the policy cannot be checked now: {error}")])?
            .join()
            .unwrap_or_else(|_| Err(vec!["the policy cannot be parsed".to_owned()]))
    })
}

fn parse(
    text: &str,
    kind: PolicyType,
    schema: &PolicySchema,
    organization: &str,
) -> Result<CheckedPolicy, Vec<String>> {
    let set = PolicySet::from_str(text)
        .map_err(|errors| errors.iter().map(|error| format!("syntax: {error}")).collect::<Vec<_>>())?;
    let mut problems = Vec::new();
    if set.num_of_templates() > 0 {
        problems.push("slots such as `?principal` are not supported".to_owned());
    }
    if set.num_of_policies() == 0 && problems.is_empty() {
        problems.push("the policy has no rule".to_owned());
    }
    let result = schema.validator.validate(&set, ValidationMode::Strict);
    problems.extend(result.validation_errors().map(ToString::to_string));
    // Warnings count as errors: a rule that can never match, or confusable characters.
    problems.extend(result.validation_warnings().map(ToString::to_string));
    let mut parsed: Vec<&Policy> = set.policies().collect();
    parsed.sort_by_key(|policy| index_of(policy));
    let mut rules = Vec::with_capacity(parsed.len());
    for policy in parsed {
        let forbid = policy.effect() == Effect::Forbid;
        if kind == PolicyType::Guardrail && !forbid {
            problems.push(
                "a guardrail has `forbid` rules only; `permit` belongs into a policy of POLICY_TYPE_ACCESS"
                    .to_owned(),
            );
        }
        problems.extend(never_there(policy));
        problems.extend(policy.entity_literals().iter().filter_map(|uid| misnamed(uid, organization)));
        match Annotations::parse(policy.annotations(), kind == PolicyType::Guardrail) {
            Ok(annotations) => rules.push(Rule { forbid, annotations, policy: policy.clone() }),
            Err(found) => problems.extend(found),
        }
    }
    let mut ids: Vec<&str> = rules.iter().filter_map(|rule| rule.annotations.id.as_deref()).collect();
    ids.sort_unstable();
    for pair in ids.windows(2) {
        if let [one, other] = pair
            && one == other
        {
            problems.push(format!("annotation `@id(\"{one}\")` stands on more than one rule"));
        }
    }
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    if !problems.is_empty() && words.any(|word| word == FORMER_CLASS) {
        problems.push(format!("`{FORMER_CLASS}` is not known: the field is `environment_class_id`"));
    }
    problems.sort();
    problems.dedup();
    if problems.is_empty() { Ok(CheckedPolicy { rules }) } else { Err(problems) }
}

/// Attributes that a rule looks for with `has` and that nothing has. The validator takes such a test for false without a
/// word, and the rule would never match, or always.
fn never_there(policy: &Policy) -> Vec<String> {
    let mut tested = BTreeSet::new();
    match policy.to_json() {
        Ok(rule) => tested_attributes(&rule, &mut tested),
        Err(error) => return vec![format!("the rule cannot be checked: {error}")],
    }
    let known: BTreeSet<&str> = schema::attributes().collect();
    let unknown = tested.into_iter().filter(|attribute| !known.contains(attribute.as_str()));
    unknown.map(|attribute| format!("`has {attribute}` is never true: no attribute is called so")).collect()
}

fn tested_attributes(expression: &Value, found: &mut BTreeSet<String>) {
    match expression {
        Value::Object(fields) => {
            // `context has a.b` tests for both.
            let tested = match fields.get("has").and_then(|test| test.get("attr")) {
                Some(Value::Array(path)) => path.iter().filter_map(Value::as_str).collect(),
                one => one.and_then(Value::as_str).into_iter().collect::<Vec<_>>(),
            };
            found.extend(tested.into_iter().map(str::to_owned));
            fields.values().for_each(|value| tested_attributes(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| tested_attributes(value, found)),
        _ => {}
    }
}

/// An entity is named by its whole resource name. Another name is valid Cedar, and would never match anything.
fn misnamed(uid: &EntityUid, organization: &str) -> Option<String> {
    let id: &str = uid.id().as_ref();
    let collection = match uid.type_name().basename() {
        "Service" => return misnamed_service(uid, id),
        "User" => "users",
        "ServiceAccount" => "serviceAccounts",
        "Agent" => "agents",
        "Group" => "groups",
        "Project" => "projects",
        "Organization" => "organizations",
        "Resource" => "",
        _ => return None,
    };
    let named = pavior_core::ResourceName::parse(id).is_ok_and(|name| {
        let depth = name.pairs().count();
        let fits = match collection {
            "" => true,
            "organizations" => depth == 1,
            _ => depth == 2 && name.collection() == collection,
        };
        fits && name.organization() == organization
    });
    let example = match collection {
        "organizations" => format!("organizations/{organization}"),
        "" => format!("organizations/{organization}/projects/hello"),
        _ => format!("organizations/{organization}/{collection}/{}", if id.contains('/') { "…" } else { id }),
    };
    (!named)
        .then(|| format!("`{uid}` must be named by a whole resource name of the organization: `{example}`"))
}

/// A service of the platform belongs to no organization.
fn misnamed_service(uid: &EntityUid, id: &str) -> Option<String> {
    let known = PLATFORM_SERVICES.iter().any(|role| id == service_name(role));
    let example = service_name("provisioning");
    (!known).then(|| format!("`{uid}` must be a service of the platform: `{example}`"))
}

/// The parser names policies `policy0`, `policy1`, … in the order of the text.
fn index_of(policy: &Policy) -> usize {
    let id: &str = policy.id().as_ref();
    id.trim_start_matches("policy").parse().unwrap_or(usize::MAX)
}

/// The groups of an action by its name alone, as far as prefixes go.
pub fn groups_of(schema: &PolicySchema, name: &str) -> Vec<String> {
    schema.actions.get(name).map_or_else(|| action::prefix_groups(name), super::schema::groups_of)
}
