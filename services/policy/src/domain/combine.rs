//! Combines the matches of policies into one outcome. Independent of the engine and of the order of the matches.

use std::collections::{BTreeMap, BTreeSet};

use super::annotation::{GuardrailEffect, Level};
use super::input::{Context, GivenApproval};
use super::policy::PolicyType;
use super::policy_binding::Mode;

/// The effect of a decision, from the weakest to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// The action is allowed.
    Allow,
    /// The action is allowed once the required approvals are given.
    RequireApproval,
    /// The action is denied.
    Deny,
}

impl Effect {
    /// Its name in the API, without the prefix.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::RequireApproval => "REQUIRE_APPROVAL",
            Self::Deny => "DENY",
        }
    }
}

/// A rule that matched, with what it says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason {
    /// The id of the rule.
    pub rule_id: String,
    /// The resource name of the policy or role binding; empty for what is built in.
    pub policy: String,
    /// The resource name of the policy's revision that was evaluated; empty for what is no policy.
    pub revision: String,
    /// The type of the policy.
    pub policy_type: PolicyType,
    /// The level of a guardrail; `None` for access.
    pub level: Option<Level>,
    /// The message for people.
    pub message: String,
    /// How to become compliant.
    pub fix: String,
    /// The address of further documentation.
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

/// A guardrail that matched or could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GuardrailHit {
    /// The rule.
    pub reason: Reason,
    /// The mode of enforcement for this input.
    pub mode: Mode,
    /// The verdict; an evaluation error denies.
    pub verdict: Verdict,
}

/// The verdict of a guardrail that matched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// A warning.
    Warn,
    /// Approvals are required: quorums by group id.
    Approve(BTreeMap<String, u32>),
    /// A denial.
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

/// The approvals of one group that are required.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needed {
    /// The number of distinct people.
    pub quorum: u32,
    /// The ids of the rules that require it.
    pub rule_ids: BTreeSet<String>,
}

/// The outcome of an evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The effect.
    pub effect: Effect,
    /// What determined the effect.
    pub reasons: Vec<Reason>,
    /// Matches that only warn.
    pub warnings: Vec<Reason>,
    /// Matches of policies in shadow mode: recorded, and not part of the answer.
    pub shadow: Vec<Reason>,
    /// The approvals that are required before the action is allowed, by group id.
    pub approvals: BTreeMap<String, Needed>,
    /// If no role grants the action: the resource names of roles that would.
    pub granting_roles: Vec<String>,
    /// Whether a policy could not be evaluated.
    pub policy_error: bool,
}

impl Outcome {
    /// A denial.
    pub fn deny(reasons: Vec<Reason>) -> Self {
        Self { effect: Effect::Deny, reasons, ..Self::allow(Vec::new()) }
    }

    /// The action is allowed.
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

    /// The union of two outcomes: the stricter effect, with everything that led to it in either.
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

    /// A denial in place of a requirement of approval, for a principal that acts for no person: nobody could be kept from
    /// approving their own request.
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

    /// Sorts the lists, so that the outcome does not depend on the order of evaluation.
    fn sort(&mut self) {
        for list in [&mut self.reasons, &mut self.warnings, &mut self.shadow] {
            list.sort();
            list.dedup();
        }
    }
}

/// Combines the outcome of access with the matches of the guardrails: the highest of deny, approval and allow.
/// Required approvals are merged by group with the larger quorum. They are given if the approval that the caller named is
/// approved, is bound to the digest of this plan, and required at least this quorum of each group.
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

/// The matches of access rules, with evaluation errors apart.
#[derive(Debug, Clone, Default)]
pub struct AccessHits {
    /// Permits that matched: role bindings, policies and built-in ones.
    pub permits: Vec<Reason>,
    /// Forbids that matched, with their mode of enforcement.
    pub forbids: Vec<(Mode, Reason)>,
    /// Forbids that could not be evaluated.
    pub errors: Vec<(Mode, Reason)>,
    /// Permits in shadow or warn mode, and those that could not be evaluated: they grant nothing.
    pub shadow: Vec<Reason>,
}

/// Denies by default; a forbid overrides every permit; a forbid that cannot be evaluated denies.
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
