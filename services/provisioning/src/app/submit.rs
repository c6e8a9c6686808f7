//! The one way in which an operation comes to be: a plan, policy's answer to it, and a transaction that accepts both.

use std::collections::HashMap;

use pavior_proto::pavior::governance::v1::ResourceFacts;
use pavior_proto::pavior::policy::v1::{self as policy, DecisionStage, Effect};
use pavior_rpc::{ErrorReason, Problem, convert};
use pavior_store::idempotency;
use serde_json::Value;
use uuid::Uuid;

use super::peers::Question;
use super::{Answer, App, Ask};
use crate::domain::plan::{Action, Change, Kind, Plan};
use crate::domain::{cost, names};
use crate::engine::ENGINE_VERSION;
use crate::error::{Error, Result};
use crate::store::{
    Admission, NewEnvironment, NewOperation, NewProject, OperationView, Started, denied_event,
};

/// What is proposed, before policy has seen it.
#[derive(Debug, Clone)]
pub(crate) struct Proposal {
    pub(crate) kind: Kind,
    pub(crate) target: String,
    pub(crate) changes: Vec<Change>,
    /// Monthly costs of what the target has now.
    pub(crate) costs: Vec<String>,
    pub(crate) template_version: String,
    pub(crate) parameters: Value,
    pub(crate) settings: Value,
    pub(crate) project: Option<NewProject>,
    pub(crate) environments: Vec<NewEnvironment>,
    pub(crate) revision: Option<i64>,
    pub(crate) deployment_id: String,
    /// What policy is told about the thing that the request names.
    pub(crate) facts: ResourceFacts,
    pub(crate) environment_class: String,
    pub(crate) new_owner: String,
    pub(crate) labels: HashMap<String, String>,
    pub(crate) verb: &'static str,
}

impl App {
    /// The operation that answered the same request before.
    pub(crate) async fn replayed(&self, ask: &Ask) -> Result<Option<Answer>> {
        let Some((key, hash)) = self.key(ask) else { return Ok(None) };
        match self.db.replayed(&key, &hash).await? {
            Some(id) => Ok(Some(Answer::Operation(Box::new(self.view_by_id(id).await?)))),
            None => Ok(None),
        }
    }

    pub(crate) fn key(&self, ask: &Ask) -> Option<(idempotency::Key, Vec<u8>)> {
        if ask.request_id.is_empty() || ask.validate_only {
            return None;
        }
        let (organization, principal) = (ask.permit.organization(), &ask.permit.principal().name);
        let key = idempotency::Key::new(organization, principal, ask.action, &ask.request_id);
        Some((key, ask.hash.to_vec()))
    }

    /// An operation with its steps, by its id.
    pub(crate) async fn view_by_id(&self, id: Uuid) -> Result<OperationView> {
        let op = self.db.operation_by_id_unscoped(id).await?;
        let op = op.ok_or_else(|| Error::NotFound { kind: "operation", name: id.to_string() })?;
        let steps = self.db.steps_unscoped(id).await?;
        Ok(OperationView { op, steps })
    }

    /// Plans, asks, and begins.
    pub(crate) async fn submit(&self, ask: &Ask, proposal: Proposal) -> Result<Answer> {
        let mut plan = self.plan_of(ask, &proposal);
        let decision = self.peers.decide(self.question(ask, &proposal, &plan)).await?;
        plan.decision = convert::to_json(&decision).map_err(|error| Error::Corrupt(error.to_string()))?;
        let admission = match Effect::try_from(decision.effect) {
            Ok(Effect::Allow) => Admission::Run,
            Ok(Effect::RequireApproval) => Admission::AskPeople,
            Ok(Effect::Deny) => return Err(self.denied(ask, &plan, &decision).await),
            Ok(Effect::Unspecified) | Err(_) => {
                return Err(Problem::unavailable("policy gave no answer")
                    .with("dependency", "policy")
                    .into());
            }
        };
        if ask.validate_only {
            return Ok(Answer::Plan(Box::new(plan)));
        }
        let id = self.db.ids.uuid();
        let new = NewOperation {
            id,
            plan,
            principal: ask.permit.principal().clone(),
            key: self.key(ask),
            admission,
            deadline_micros: self.deadline_micros(),
            project: proposal.project,
            environments: proposal.environments,
            revision: proposal.revision,
            deployment_id: proposal.deployment_id,
            engine_version: ENGINE_VERSION,
        };
        match self.db.accept(new).await? {
            Started::New(id) => {
                self.engine.changed(id);
                self.engine.wake();
                if admission == Admission::AskPeople {
                    self.ask_people(id).await;
                }
                Ok(Answer::Operation(Box::new(self.view_by_id(id).await?)))
            }
            Started::Before(id) => Ok(Answer::Operation(Box::new(self.view_by_id(id).await?))),
        }
    }

    pub(crate) fn deadline_micros(&self) -> i64 {
        i64::try_from(self.config.operation_timeout_ms.saturating_mul(1_000)).unwrap_or(i64::MAX)
    }

    fn plan_of(&self, ask: &Ask, proposal: &Proposal) -> Plan {
        let now = self.db.now();
        let changed = |change: &&Change| change.action != Action::Noop;
        let after = match proposal.kind {
            Kind::DestroyProject | Kind::DestroyEnvironment => String::new(),
            _ => {
                let made = proposal.changes.iter().filter(changed).filter(|c| c.action == Action::Create);
                let made: Vec<&str> = made.map(|change| change.monthly_cost.as_str()).collect();
                cost::sum(proposal.costs.iter().map(String::as_str).chain(made))
            }
        };
        let mut plan = Plan {
            id: self.db.ids.uuid(),
            organization: ask.permit.organization().to_owned(),
            kind: proposal.kind,
            action: ask.action.to_owned(),
            target: proposal.target.clone(),
            changes: proposal.changes.clone(),
            monthly_cost_before: cost::sum(proposal.costs.iter().map(String::as_str)),
            monthly_cost_after: after,
            template_version: proposal.template_version.clone(),
            parameters: proposal.parameters.clone(),
            settings: proposal.settings.clone(),
            requester: ask.permit.principal().name.clone(),
            summary: String::new(),
            create_time: now,
            expire_time: now + time::Duration::seconds(self.config.plan_ttl_seconds),
            digest: String::new(),
            decision: Value::Null,
        };
        plan.summary = plan.summarize(proposal.verb);
        plan.digest = plan.compute_digest();
        plan
    }

    fn question(&self, ask: &Ask, proposal: &Proposal, plan: &Plan) -> Question {
        Question {
            principal: ask.permit.principal().clone(),
            organization: ask.permit.organization().to_owned(),
            action: ask.action.to_owned(),
            resource: proposal.facts.clone(),
            context: context_of(plan, &proposal.environment_class, &proposal.new_owner, &proposal.labels),
            stage: DecisionStage::Plan,
            approval_request: String::new(),
            dry_run: ask.validate_only,
        }
    }

    /// What a denial means for the caller. Recorded, and nothing else is written.
    async fn denied(&self, ask: &Ask, plan: &Plan, decision: &policy::Decision) -> Error {
        if !ask.validate_only {
            let event = denied_event(&self.db, ask.permit.principal(), plan, ask.permit.request_id());
            if let Err(error) = self.db.record_denial(event).await {
                return error;
            }
        }
        denial(ask.action, &plan.target, decision).into()
    }
}

/// What policy is told about a plan.
pub(crate) fn context_of(
    plan: &Plan,
    environment_class: &str,
    new_owner: &str,
    labels: &HashMap<String, String>,
) -> policy::DecisionContext {
    let count = |action| i32::try_from(plan.count(action)).unwrap_or(i32::MAX);
    let mut resource_types: Vec<String> =
        plan.steps().map(|change| names::last(&change.resource_type).to_owned()).collect();
    resource_types.sort();
    resource_types.dedup();
    policy::DecisionContext {
        environment_class: environment_class.to_owned(),
        template_version: plan.template_version.clone(),
        parameters: convert::to_struct(&plan.parameters).ok(),
        create_count: count(Action::Create),
        update_count: count(Action::Update),
        replace_count: count(Action::Replace),
        delete_count: count(Action::Delete),
        resource_types,
        new_owner: new_owner.to_owned(),
        labels: labels.clone(),
        plan_digest: plan.digest.clone(),
    }
}

/// A denial as a problem: a guardrail names its rules and what would be allowed, anything else is a lack of permission.
pub(crate) fn denial(action: &str, target: &str, decision: &policy::Decision) -> Problem {
    let guardrail =
        !decision.reasons.is_empty() && decision.reasons.iter().all(|r| r.policy_set == "guardrail");
    let policies: Vec<&str> = decision.reasons.iter().map(|reason| reason.policy_id.as_str()).collect();
    let policies = policies.join(",");
    if !guardrail {
        let mut problem = Problem::permission_denied(action, target).with("decision", &decision.id);
        if !policies.is_empty() {
            problem = problem.with("policies", policies);
        }
        return problem;
    }
    let messages: Vec<&str> = decision.reasons.iter().map(|reason| reason.message.as_str()).collect();
    let message = format!("policy does not allow this: {}", messages.join("; "));
    let mut problem = Problem::precondition(ErrorReason::GuardrailDenied, message)
        .with("decision", &decision.id)
        .with("policies", policies)
        .with("action", action);
    for reason in &decision.reasons {
        let description = match reason.fix.as_str() {
            "" => reason.message.clone(),
            fix => format!("{}: {fix}", reason.message),
        };
        problem = problem.because("POLICY", &reason.policy_id, description);
    }
    problem
}
