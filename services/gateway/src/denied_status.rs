//! What a *no* of policy looks like to whoever asked.

use pavior_core::audit::{self, DecisionRef};
use pavior_proto::pavior::policy::v1::{Decision, Effect, PolicyType, Reason};
use pavior_rpc::problem::{ErrorReason, Problem};
use tonic::{Code, Status};

use crate::resource::Resource;

/// Of the rules that spoke, so many are named: in the answer, and in the token that goes on.
const MAX_RULES: usize = 20;
/// Of what they say, so many bytes are told.
const MAX_TEXT: usize = 1_000;
/// A call that may not.
pub(crate) struct Refused {
    pub(crate) status: Status,
    /// Set when it is a *no* to somebody known, which is recorded.
    pub(crate) denial: Option<Denial>,
}

pub(crate) struct Denial {
    pub(crate) resource: String,
    pub(crate) decision: Option<DecisionRef>,
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self { status: problem.into(), denial: None }
    }
}

pub(crate) fn access_denied(action: &str, resource: &str, because: &str) -> Problem {
    let mut text = format!("Permission '{action}' denied on resource '{resource}' (or it might not exist).");
    if !because.is_empty() {
        text.push(' ');
        text.push_str(because);
    }
    Problem::new(Code::PermissionDenied, ErrorReason::AccessDenied, text).with("action", action)
}

/// The ids of the rules that spoke, as many as fit into a header.
fn rules(reasons: &[Reason]) -> Vec<String> {
    let mut ids = DecisionRef::each_once(reasons.iter().map(|reason| reason.rule_id.as_str()));
    ids.truncate(MAX_RULES);
    ids
}

/// What the policies say, as much as fits into a header.
fn texts(reasons: &[Reason]) -> String {
    let texts: Vec<&str> = (reasons.iter().take(MAX_RULES))
        .map(|reason| reason.message.as_str())
        .filter(|text| !text.is_empty())
        .collect();
    let mut text = texts.join("; ");
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// What a *no* of policy looks like: PERMISSION_DENIED when the caller may not, FAILED_PRECONDITION with the way out
/// when only guardrails object to what is asked for.
pub(crate) fn denied(
    action: &str,
    resource: &Resource,
    decision: &Decision,
    reference: DecisionRef,
) -> Refused {
    let reasons = &decision.reasons;
    let guardrail =
        !reasons.is_empty() && reasons.iter().all(|reason| reason.policy_type() == PolicyType::Guardrail);
    let because = texts(reasons);
    let mut problem = if guardrail {
        let text = format!("guardrails do not allow `{action}` on `{}`: {}", resource.name, because);
        reasons.iter().take(MAX_RULES).fold(
            Problem::new(Code::FailedPrecondition, ErrorReason::GuardrailDenied, text).with("action", action),
            |problem, reason| {
                let way_out = if reason.fix.is_empty() { &reason.message } else { &reason.fix };
                problem.because("POLICY", reason.rule_id.as_str(), way_out.as_str())
            },
        )
    } else {
        access_denied(action, &resource.name, &because)
    };
    problem = problem.with("decision", decision.name.as_str()).with("rules", rules(reasons).join(","));
    if !decision.granting_roles.is_empty() {
        let roles: Vec<&str> = decision.granting_roles.iter().take(MAX_RULES).map(String::as_str).collect();
        problem = problem.with("grantingRoles", roles.join(","));
    }
    let denial = Denial { resource: resource.name.clone(), decision: Some(reference) };
    Refused { status: problem.into(), denial: Some(denial) }
}

/// Approval is asked for a call that has no plan which could be approved.
pub(crate) fn unapproved(
    action: &str,
    resource: &Resource,
    decision: &Decision,
    reference: DecisionRef,
) -> Refused {
    let text = format!("`{action}` on `{}` needs an approval", resource.name);
    let problem = decision.requirements.iter().fold(
        Problem::precondition(ErrorReason::NotApproved, text)
            .with("action", action)
            .with("decision", decision.name.as_str()),
        |problem, approval| {
            let needed = format!("{} of `{}` must approve", approval.quorum, approval.group);
            problem.because("POLICY", approval.rule_ids.join(","), needed)
        },
    );
    let denial = Denial { resource: resource.name.clone(), decision: Some(reference) };
    Refused { status: problem.into(), denial: Some(denial) }
}

pub(crate) fn reference(decision: &Decision) -> DecisionRef {
    let effect = match decision.effect() {
        Effect::Allow => audit::Effect::Allow,
        Effect::RequireApproval => audit::Effect::RequireApproval,
        Effect::Deny | Effect::Unspecified => audit::Effect::Deny,
    };
    DecisionRef {
        decision: decision.name.clone(),
        effect,
        policies_digest: decision.policies_digest.clone(),
        rule_ids: rules(&decision.reasons),
        approvals: Vec::new(),
    }
}
