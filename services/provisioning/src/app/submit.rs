//! The one way in which an operation comes to be: a plan, policy's answer to it, and a transaction that accepts both.

use std::collections::BTreeMap;

use pavior_auth::Permit;
use pavior_core::digest::Digest;
use pavior_core::{Principal, PrincipalKind};
use pavior_proto::pavior::policy::internal::v1::DecisionStage;
use pavior_proto::pavior::policy::v1::Effect as PolicyEffect;
use pavior_rpc::{ErrorReason, Problem, convert};
use pavior_store::{StoreError, idempotency};
use prost::Message;
use serde_json::{Value, json};
use uuid::Uuid;

use super::decision::facts;
use super::facts::{environment_subject, project_subject, seen, touched};
use super::peers::Asking;
use super::plan::{expected, stale};
use super::{Answer, App, ChangeContext, Goal};
use crate::domain::cost;
use crate::domain::environment::Environment;
use crate::domain::names;
use crate::domain::operation::{Operation, OperationState};
use crate::domain::plan::{Change, Kind, Plan};
use crate::domain::project::Project;
use crate::domain::question::{Fate, Subject, Touched, Verb, WorksOn};
use crate::domain::questions;
use crate::engine::ENGINE_VERSION;
use crate::error::{Error, Result};
use crate::store::{Accepted, Admission, Makes, NewOperation, Ownership, Seen, planned_event};

/// What is proposed, before policy has seen it.
#[derive(Debug, Clone)]
pub(crate) struct Proposal {
    pub(crate) target: Target,
    /// In an order in which they can be made.
    pub(crate) changes: Vec<Change>,
    pub(crate) effect: Effect,
}

/// What a proposal is about, and what policy is told of it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// By resource name.
    pub(crate) name: String,
    /// Monthly costs of what it has now.
    pub(crate) costs: Vec<String>,
    /// The template version that it is made from, by resource name.
    pub(crate) template_version: String,
    /// The parameters that hold for it, with defaults.
    pub(crate) parameters: Value,
    /// What policy is told about the thing that the request names.
    pub(crate) asked: Verb,
    /// Everything else that the plan works on.
    pub(crate) works_on: WorksOn,
    /// The labels of the project.
    pub(crate) labels: BTreeMap<String, String>,
    /// The rows that it was planned with.
    pub(crate) seen: Seen,
}

impl Target {
    /// Something of a project as it is now, with the environments that something becomes of.
    pub(crate) fn new(project: &Project, subject: Subject, environments: Vec<Touched>) -> Self {
        Self {
            name: subject.name.clone(),
            costs: Vec::new(),
            template_version: project.template_version.clone(),
            parameters: json!({}),
            asked: Verb::on(subject),
            works_on: WorksOn::new(project_subject(project), environments),
            labels: project.labels.clone(),
            seen: seen(project, None),
        }
    }

    /// An environment as it is now, with what becomes of it.
    pub(crate) fn environment(project: &Project, row: &Environment, fate: Fate) -> Self {
        let target = Self::new(project, environment_subject(row, project), vec![touched(row, fate)]);
        Self { template_version: row.template_version.clone(), seen: seen(project, Some(row)), ..target }
    }
}

/// What becomes of the target besides its resources.
#[derive(Debug, Clone)]
pub(crate) struct Effect {
    pub(crate) kind: Kind,
    /// For people: `create environment`.
    pub(crate) verb: &'static str,
    /// What is carried out of the request at the end.
    pub(crate) settings: Value,
    pub(crate) makes: Makes,
}

impl Effect {
    /// One that makes nothing but the resources of its plan.
    pub(crate) fn new(kind: Kind, verb: &'static str, settings: Value) -> Self {
        Self { kind, verb, settings, makes: Makes::default() }
    }
}

impl App {
    /// The operation that answered the same request before. What is new is refused over an older copy before anything is
    /// looked at: what it does not know, or says otherwise, would be the answer.
    pub(crate) async fn replayed(&self, context: &ChangeContext) -> Result<Option<Answer>> {
        if let Some((key, hash)) = self.key(context)
            && let Some(accepted) = self.db.replayed_unscoped(&key, &hash).await?
        {
            return self.accepted(context, accepted).await.map(Some);
        }
        match self.db.history().apart() {
            Some(apart) => Err(StoreError::Apart(apart).into()),
            None => Ok(None),
        }
    }

    async fn accepted(&self, context: &ChangeContext, accepted: Accepted) -> Result<Answer> {
        let view = match accepted {
            Accepted::Fresh(view) => *view,
            Accepted::Replayed(id) => {
                let op = self.operation_by_id(id).await?;
                self.db.view_unscoped(op).await?
            }
            Accepted::Nothing => return Ok(Answer::Nothing),
        };
        Ok(Answer::Operation(Box::new(self.with_response(&context.permit, view).await?)))
    }

    /// What is to be taken down is not there, which is no error where that is `allowed`.
    pub(crate) async fn missing(
        &self,
        context: &ChangeContext,
        kind: &'static str,
        name: &str,
        allowed: bool,
    ) -> Result<Answer> {
        if let Goal::Execute { .. } = context.goal {
            // What was to be taken down when it was planned is gone by other hands.
            return Err(stale(&context.plan_digest, ""));
        }
        if !allowed {
            return Err(Error::NotFound { kind, name: name.to_owned() });
        }
        match self.key(context) {
            Some(key) => self.accepted(context, self.db.nothing_unscoped(&key).await?).await,
            None => Ok(Answer::Nothing),
        }
    }

    /// Before a request is refused: the same request may have been answered while this one was looked at, and what it
    /// did may be the very reason. Then its answer is the answer.
    pub(crate) async fn first_answer(&self, context: &ChangeContext, refusal: Error) -> Result<Answer> {
        match self.replayed(context).await {
            Ok(Some(answer)) => Ok(answer),
            Err(reused @ Error::Resource(pavior_resource::Error::RequestIdReused)) => Err(reused),
            Ok(None) | Err(_) => Err(self.explained(&context.permit, refusal).await),
        }
    }

    /// That something is worked on passes by itself; that an operation waits for people does not.
    pub(super) async fn explained(&self, permit: &Permit, refusal: Error) -> Error {
        let Error::Busy { name, operation } = refusal else { return refusal };
        let found = self.db.find_kept_operation(permit, &operation).await;
        let Some(op) = found.ok().flatten() else { return Error::Busy { name, operation } };
        let whom = match op.state {
            OperationState::Stuck => Some("an operator: it is stuck".to_owned()),
            OperationState::AwaitingApproval => Some(format!("approval `{}`", op.approval)),
            OperationState::Checking => Some("an approval".to_owned()),
            _ => None,
        };
        match (op.kind, whom) {
            (Kind::DeleteOrphan, whom) => Error::Removes { name, operation, whom },
            (_, Some(whom)) => Error::Waits { name, operation, whom },
            (_, None) => Error::Busy { name, operation },
        }
    }

    pub(crate) fn key(&self, context: &ChangeContext) -> Option<(idempotency::Key, Vec<u8>)> {
        if context.request_id.is_empty() || context.goal.only_plans() {
            return None;
        }
        let (organization, asker) = (context.permit.organization(), context.permit.principal().asker());
        let key = idempotency::Key::new(organization, &asker, &context.method, &context.request_id);
        Some((key, context.hash.to_vec()))
    }

    /// An operation by its id.
    pub(super) async fn operation_by_id(&self, id: Uuid) -> Result<Operation> {
        let op = self.db.operation_by_id_unscoped(id).await?;
        op.ok_or_else(|| Error::NotFound { kind: "Operation", name: id.to_string() })
    }

    /// Plans, asks, and begins.
    pub(crate) async fn submit(&self, context: &ChangeContext, mut proposal: Proposal) -> Result<Answer> {
        let project = names::project_of(&proposal.target.name);
        self.check_artifacts(&context.permit, &project, &proposal.changes).await?;
        let entities = questions::entities(proposal.changes.iter().filter(|change| change.is_step()));
        let own = self.own_permit(context.permit.organization());
        proposal.target.works_on.entities = self.entities(&own, entities).await?;
        let mut plan = self.plan_of(context, &proposal)?;
        expected(context, &plan)?;
        let asking = Asking {
            principal: context.permit.principal().clone(),
            organization: context.permit.organization().to_owned(),
            stage: DecisionStage::Plan,
            approval: String::new(),
            dry_run: context.goal == Goal::ValidateOnly,
        };
        let verdict = self.ask_policy(asking, &plan, &plan.questions, &proposal.target.labels).await?;
        plan.answers.clone_from(&verdict.answers);
        plan.decision =
            convert::to_json(&verdict.decision).map_err(|error| Error::Corrupt(error.to_string()))?;
        let admission = match verdict.effect() {
            PolicyEffect::Allow => Admission::Run,
            PolicyEffect::RequireApproval => {
                held(&plan)?;
                Admission::AskPeople
            }
            PolicyEffect::Deny | PolicyEffect::Unspecified => {
                return Err(self.denied(context, &plan, &verdict).await);
            }
        };
        match &context.goal {
            Goal::ValidateOnly => {
                self.db
                    .record_unscoped(planned_event(&self.db, &context.permit, &context.request_id, &plan))
                    .await?;
                return Ok(Answer::Plan(Box::new(plan)));
            }
            Goal::Keep(intent) => return self.keep(context, plan, intent).await,
            Goal::Apply | Goal::Execute { .. } => {}
        }
        let id = self.db.ids.uuid();
        let new = NewOperation {
            id,
            plan,
            of_kept_plan: matches!(context.goal, Goal::Execute { .. }),
            principal: context.permit.principal().clone(),
            key: self.key(context),
            request_digest: Digest::from_bytes(context.hash),
            facts: facts(&proposal.target.asked.subject, &proposal.target.labels).encode_to_vec(),
            admission,
            deadline_micros: self.deadline_micros(),
            undo_micros: micros(self.config.undo_timeout_ms),
            ownership: ownership(&proposal),
            makes: proposal.effect.makes,
            seen: proposal.target.seen,
            due: context.due.map(|due| due.timer),
            engine_version: ENGINE_VERSION,
        };
        let mut accepted = self.db.accept_unscoped(new).await?;
        if let Accepted::Fresh(_) = accepted {
            self.engine.changed(id);
            self.engine.wake();
            if admission == Admission::AskPeople {
                self.ask_people(id).await;
                accepted = Accepted::Replayed(id);
            }
        }
        self.accepted(context, accepted).await
    }

    pub(crate) fn deadline_micros(&self) -> i64 {
        micros(self.config.operation_timeout_ms)
    }

    fn plan_of(&self, context: &ChangeContext, proposal: &Proposal) -> Result<Plan> {
        let now = self.db.now();
        let (before, after) = cost::monthly(proposal.effect.kind, &proposal.target.costs, &proposal.changes);
        let (id, author) = match &context.goal {
            Goal::Execute { id, author } => (*id, author.clone()),
            Goal::Keep(_) => (self.db.ids.uuid(), person(context.permit.principal())),
            Goal::Apply | Goal::ValidateOnly => (self.db.ids.uuid(), String::new()),
        };
        let mut plan = Plan {
            id,
            organization: context.permit.organization().to_owned(),
            kind: proposal.effect.kind,
            action: context.action.to_owned(),
            target: proposal.target.name.clone(),
            changes: proposal.changes.clone(),
            monthly_cost_before: before,
            monthly_cost_after: after,
            template_version: proposal.target.template_version.clone(),
            parameters: proposal.target.parameters.clone(),
            settings: proposal.effect.settings.clone(),
            requester: context.permit.principal().name.clone(),
            author,
            summary: String::new(),
            create_time: now,
            expire_time: now + time::Duration::seconds(self.config.plan_ttl_seconds),
            digest: String::new(),
            questions: Vec::new(),
            answers: Vec::new(),
            decision: Value::Null,
        };
        plan.summary = plan.summarize(proposal.effect.verb);
        plan.questions = questions::questions(&plan, &proposal.target.asked, &proposal.target.works_on)
            .map_err(|unasked| Error::Corrupt(unasked.to_string()))?;
        if let Some(orphan) = &proposal.effect.makes.orphan {
            plan.summary = format!("{}: `{orphan}`", plan.summary);
        }
        if let Some(due) = context.due {
            plan.summary = format!("{}, because {}", plan.summary, due.why);
        }
        plan.digest = plan.compute_digest();
        Ok(plan)
    }
}

/// The person who asks, or whose agent asks; empty for nobody.
fn person(principal: &Principal) -> String {
    match principal.kind {
        PrincipalKind::User => principal.name.clone(),
        _ => principal.on_behalf_of.clone().unwrap_or_default(),
    }
}

/// Who approves a plan approves what it says; a run that is held to nothing would take what is there by then.
fn held(plan: &Plan) -> Result<()> {
    let mut unheld = plan.unheld().peekable();
    let Some(first) = unheld.peek() else { return Ok(()) };
    let message = format!(
        "this needs an approval, and driver `{}` does not say which commit `{}` would be of",
        first.driver, first.step
    );
    let problem =
        Problem::precondition(ErrorReason::NotConfigured, message).with("driver", first.driver.clone());
    let fix = "ask for a commit, or use a driver that holds its runs to one (`Pin` in the driver contract)";
    Err(unheld.fold(problem, |problem, run| problem.because("STATE", &run.driver, fix)).into())
}

/// Whose the operation is: as its target is, or will be.
fn ownership(proposal: &Proposal) -> Ownership {
    let asked = &proposal.target.asked;
    let owner = if asked.new_owner.is_empty() { &asked.subject.owner } else { &asked.new_owner };
    Ownership {
        owner: owner.clone(),
        environment_class: asked.environment_class.clone(),
        labels: proposal.target.labels.clone(),
    }
}

fn micros(millis: u64) -> i64 {
    i64::try_from(millis.saturating_mul(1_000)).unwrap_or(i64::MAX)
}
