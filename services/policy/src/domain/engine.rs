//! The compiled policies of one organization, and their evaluation.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use cedar_policy::{Authorizer, Entities, Entity, PolicyId, PolicySet, Request};
use pavior_core::PrincipalKind;
use pavior_core::principal::{PLATFORM_SERVICES, service_name};

use super::annotation::Annotations;
use super::combine::{self, AccessHits, Effect, GuardrailHit, Outcome, Reason, Verdict};
use super::entities::{InputError, Types};
use super::input::{GivenApproval, Input, Stage};
use super::policy::{PolicyType, policy_name};
use super::policy_binding::Mode;
use super::policy_revision::policy_revision_name;
use super::role_index::RoleIndex;
use super::schema::{PolicySchema, groups_of};
use super::source::CheckedPolicy;

/// Most roles that a denial names.
const MAX_GRANTING_ROLES: usize = 10;
/// What an operator of the installation can always do, so that a policy that denies everything can be disabled.
const RECOVERY: [&str; 4] = [
    "policy.policyBindings.get",
    "policy.policyBindings.list",
    "policy.policyBindings.update",
    "policy.policyBindings.delete",
];

/// All projects in the place of one (AIP-159).
const ALL: &str = "-";

/// What a rule does where it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Permit,
    Forbid,
}

/// The scope and the mode of a policy that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Ids of projects; empty for all.
    pub projects: BTreeSet<String>,
    /// Ids of environment classes; empty for all.
    pub environment_class_ids: BTreeSet<String>,
    /// The mode of enforcement.
    pub mode: Mode,
}

impl Binding {
    fn mode_for(&self, input: &Input, side: Side) -> Mode {
        let within = |set: &BTreeSet<String>, value: Option<&str>| {
            set.is_empty() || value.is_some_and(|value| set.contains(value))
        };
        let project = input.resource.project.as_deref();
        // Who lists over all projects reads those of the binding too, and others: what forbids these holds, and what
        // permits only these does not.
        let over_all = side == Side::Forbid && project == Some(ALL);
        let project = over_all || within(&self.projects, project);
        if project && within(&self.environment_class_ids, input.environment_class_id()) {
            self.mode
        } else {
            Mode::Off
        }
    }
}

/// A revision of a policy with the bindings that put it into force.
#[derive(Debug, Clone)]
pub struct BoundPolicy {
    /// The id of the policy.
    pub id: String,
    /// The number of the revision.
    pub revision: i64,
    /// The type of the policy.
    pub kind: PolicyType,
    /// Its rules; an error if the stored text does not fit the current schema.
    pub policy: Result<Arc<CheckedPolicy>, String>,
    /// The bindings of this revision.
    pub bindings: Vec<Binding>,
}

#[derive(Debug, Clone)]
struct RuleMeta {
    id: String,
    policy: String,
    revision: String,
    kind: PolicyType,
    annotations: Annotations,
    bindings: Arc<[Binding]>,
}

#[derive(Debug)]
struct Compiled {
    /// Index into `rules`; also the id of the rule in its slice.
    at: usize,
    forbid: bool,
    source: Arc<CheckedPolicy>,
    rule: usize,
}

/// The rules that can match one action.
#[derive(Debug)]
struct Slice {
    action: Entity,
    permits: PolicySet,
    forbids: PolicySet,
    guardrails: PolicySet,
}

/// The policies, roles and bindings of one organization as they were at one time. Immutable.
#[derive(Debug)]
pub struct Compilation {
    organization: String,
    /// SHA-256 over the policies, roles and bindings, `sha256:` and hexadecimal.
    pub digest: String,
    schema: Arc<PolicySchema>,
    types: Types,
    roles: RoleIndex,
    rules: Vec<RuleMeta>,
    compiled: Vec<Compiled>,
    broken: Vec<(RuleMeta, String)>,
    slices: HashMap<String, OnceLock<Option<Slice>>>,
}

/// The strictest mode of the bindings that apply to a rule that permits.
fn permits_in(bindings: &[Binding], input: &Input) -> Mode {
    bindings.iter().map(|binding| binding.mode_for(input, Side::Permit)).max().unwrap_or(Mode::Off)
}

/// The strictest mode of the bindings that apply to a rule that forbids, or of which it is not known what it does.
fn forbids_in(bindings: &[Binding], input: &Input) -> Mode {
    bindings.iter().map(|binding| binding.mode_for(input, Side::Forbid)).max().unwrap_or(Mode::Off)
}

impl Compilation {
    /// Compiles. Rules are put into slices by action when the action is first asked about.
    pub fn new(
        schema: Arc<PolicySchema>,
        organization: &str,
        digest: String,
        roles: RoleIndex,
        policies: Vec<BoundPolicy>,
    ) -> Result<Self, InputError> {
        let (mut rules, mut compiled, mut broken) = (Vec::new(), Vec::new(), Vec::new());
        for bound in policies {
            let bindings: Arc<[Binding]> =
                bound.bindings.into_iter().filter(|b| b.mode != Mode::Off).collect();
            if bindings.is_empty() {
                continue;
            }
            let meta = |id: String, annotations: Annotations| RuleMeta {
                id,
                policy: policy_name(organization, &bound.id),
                revision: policy_revision_name(organization, &bound.id, bound.revision),
                kind: bound.kind,
                annotations,
                bindings: bindings.clone(),
            };
            let plain = Annotations { id: None, guardrail: None, message: None, fix: None, docs: None };
            match bound.policy {
                Err(problem) => broken.push((meta(bound.id.clone(), plain), problem)),
                Ok(source) => {
                    for (at, rule) in source.rules.iter().enumerate() {
                        let id = match &rule.annotations.id {
                            Some(id) => id.clone(),
                            None if source.rules.len() == 1 => bound.id.clone(),
                            None => format!("{}.{}", bound.id, at + 1),
                        };
                        let forbid = rule.forbid;
                        compiled.push(Compiled { at: rules.len(), forbid, source: source.clone(), rule: at });
                        rules.push(meta(id, rule.annotations.clone()));
                    }
                }
            }
        }
        let slices = schema.actions.iter().map(|action| (action.name.clone(), OnceLock::new())).collect();
        let (organization, types) = (organization.to_owned(), Types::new()?);
        Ok(Self { organization, digest, schema, types, roles, rules, compiled, broken, slices })
    }

    /// The organization's id.
    pub fn organization(&self) -> &str {
        &self.organization
    }

    /// None when no rule concerns the action, so that nothing has to be evaluated.
    fn slice(&self, action: &str) -> Option<&Slice> {
        self.slices.get(action)?.get_or_init(|| self.build_slice(action)).as_ref()
    }

    fn build_slice(&self, name: &str) -> Option<Slice> {
        let groups = self.schema.actions.get(name).map(groups_of).unwrap_or_default();
        let mut slice = Slice {
            action: self.types.action(name, &groups),
            permits: PolicySet::new(),
            forbids: PolicySet::new(),
            guardrails: PolicySet::new(),
        };
        let mut any = false;
        for compiled in &self.compiled {
            let (Some(rule), Some(meta)) =
                (compiled.source.rules.get(compiled.rule), self.rules.get(compiled.at))
            else {
                continue;
            };
            if !rule.concerns(name, &groups) {
                continue;
            }
            let set = match (meta.kind, compiled.forbid) {
                (PolicyType::Guardrail, _) => &mut slice.guardrails,
                (PolicyType::Access, true) => &mut slice.forbids,
                (PolicyType::Access, false) => &mut slice.permits,
            };
            // Ids are the indices of `rules`, hence unique, and rules have no slots: adding cannot fail.
            any |= set.add(rule.policy.new_id(PolicyId::new(compiled.at.to_string()))).is_ok();
        }
        any.then_some(slice)
    }

    /// Decides: a pure function of the compilation and its arguments. A change of the owner or of the labels
    /// is evaluated for what is and for what would be, and the stricter outcome counts.
    pub fn decide(&self, input: &Input, approval: Option<&GivenApproval>) -> Outcome {
        let outcome = self.decide_as_is(input, approval);
        match input.after() {
            Some(after) => outcome.and(self.decide_as_is(&after, approval)),
            None => outcome,
        }
    }

    fn decide_as_is(&self, input: &Input, approval: Option<&GivenApproval>) -> Outcome {
        let Some(action) = self.schema.actions.get(&input.action) else {
            let text = format!("`{}` is not an action of this installation", input.action);
            return Outcome::deny(vec![Reason::built_in("builtin.unknown-action", text)]);
        };
        let approved = approval.is_some_and(|approval| approval.covers(&input.context));
        let slice = self.slice(&action.name);
        let evaluation = match slice.map(|slice| Evaluation::new(self, slice, input, approved)).transpose() {
            Ok(evaluation) => evaluation,
            Err(error) => {
                let denied =
                    Outcome::deny(vec![Reason::built_in("builtin.policy-error", policy_error(&error))]);
                return Outcome { policy_error: true, ..denied };
            }
        };
        let outcome = self.access(input, action.internal, evaluation.as_ref());
        let outcome =
            if outcome.effect == Effect::Deny || (input.stage == Stage::Admission && input.plan_follows) {
                outcome
            } else {
                let hits = self.guardrails(input, evaluation.as_ref());
                let failed = hits.iter().any(|(hit, failed)| *failed && hit.mode == Mode::Enforce);
                let hits = hits.into_iter().map(|(hit, _)| hit).collect();
                let combined = combine::with_guardrails(outcome, hits, approval, &input.context);
                Outcome { policy_error: combined.policy_error || failed, ..combined }
            };
        // A service of the platform names the person when it requests the approval.
        let alone = !input.has_person() && !is_platform_service(input);
        if outcome.effect == Effect::RequireApproval && alone {
            return outcome.without_person();
        }
        recover(outcome, input)
    }

    /// Whether access allows it, guardrails apart.
    pub fn allows_access(&self, input: &Input) -> bool {
        let asked = Input { stage: Stage::Admission, plan_follows: true, ..input.clone() };
        self.decide(&asked, None).effect == Effect::Allow
    }

    fn access(&self, input: &Input, internal: bool, evaluation: Option<&Evaluation<'_>>) -> Outcome {
        let mut hits =
            AccessHits { permits: self.built_in_permits(input, internal), ..AccessHits::default() };
        for binding in self.roles.granting(input) {
            let mut reason =
                Reason::built_in(&binding.id, format!("role `{}` permits `{}`", binding.role, input.action));
            reason.policy = format!("organizations/{}/roleBindings/{}", self.organization, binding.id);
            hits.permits.push(reason);
        }
        if let Some(evaluation) = evaluation {
            let (matched, failed) = evaluation.run(&evaluation.slice.permits);
            for rule in matched {
                match permits_in(&rule.bindings, input) {
                    Mode::Off => {}
                    Mode::Enforce => hits.permits.push(rule.reason(input, "permits")),
                    Mode::Shadow | Mode::Warn => hits.shadow.push(rule.reason(input, "would permit")),
                }
            }
            for (rule, error) in failed {
                if permits_in(&rule.bindings, input) != Mode::Off {
                    hits.shadow.push(rule.failure(&error));
                }
            }
            let (matched, failed) = evaluation.run(&evaluation.slice.forbids);
            let matched = matched.into_iter();
            hits.forbids.extend(
                matched.map(|rule| (forbids_in(&rule.bindings, input), rule.reason(input, "forbids"))),
            );
            let failed = failed.into_iter();
            hits.errors.extend(
                failed.map(|(rule, error)| (forbids_in(&rule.bindings, input), rule.failure(&error))),
            );
        }
        let broken = self.broken.iter().filter(|(rule, _)| rule.kind == PolicyType::Access);
        hits.errors
            .extend(broken.map(|(rule, error)| (forbids_in(&rule.bindings, input), rule.failure(error))));
        combine::access(hits, &input.action, || {
            let roles = self.roles.roles_granting(&input.action, MAX_GRANTING_ROLES);
            roles
                .into_iter()
                .map(|role| format!("organizations/{}/roles/{role}", self.organization))
                .collect()
        })
    }

    fn built_in_permits(&self, input: &Input, internal: bool) -> Vec<Reason> {
        let mut permits = Vec::new();
        if input.principal.installation_operator {
            permits.push(Reason::built_in(
                "builtin.installation-operator",
                "an operator of the installation may do everything",
            ));
        }
        if internal && is_platform_service(input) {
            permits.push(Reason::built_in(
                "builtin.platform-service",
                "services of the platform may use its internal actions",
            ));
        }
        // Not at admission: only a plan of provisioning itself is permitted by this, and never a call from outside.
        if EXPIRY.contains(&input.action.as_str())
            && input.stage != Stage::Admission
            && is_provisioning(input)
        {
            permits.push(Reason::built_in(
                "builtin.expiry",
                "provisioning takes down environments whose time is over",
            ));
        }
        permits
    }

    fn guardrails(&self, input: &Input, evaluation: Option<&Evaluation<'_>>) -> Vec<(GuardrailHit, bool)> {
        let mut hits = Vec::new();
        let hit = |rule: &RuleMeta, reason, verdict| GuardrailHit {
            reason,
            mode: forbids_in(&rule.bindings, input),
            verdict,
        };
        if let Some(evaluation) = evaluation {
            let (matched, failed) = evaluation.run(&evaluation.slice.guardrails);
            for rule in matched {
                let verdict = rule.annotations.guardrail.as_ref().map(|(_, effect)| Verdict::from(effect));
                let reason = rule.reason(input, "forbids");
                hits.push((hit(rule, reason, verdict.unwrap_or(Verdict::Deny)), false));
            }
            hits.extend(
                failed.iter().map(|(rule, error)| (hit(rule, rule.failure(error), Verdict::Deny), true)),
            );
        }
        let broken = self.broken.iter().filter(|(rule, _)| rule.kind == PolicyType::Guardrail);
        hits.extend(broken.map(|(rule, error)| (hit(rule, rule.failure(error), Verdict::Deny), true)));
        hits
    }
}

fn is_provisioning(input: &Input) -> bool {
    is_platform_service(input) && input.principal.name == service_name("provisioning")
}

fn is_platform_service(input: &Input) -> bool {
    let principal = &input.principal;
    principal.kind == PrincipalKind::Service
        && PLATFORM_SERVICES.iter().any(|role| principal.name == service_name(role))
}

/// What provisioning does in its own name when an environment expires: it deletes the environment and the entities that
/// it registered in the catalog.
const EXPIRY: [&str; 2] = ["provisioning.environments.delete", "catalog.entities.delete"];

/// Lets an operator of the installation disable a policy, whatever that policy says.
fn recover(outcome: Outcome, input: &Input) -> Outcome {
    let stuck = outcome.effect != Effect::Allow;
    if !stuck || !input.principal.installation_operator || !RECOVERY.contains(&input.action.as_str()) {
        return outcome;
    }
    let text = "an operator of the installation can always take a policy out of force";
    let mut warnings = outcome.warnings;
    warnings.extend(outcome.reasons);
    let allowed = Outcome::allow(vec![Reason::built_in("builtin.recovery", text)]);
    Outcome { warnings, shadow: outcome.shadow, policy_error: outcome.policy_error, ..allowed }
}

/// The message of an evaluation error: it begins with the name of the error in the API.
fn policy_error(error: &impl std::fmt::Display) -> String {
    format!("POLICY_ERROR: the policy cannot be evaluated, so the answer is no: {error}")
}

impl RuleMeta {
    fn reason(&self, input: &Input, verb: &str) -> Reason {
        let render = |message: &Option<super::message::Message>| message.as_ref().map(|m| m.render(input));
        let message = render(&self.annotations.message);
        Reason {
            message: message.unwrap_or_else(|| format!("policy `{}` {verb} `{}`", self.id, input.action)),
            fix: render(&self.annotations.fix).unwrap_or_default(),
            docs: self.annotations.docs.clone().unwrap_or_default(),
            ..self.bare()
        }
    }

    fn failure(&self, error: &impl std::fmt::Display) -> Reason {
        Reason { message: policy_error(error), ..self.bare() }
    }

    fn bare(&self) -> Reason {
        let level = self.annotations.guardrail.as_ref().map(|(level, _)| *level);
        let (policy, revision) = (self.policy.clone(), self.revision.clone());
        Reason { policy, revision, policy_type: self.kind, level, ..Reason::built_in(&self.id, "") }
    }
}

/// One request against the rules of its action.
struct Evaluation<'a> {
    compilation: &'a Compilation,
    slice: &'a Slice,
    request: Request,
    entities: Entities,
    authorizer: Authorizer,
}

type Hits<'a> = (Vec<&'a RuleMeta>, Vec<(&'a RuleMeta, String)>);

impl<'a> Evaluation<'a> {
    fn new(
        compilation: &'a Compilation,
        slice: &'a Slice,
        input: &Input,
        approved: bool,
    ) -> Result<Self, InputError> {
        let (request, entities) = compilation.types.request(input, &slice.action, approved)?;
        Ok(Self { compilation, slice, request, entities, authorizer: Authorizer::new() })
    }

    /// All rules of a set that matched, and those that could not be evaluated. The set holds either permits or forbids:
    /// of a mixed one the engine would report the forbids only.
    fn run(&self, set: &PolicySet) -> Hits<'a> {
        if set.is_empty() {
            return Hits::default();
        }
        let response = self.authorizer.is_authorized(&self.request, set, &self.entities);
        let rule = |id: &PolicyId| {
            let id: &str = id.as_ref();
            self.compilation.rules.get(id.parse::<usize>().ok()?)
        };
        let matched = response.diagnostics().reason().filter_map(rule).collect();
        let failed = response.diagnostics().errors().filter_map(|error| match error {
            cedar_policy::AuthorizationError::PolicyEvaluationError(error) => {
                Some((rule(error.policy_id())?, error.inner().to_string()))
            }
        });
        (matched, failed.collect())
    }
}

/// The required quorums by group id.
pub fn approvals_of(outcome: &Outcome) -> BTreeMap<String, u32> {
    outcome.approvals.iter().map(|(group, needed)| (group.clone(), needed.quorum)).collect()
}
