//! A policy's text: limits, parser, strict validation, annotations. What comes out of here can be put into force.

use std::str::FromStr;

use cedar_policy::{ActionConstraint, Effect, EntityUid, Policy, PolicySet, ValidationMode};

use pavior_core::principal::{PLATFORM_SERVICES, service_name};

use super::annotation::Annotations;
use super::schema::PolicySchema;
use super::{action, lexer};

/// The stack of the thread on which policies are parsed and validated.
const STACK_BYTES: usize = 64 << 20;

/// What a policy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyType {
    /// Who may do what.
    Access,
    /// What may be made.
    Guardrail,
}

impl PolicyType {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Access, Self::Guardrail];

    /// Its name in the API and in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Access => "POLICY_TYPE_ACCESS",
            Self::Guardrail => "POLICY_TYPE_GUARDRAIL",
        }
    }
}

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
    /// Whether its scope names this action. Exact: actions and their groups are all in the schema.
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

/// A policy whose text holds.
#[derive(Debug, Clone)]
pub struct CheckedPolicy {
    /// Its rules, in the order of the text.
    pub rules: Vec<Rule>,
}

/// Checks a policy's text, which is to hold in an organization.
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
    // A warning is a rule that can never match, or a text that reads otherwise than it is.
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
    problems.sort();
    problems.dedup();
    if problems.is_empty() { Ok(CheckedPolicy { rules }) } else { Err(problems) }
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
