//! How the hits of policies become one decision. Independent of the engine, and of the order of the hits.

use std::collections::{BTreeMap, BTreeSet};

use super::annotation::{GuardrailEffect, Level};
use super::input::{Context, GivenApproval};
use super::source::PolicyType;

/// What a decision says, from the weakest to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Yes.
    Allow,
    /// Yes, once the approvals are given.
    RequireApproval,
    /// No.
    Deny,
}

impl Effect {
    /// Every effect.
    pub const ALL: [Self; 3] = [Self::Allow, Self::RequireApproval, Self::Deny];

    /// As it stands in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::RequireApproval => "REQUIRE_APPROVAL",
            Self::Deny => "DENY",
        }
    }
}

/// How a policy is in force, from the weakest to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Not evaluated.
    Off,
    /// Evaluated and recorded.
    Shadow,
    /// Every hit is a warning.
    Warn,
    /// Has its effect.
    Enforce,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Off, Self::Shadow, Self::Warn, Self::Enforce];

    /// Its name in the API and in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "MODE_OFF",
            Self::Shadow => "MODE_SHADOW",
            Self::Warn => "MODE_WARN",
            Self::Enforce => "MODE_ENFORCE",
        }
    }
}

/// One policy that spoke.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason {
    /// The id of the rule.
    pub rule_id: String,
    /// The resource name of what it comes from; empty for what is built in.
    pub policy: String,
    /// The resource name of the policy's revision that spoke; empty for what is no policy.
    pub revision: String,
    /// What the policy is for.
    pub policy_type: PolicyType,
    /// The level; none of what is about access.
    pub level: Option<Level>,
    /// For people.
    pub message: String,
    /// What would be allowed instead.
    pub fix: String,
    /// Where to read more.
    pub docs: String,
}

impl Reason {
    /// A reason that comes from no policy of the organization.
    pub fn built_in(rule_id: &str, message: impl Into<String>) -> Self {
        Self {
            rule_id: rule_id.to_owned(),
            policy: String::new(),
            revision: String::new(),
            policy_type: PolicyType::Access,
            level: None,
            message: message.into(),
            fix: String::new(),
            docs: String::new(),
        }
    }
}

/// A guardrail that matched, or could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GuardrailHit {
    /// What it says.
    pub reason: Reason,
    /// How it is in force here.
    pub mode: Mode,
    /// What it does; an error denies.
    pub verdict: Verdict,
}

/// What a guardrail's hit does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// A warning.
    Warn,
    /// Quorum by group id.
    Approve(BTreeMap<String, u32>),
    /// No.
    Deny,
}

impl From<&GuardrailEffect> for Verdict {
    fn from(effect: &GuardrailEffect) -> Self {
        match effect {
            GuardrailEffect::Warn => Self::Warn,
            GuardrailEffect::Approve(groups) => Self::Approve(groups.clone()),
            GuardrailEffect::Deny => Self::Deny,
        }
    }
}

/// Approvals of one group that are needed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needed {
    /// How many distinct people.
    pub quorum: u32,
    /// The rules that ask for it.
    pub rule_ids: BTreeSet<String>,
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What it says.
    pub effect: Effect,
    /// What determined it.
    pub reasons: Vec<Reason>,
    /// Hits that warn only.
    pub warnings: Vec<Reason>,
    /// Hits of policies that are tried out: recorded, shown to nobody.
    pub shadow: Vec<Reason>,
    /// What is needed before it is a yes, by group id.
    pub approvals: BTreeMap<String, Needed>,
    /// With a plain denial: ids of roles that would grant the action.
    pub granting_roles: Vec<String>,
    /// Whether a policy could not be evaluated.
    pub policy_error: bool,
}

impl Outcome {
    /// A denial.
    pub fn deny(reasons: Vec<Reason>) -> Self {
        Self { effect: Effect::Deny, reasons, ..Self::allow(Vec::new()) }
    }

    /// A yes.
    pub fn allow(reasons: Vec<Reason>) -> Self {
        Self {
            effect: Effect::Allow,
            reasons,
            warnings: Vec::new(),
            shadow: Vec::new(),
            approvals: BTreeMap::new(),
            granting_roles: Vec::new(),
            policy_error: false,
        }
    }

    /// Both decisions at once: the stricter effect, with everything that led to it on either side.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let (strict, mild) = if other.effect > self.effect { (other, self) } else { (self, other) };
        let same = strict.effect == mild.effect;
        let mut both = strict;
        if same {
            both.reasons.extend(mild.reasons);
            for (group, needed) in mild.approvals {
                let known = both.approvals.entry(group).or_default();
                known.quorum = known.quorum.max(needed.quorum);
                known.rule_ids.extend(needed.rule_ids);
            }
        }
        both.warnings.extend(mild.warnings);
        both.shadow.extend(mild.shadow);
        both.policy_error |= mild.policy_error;
        both.sort();
        both
    }

    /// People are needed, and nobody stands behind whoever asks: four eyes would be two.
    #[must_use]
    pub fn without_person(self) -> Self {
        let reason = Reason {
            policy_type: PolicyType::Guardrail,
            fix: "let a person ask, or let the agent act for one: a token with `act` (RFC 8693), or with the claim that \
                  the issuer's `on_behalf_of_claim` names"
                .to_owned(),
            ..Reason::built_in(
                "builtin.nobody-behind",
                "this needs an approval, and an agent or a service account that acts for nobody cannot ask for one",
            )
        };
        let (warnings, shadow, policy_error) = (self.warnings, self.shadow, self.policy_error);
        Self { warnings, shadow, policy_error, ..Self::deny(vec![reason]) }
    }

    /// Puts everything into one order, whatever order policies were evaluated in.
    fn sort(&mut self) {
        for list in [&mut self.reasons, &mut self.warnings, &mut self.shadow] {
            list.sort();
            list.dedup();
        }
    }
}

/// Combines what access allowed with the hits of the guardrails: the highest of deny, approval and allow.
/// Approvals are united by group with the larger quorum, and count as given only when the approval that was
/// named is approved, is bound to this very plan, and asked each group for at least as many people.
pub fn with_guardrails(
    mut allowed: Outcome,
    hits: Vec<GuardrailHit>,
    approval: Option<&GivenApproval>,
    context: &Context,
) -> Outcome {
    let (mut denied, mut asked) = (Vec::new(), Vec::new());
    for hit in hits {
        match (hit.mode, hit.verdict) {
            (Mode::Off, _) => {}
            (Mode::Shadow, _) => allowed.shadow.push(hit.reason),
            (Mode::Warn, _) | (Mode::Enforce, Verdict::Warn) => allowed.warnings.push(hit.reason),
            (Mode::Enforce, Verdict::Deny) => denied.push(hit.reason),
            (Mode::Enforce, Verdict::Approve(groups)) => {
                for (group, quorum) in groups {
                    let needed = allowed.approvals.entry(group).or_default();
                    needed.quorum = needed.quorum.max(quorum);
                    needed.rule_ids.insert(hit.reason.rule_id.clone());
                }
                asked.push(hit.reason);
            }
        }
    }
    let given = approval.filter(|approval| approval.covers(context));
    let met = |group: &String, needed: &Needed| {
        given.and_then(|given| given.requirements.get(group)).is_some_and(|quorum| *quorum >= needed.quorum)
    };
    if !denied.is_empty() {
        allowed.effect = Effect::Deny;
        allowed.reasons = denied;
        allowed.approvals.clear();
    } else if allowed.approvals.iter().all(|(group, needed)| met(group, needed)) {
        allowed.reasons.extend(asked);
        allowed.approvals.clear();
    } else {
        allowed.effect = Effect::RequireApproval;
        allowed.reasons = asked;
    }
    allowed.sort();
    allowed
}

/// What is said about access: hits of permits and forbids, errors apart.
#[derive(Debug, Clone, Default)]
pub struct AccessHits {
    /// Permits that hold: role bindings, policies, what is built in.
    pub permits: Vec<Reason>,
    /// Forbids that hold, with the mode in which they are in force.
    pub forbids: Vec<(Mode, Reason)>,
    /// Forbids that could not be evaluated.
    pub errors: Vec<(Mode, Reason)>,
    /// Permits that are tried out, or could not be evaluated: they grant nothing.
    pub shadow: Vec<Reason>,
}

/// Default deny, forbid overrides, and an error of a forbid denies.
pub fn access(hits: AccessHits, action: &str, granting_roles: impl FnOnce() -> Vec<String>) -> Outcome {
    let AccessHits { permits, forbids, errors, shadow } = hits;
    let failed = errors.iter().any(|(mode, _)| *mode == Mode::Enforce);
    let mut outcome = Outcome { shadow, policy_error: failed, ..Outcome::allow(Vec::new()) };
    for (mode, reason) in forbids.into_iter().chain(errors) {
        match mode {
            Mode::Off => {}
            Mode::Shadow => outcome.shadow.push(reason),
            Mode::Warn => outcome.warnings.push(reason),
            Mode::Enforce => outcome.reasons.push(reason),
        }
    }
    if !outcome.reasons.is_empty() {
        outcome.effect = Effect::Deny;
    } else if permits.is_empty() {
        let text = format!("no role and no policy permits `{action}` here");
        outcome.effect = Effect::Deny;
        outcome.reasons = vec![Reason::built_in("builtin.default-deny", text)];
        outcome.granting_roles = granting_roles();
    } else {
        outcome.reasons = permits;
    }
    outcome.sort();
    outcome
}
