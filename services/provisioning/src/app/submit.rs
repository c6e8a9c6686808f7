//! The one way in which an operation comes to be: a plan, policy's answer to it, and a transaction that accepts both.

use std::collections::HashMap;

use pavior_core::money::{self, Money};
use pavior_core::{Principal, PrincipalKind};
use pavior_proto::pavior::policy::internal::v1::DecisionStage;
use pavior_proto::pavior::policy::v1::Effect;
use pavior_rpc::{ErrorReason, Problem, convert};
use pavior_store::idempotency;
use prost::Message;
use serde_json::Value;
use uuid::Uuid;

use super::asking::facts;
use super::peers::Asking;
use super::plans::{expected, stale};
use super::{Answer, App, Ask, Goal};
use crate::domain::plan::{Action, Change, Kind, Plan};
use crate::domain::question;
use crate::engine::ENGINE_VERSION;
use crate::error::{Error, Result};
use crate::store::{
    Admission, NewEnvironment, NewOperation, NewProject, OperationView, Ownership, Seen, Started,
    planned_event,
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
    /// The rows that it was planned with.
    pub(crate) seen: Seen,
    pub(crate) deployment_id: String,
    /// What policy is told about the thing that the request names.
    pub(crate) asked: question::Verb,
    /// Everything else that the plan works on.
    pub(crate) ground: question::Ground,
    /// The labels of the project.
    pub(crate) labels: HashMap<String, String>,
    pub(crate) verb: &'static str,
}

impl App {
    /// The operation that answered the same request before.
    pub(crate) async fn replayed(&self, ask: &Ask) -> Result<Option<Answer>> {
        let Some((key, hash)) = self.key(ask) else { return Ok(None) };
        match self.db.replayed(&key, &hash).await? {
            Some(started) => self.started(started).await.map(Some),
            None => Ok(None),
        }
    }

    async fn started(&self, started: Started) -> Result<Answer> {
        match started {
            Started::New(id) | Started::Before(id) => {
                Ok(Answer::Operation(Box::new(self.view_by_id(id).await?)))
            }
            Started::Nothing => Ok(Answer::Nothing),
        }
    }

    /// What is to be taken down is not there, which is no error where that is `allowed`.
    pub(crate) async fn missing(
        &self,
        ask: &Ask,
        kind: &'static str,
        name: &str,
        allowed: bool,
    ) -> Result<Answer> {
        if let Goal::Execute { .. } = ask.goal {
            // What was to be taken down when it was planned is gone by other hands.
            return Err(stale(&ask.plan_digest, ""));
        }
        if !allowed {
            return Err(Error::NotFound { kind, name: name.to_owned() });
        }
        match self.key(ask) {
            Some(key) => self.started(self.db.nothing(&key).await?).await,
            None => Ok(Answer::Nothing),
        }
    }

    /// Before a request is refused: the same request may have been answered while this one was looked at, and what it
    /// did may be the very reason. Then its answer is the answer.
    pub(crate) async fn first_answer(&self, ask: &Ask, refusal: Error) -> Result<Answer> {
        match self.replayed(ask).await {
            Ok(Some(answer)) => Ok(answer),
            Err(Error::RequestIdReused) => Err(Error::RequestIdReused),
            Ok(None) | Err(_) => Err(refusal),
        }
    }

    pub(crate) fn key(&self, ask: &Ask) -> Option<(idempotency::Key, Vec<u8>)> {
        if ask.request_id.is_empty() || ask.goal.only_plans() {
            return None;
        }
        let (organization, asker) = (ask.permit.organization(), ask.permit.principal().asker());
        let key = idempotency::Key::new(organization, &asker, &ask.method, &ask.request_id);
        Some((key, ask.hash.to_vec()))
    }

    /// An operation with its steps, by its id.
    pub(crate) async fn view_by_id(&self, id: Uuid) -> Result<OperationView> {
        let op = self.db.operation_by_id_unscoped(id).await?;
        let op = op.ok_or_else(|| Error::NotFound { kind: "Operation", name: id.to_string() })?;
        let steps = self.db.steps_unscoped(id).await?;
        Ok(OperationView { op, steps })
    }

    /// Plans, asks, and begins.
    pub(crate) async fn submit(&self, ask: &Ask, mut proposal: Proposal) -> Result<Answer> {
        let entities = question::entities(proposal.changes.iter().filter(|change| change.is_step()));
        let own = self.own_permit(ask.permit.organization());
        proposal.ground.entities = self.entities(&own, entities).await?;
        let mut plan = self.plan_of(ask, &proposal)?;
        expected(ask, &plan)?;
        let asking = Asking {
            principal: ask.permit.principal().clone(),
            organization: ask.permit.organization().to_owned(),
            stage: DecisionStage::Plan,
            approval: String::new(),
            dry_run: ask.goal == Goal::Look,
        };
        let verdict = self.ask_policy(asking, &plan, &plan.questions, &proposal.labels).await?;
        plan.answers.clone_from(&verdict.answers);
        plan.decision =
            convert::to_json(&verdict.decision).map_err(|error| Error::Corrupt(error.to_string()))?;
        let admission = match verdict.effect() {
            Effect::Allow => Admission::Run,
            Effect::RequireApproval => {
                held(&plan)?;
                Admission::AskPeople
            }
            Effect::Deny | Effect::Unspecified => {
                return Err(self.denied(ask, &plan, &verdict).await);
            }
        };
        match &ask.goal {
            Goal::Look => {
                self.db.record(planned_event(&self.db, &ask.permit, &ask.request_id, &plan)).await?;
                return Ok(Answer::Plan(Box::new(plan)));
            }
            Goal::Keep(intent) => return self.keep(ask, plan, intent).await,
            Goal::Do | Goal::Execute { .. } => {}
        }
        let id = self.db.ids.uuid();
        let new = NewOperation {
            id,
            plan,
            of_kept_plan: matches!(ask.goal, Goal::Execute { .. }),
            principal: ask.permit.principal().clone(),
            key: self.key(ask),
            facts: facts(&proposal.asked.subject, &proposal.labels).encode_to_vec(),
            admission,
            deadline_micros: self.deadline_micros(),
            undo_micros: micros(self.config.undo_timeout_ms),
            ownership: ownership(&proposal),
            project: proposal.project,
            environments: proposal.environments,
            seen: proposal.seen,
            due: ask.due.map(|due| due.timer),
            deployment_id: proposal.deployment_id,
            engine_version: ENGINE_VERSION,
        };
        let started = self.db.accept(new).await?;
        if let Started::New(id) = started {
            self.engine.changed(id);
            self.engine.wake();
            if admission == Admission::AskPeople {
                self.ask_people(id).await;
            }
        }
        self.started(started).await
    }

    pub(crate) fn deadline_micros(&self) -> i64 {
        micros(self.config.operation_timeout_ms)
    }

    fn plan_of(&self, ask: &Ask, proposal: &Proposal) -> Result<Plan> {
        let now = self.db.now();
        let changed = |change: &&Change| change.action != Action::Noop;
        let before = money::sum(proposal.costs.iter().map(String::as_str));
        let after = match proposal.kind {
            // What is gone costs nothing, where what it cost is known.
            Kind::DestroyProject | Kind::DestroyEnvironment => {
                before.parse().map(|cost: Money| cost.zero().to_string()).unwrap_or_default()
            }
            _ => {
                let made = proposal.changes.iter().filter(changed).filter(|c| c.action == Action::Create);
                let made: Vec<&str> = made.map(|change| change.monthly_cost.as_str()).collect();
                money::sum(proposal.costs.iter().map(String::as_str).chain(made))
            }
        };
        let (id, author) = match &ask.goal {
            Goal::Execute { id, author } => (*id, author.clone()),
            Goal::Keep(_) => (self.db.ids.uuid(), person(ask.permit.principal())),
            Goal::Do | Goal::Look => (self.db.ids.uuid(), String::new()),
        };
        let mut plan = Plan {
            id,
            organization: ask.permit.organization().to_owned(),
            kind: proposal.kind,
            action: ask.action.to_owned(),
            target: proposal.target.clone(),
            changes: proposal.changes.clone(),
            monthly_cost_before: before,
            monthly_cost_after: after,
            template_version: proposal.template_version.clone(),
            parameters: proposal.parameters.clone(),
            settings: proposal.settings.clone(),
            requester: ask.permit.principal().name.clone(),
            author,
            summary: String::new(),
            create_time: now,
            expire_time: now + time::Duration::seconds(self.config.plan_ttl_seconds),
            digest: String::new(),
            questions: Vec::new(),
            answers: Vec::new(),
            decision: Value::Null,
        };
        plan.summary = plan.summarize(proposal.verb);
        plan.questions = question::questions(&plan, &proposal.asked, &proposal.ground)
            .map_err(|unasked| Error::Corrupt(unasked.to_string()))?;
        if let Some(due) = ask.due {
            plan.summary = format!("{}, because {}", plan.summary, due.why);
        }
        plan.digest = plan.compute_digest();
        Ok(plan)
    }
}

/// The person who asks, or has an agent ask; empty for nobody.
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
    let asked = &proposal.asked;
    let owner = if asked.new_owner.is_empty() { &asked.subject.owner } else { &asked.new_owner };
    Ownership {
        owner: owner.clone(),
        environment_class: asked.environment_class.clone(),
        labels: serde_json::json!(proposal.labels),
    }
}

fn micros(millis: u64) -> i64 {
    i64::try_from(millis.saturating_mul(1_000)).unwrap_or(i64::MAX)
}
