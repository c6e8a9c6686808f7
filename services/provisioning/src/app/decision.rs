//! Policy's answer to a plan: every question at once, and the answers united into one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures::future::join_all;
use pavior_auth::Permit;
use pavior_core::audit::DecisionRef;
use pavior_core::principal::Principal;
use pavior_proto::pavior::catalog::v1 as catalog;
use pavior_proto::pavior::governance::internal::v1::ResourceFacts;
use pavior_proto::pavior::policy::internal::v1 as decision_pb;
use pavior_proto::pavior::policy::internal::v1::DecisionStage;
use pavior_proto::pavior::policy::v1::{self as policy, Effect, PolicyType};
use pavior_rpc::problem::reason_name;
use pavior_rpc::{ErrorReason, Problem, convert};

use super::peers::Asking;
use super::{App, ChangeContext};
use crate::domain::entry::owning_group;
use crate::domain::environment::Environment;
use crate::domain::names;
use crate::domain::operation::Operation;
use crate::domain::plan::{Given, Kind, Plan};
use crate::domain::project::Project;
use crate::domain::question::{ENTITY, ENVIRONMENT, Question, Subject};
use crate::error::{Error, Result};
use crate::store::denied_event;

/// How many entries of the catalog are asked for beside each other.
const ENTITIES_AT_ONCE: usize = 8;

/// What policy says to a plan as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    /// The strongest answer, with the reasons and approvals of all that say the same.
    pub(crate) decision: policy::Decision,
    /// The single answers, in the order of the questions.
    pub(crate) answers: Vec<Given>,
    /// The question that the strongest answer was given to.
    foremost: usize,
}

impl Verdict {
    pub(crate) fn effect(&self) -> Effect {
        self.decision.effect()
    }
}

impl App {
    /// Asks everything about a plan.
    pub(crate) async fn ask_policy(
        &self,
        asking: Asking,
        plan: &Plan,
        questions: &[Question],
        labels: &BTreeMap<String, String>,
    ) -> Result<Verdict> {
        let parameters = convert::to_struct(&plan.parameters).ok();
        let wire = |question: &Question| wire(question, plan, parameters.clone(), labels);
        let decisions = self.peers.decide(asking, questions.iter().map(wire).collect()).await?;
        unite(&decisions)
            .ok_or_else(|| Problem::unavailable("policy gave no answer").with("dependency", "policy").into())
    }

    /// Asks everything about a plan once more, as things are now: right before it begins, or is taken up again.
    pub(crate) async fn ask_policy_again(
        &self,
        principal: &Principal,
        op: &Operation,
        plan: &Plan,
    ) -> Result<Verdict> {
        let permit = self.own_permit(&op.organization);
        let stale = |what: &str| Error::from(Problem::precondition(ErrorReason::PlanStale, what.to_owned()));
        if plan.questions.is_empty() {
            return Err(stale("the plan was made by a version that did not ask about all of it: ask anew"));
        }
        let (questions, labels) = self
            .as_they_are(&permit, op, plan.questions.clone())
            .await?
            .ok_or_else(|| stale("the project of the plan is gone"))?;
        let asking = Asking {
            principal: principal.clone(),
            organization: op.organization.clone(),
            stage: DecisionStage::Execution,
            approval: op.approval.clone(),
            dry_run: false,
        };
        self.ask_policy(asking, plan, &questions, &labels).await
    }

    /// The questions with what is recorded now of the things that they are about; none without the project, unless what
    /// is removed was left behind by one.
    async fn as_they_are(
        &self,
        permit: &Permit,
        op: &Operation,
        mut questions: Vec<Question>,
    ) -> Result<Option<(Vec<Question>, BTreeMap<String, String>)>> {
        let (project, environments) = futures::future::join(
            self.db.find_project(permit, &op.project),
            self.db.environments_of_project(permit, &op.project),
        )
        .await;
        let (project, environments) = (project?, environments?);
        if project.is_none() && op.kind != Kind::DeleteOrphan {
            return Ok(None);
        }
        let subjects = questions.iter().map(|question| &question.subject);
        let entities = subjects.filter(|subject| subject.kind == ENTITY).map(|subject| subject.name.as_str());
        let entities = self.entities(permit, entities.collect()).await?;
        for question in &mut questions {
            refresh(question, project.as_ref(), &environments, &entities);
        }
        Ok(Some((questions, project.map(|project| project.labels).unwrap_or_default())))
    }

    /// The entries of the catalog as they are now, by name and by identity; what is gone is not there.
    pub(crate) async fn entities(
        &self,
        permit: &Permit,
        names: BTreeSet<&str>,
    ) -> Result<BTreeMap<String, Subject>> {
        let names: Vec<&str> = names.into_iter().collect();
        let mut found = BTreeMap::new();
        for some in names.chunks(ENTITIES_AT_ONCE) {
            let reads = join_all(some.iter().map(|name| self.peers.find_entity(permit, name))).await;
            for entity in reads.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten() {
                let catalog::Entity { name, uid, owner, labels, .. } = entity;
                let subject = Subject::entity(&name, owning_group(&owner), labels.into_iter().collect());
                found.insert(names::entity_identity(&name, &uid), subject.clone());
                found.insert(name, subject);
            }
        }
        Ok(found)
    }

    /// What a denial means for the caller. Recorded, also where only the plan was asked for: nobody tries out what policy
    /// lets through without a trace.
    pub(crate) async fn denied(&self, context: &ChangeContext, plan: &Plan, verdict: &Verdict) -> Error {
        let problem = denial(plan, verdict);
        let event =
            denied_event(&self.db, &context.permit, &context.request_id, plan, reason_name(problem.reason));
        match self.db.record_unscoped(event).await {
            Ok(()) => problem.into(),
            Err(error) => error,
        }
    }
}

fn refresh(
    question: &mut Question,
    project: Option<&Project>,
    environments: &[Environment],
    entities: &BTreeMap<String, Subject>,
) {
    if question.is_of_catalog() {
        if let Some(entity) = entities.get(&question.subject.name) {
            question.subject.clone_from(entity);
            question.moves_owner = !question.new_owner.is_empty() && question.new_owner != entity.owner;
        }
        return;
    }
    let Some(project) = project else { return };
    if !question.new_owner.is_empty() {
        question.new_owner.clone_from(&project.owner);
    }
    let subject = &mut question.subject;
    if subject.project.is_empty() {
        return;
    }
    subject.owner.clone_from(&project.owner);
    let own = environments.iter().find(|environment| environment.name == subject.name);
    if let (Some(own), ENVIRONMENT) = (own, subject.kind.as_str()) {
        subject.environment_class.clone_from(&own.class);
        question.environment_class.clone_from(&own.class);
    }
}

fn wire(
    question: &Question,
    plan: &Plan,
    parameters: Option<prost_types::Struct>,
    labels: &BTreeMap<String, String>,
) -> (String, ResourceFacts, decision_pb::DecisionContext) {
    // What somebody who changes the catalog is asked knows of no plan.
    let planned = !question.is_of_catalog();
    let Question {
        action,
        subject,
        environment_class,
        template_version,
        new_owner,
        moves_owner,
        counts,
        resource_types,
    } = question;
    let [create, update, replace, delete] = counts.map(|count| i32::try_from(count).unwrap_or(i32::MAX));
    let context = decision_pb::DecisionContext {
        environment_class: environment_class.clone(),
        template_version: template_version.clone(),
        parameters: parameters.filter(|_| planned),
        create_count: create,
        update_count: update,
        replace_count: replace,
        delete_count: delete,
        resource_types: resource_types.clone(),
        new_owner: new_owner.clone(),
        // What is made gets the labels of its project.
        labels: if new_owner.is_empty() || !planned {
            HashMap::new()
        } else {
            labels.clone().into_iter().collect()
        },
        plan_digest: plan.digest.clone(),
        moves_owner: *moves_owner,
        changes_labels: false,
    };
    (action.clone(), facts(subject, labels), context)
}

/// What policy is told about a thing.
pub(crate) fn facts(subject: &Subject, labels: &BTreeMap<String, String>) -> ResourceFacts {
    let Subject { name, kind, owner, project, environment_class, labels: own } = subject.clone();
    ResourceFacts {
        name,
        // What the plan has yet to make is there when the rest of the plan acts on it.
        exists: true,
        r#type: kind,
        owner,
        labels: if project.is_empty() {
            own.into_iter().collect()
        } else {
            labels.clone().into_iter().collect()
        },
        project,
        environment_class,
        owner_changes: Vec::new(),
    }
}

/// How strong an answer is; none for one that is no answer.
fn rank(effect: Effect) -> Option<u8> {
    match effect {
        Effect::Allow => Some(0),
        Effect::RequireApproval => Some(1),
        Effect::Deny => Some(2),
        Effect::Unspecified => None,
    }
}

/// The strongest of all answers: a denial over an approval over a yes. None when an answer is missing.
pub(crate) fn unite(decisions: &[policy::Decision]) -> Option<Verdict> {
    let ranks: Option<Vec<u8>> = decisions.iter().map(|decision| rank(decision.effect())).collect();
    let (ranks, strongest) = ranks.and_then(|ranks| ranks.iter().max().copied().map(|most| (ranks, most)))?;
    let same = || decisions.iter().zip(&ranks).filter(|(_, rank)| **rank == strongest).map(|(one, _)| one);
    // Of several denials, one that says that the caller may not comes before one that says what may be asked for.
    let lacking = |decision: &policy::Decision| decision.effect() == Effect::Deny && !by_guardrail(decision);
    let foremost =
        decisions.iter().position(lacking).or_else(|| ranks.iter().position(|rank| *rank == strongest))?;
    let mut decision = decisions.get(foremost)?.clone();
    decision.reasons = each(same().flat_map(|one| &one.reasons));
    decision.warnings = each(decisions.iter().flat_map(|one| &one.warnings));
    decision.granting_roles = each(same().flat_map(|one| &one.granting_roles));
    decision.requirements = requirements(same().flat_map(|one| &one.requirements));
    let answers = decisions.iter().map(|one| Given {
        decision: one.name.clone(),
        effect: one.effect().as_str_name().trim_start_matches("EFFECT_").to_owned(),
    });
    Some(Verdict { answers: answers.collect(), decision, foremost })
}

/// Each once, in order.
fn each<'a, T: Clone + PartialEq + 'a>(all: impl Iterator<Item = &'a T>) -> Vec<T> {
    let mut found: Vec<T> = Vec::new();
    for one in all {
        if !found.contains(one) {
            found.push(one.clone());
        }
    }
    found
}

/// By group, with the larger quorum and the shorter wait.
fn requirements<'a>(
    all: impl Iterator<Item = &'a policy::ApprovalRequirement>,
) -> Vec<policy::ApprovalRequirement> {
    let mut by_group: BTreeMap<&str, policy::ApprovalRequirement> = BTreeMap::new();
    for one in all {
        let needed = by_group
            .entry(&one.group)
            .or_insert_with(|| policy::ApprovalRequirement { rule_ids: Vec::new(), ..one.clone() });
        needed.quorum = needed.quorum.max(one.quorum);
        needed.rule_ids.extend(one.rule_ids.iter().cloned());
        needed.rule_ids.sort();
        needed.rule_ids.dedup();
        let longer = |a: &prost_types::Duration, b: &prost_types::Duration| {
            (a.seconds, a.nanos) > (b.seconds, b.nanos)
        };
        if let (Some(wait), Some(other)) = (&needed.ttl, &one.ttl)
            && longer(wait, other)
        {
            needed.ttl = Some(*other);
        }
    }
    by_group.into_values().collect()
}

fn by_guardrail(decision: &policy::Decision) -> bool {
    !decision.reasons.is_empty()
        && decision.reasons.iter().all(|reason| reason.policy_type() == PolicyType::Guardrail)
}

/// A denial as a problem: a guardrail names its rules and what would be allowed, anything else is a lack of permission.
pub(crate) fn denial(plan: &Plan, verdict: &Verdict) -> Problem {
    let (decision, action, resource) = blamed(plan, verdict);
    let mut problem = denial_of(decision, action, resource);
    let owner = plan.settings.get("owner").and_then(serde_json::Value::as_str).unwrap_or_default();
    if !by_guardrail(decision) && plan.kind == Kind::CreateProject && !owner.is_empty() {
        // Named as it was asked for, which tells nothing of whether there is one.
        problem.message.push_str(&format!(
            "; it was asked with `project.owner` = `{owner}`, and whoever makes something for a group must be allowed to"
        ));
        problem = problem.with("field", "project.owner");
    }
    problem
}

/// The same of one decision.
pub(super) fn denial_of(decision: &policy::Decision, action: &str, resource: &str) -> Problem {
    let rules = decision.reasons.iter().map(|reason| reason.rule_id.as_str());
    let rules = DecisionRef::each_once(rules).join(",");
    if !by_guardrail(decision) {
        let problem = Problem::permission_denied(action, resource).with("decision", &decision.name);
        return match rules.is_empty() {
            true => problem,
            false => problem.with("rules", rules),
        };
    }
    let message = format!("policy does not allow this: {}", messages(decision));
    let mut problem = Problem::precondition(ErrorReason::GuardrailDenied, message)
        .with("decision", &decision.name)
        .with("rules", rules)
        .with("action", action);
    for reason in &decision.reasons {
        let description = match reason.fix.as_str() {
            "" => reason.message.clone(),
            fix => format!("{}: {fix}", reason.message),
        };
        problem = problem.because("POLICY", &reason.rule_id, description);
    }
    problem
}

/// What is needed first, of a plan that cannot wait for it.
pub(crate) fn unapproved(plan: &Plan, verdict: &Verdict) -> Problem {
    let (decision, action, resource) = blamed(plan, verdict);
    let message = format!("`{action}` on `{resource}` needs an approval");
    decision.requirements.iter().fold(
        Problem::precondition(ErrorReason::NotApproved, message)
            .with("action", action)
            .with("decision", &decision.name),
        |problem, needed| {
            let who = format!("{} of `{}` must approve", needed.quorum, needed.group);
            problem.because("POLICY", needed.rule_ids.join(","), who)
        },
    )
}

/// What policies say, for people.
pub(crate) fn messages(decision: &policy::Decision) -> String {
    let messages: Vec<&str> = decision.reasons.iter().map(|reason| reason.message.as_str()).collect();
    messages.join("; ")
}

/// The action and the resource of the question that decided.
fn blamed<'a>(plan: &'a Plan, verdict: &'a Verdict) -> (&'a policy::Decision, &'a str, &'a str) {
    let question = plan.questions.get(verdict.foremost).filter(|_| verdict.foremost > 0);
    let (action, resource) = question.map_or((plan.action.as_str(), plan.target.as_str()), |question| {
        (question.action.as_str(), question.subject.name.as_str())
    });
    (&verdict.decision, action, resource)
}
