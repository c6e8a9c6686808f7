//! The transaction that accepts an operation: the plan, the operation with its steps, and what is seen of its target
//! from then on. Everything or nothing.

use std::collections::BTreeMap;

use pavior_auth::Permit;
use pavior_core::digest::Digest;
use pavior_core::principal::Principal;
use pavior_store::idempotency;
use pavior_store::idempotency::Kept;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::plan::Plan;
use crate::store::audit;
use crate::store::operation::aggregate::{Aggregate, OperationView};
use crate::store::operation::finish;
use crate::store::prelude::*;

/// Whether it may begin at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Run,
    /// People have to agree first.
    AskPeople,
}

/// A project to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewProject {
    /// The name to show.
    pub display_name: String,
    /// Its owner.
    pub owner: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// An environment to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEnvironment {
    /// Its resource name.
    pub name: String,
    /// The name to show.
    pub display_name: String,
    /// Its class.
    pub class: String,
    /// Parameters that differ from the project's.
    pub parameters: Value,
    /// How long it lives.
    pub ttl_seconds: Option<i64>,
    /// When it is taken down, where that was said.
    pub expire_time: Option<OffsetDateTime>,
}

/// Whose an operation is: what policy asks about it, also when its target is gone or was never made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ownership {
    /// The group that owns the project.
    pub owner: String,
    /// The class of the environment; empty outside environments.
    pub environment_class: String,
    /// The project's labels.
    pub labels: BTreeMap<String, String>,
}

/// Rows as they were when a plan was made, by resource name: those that are gone, were made anew or have changed since
/// make it another plan.
pub type Seen = BTreeMap<String, (Uuid, i64)>;

/// What an operation makes beside the resources of its plan.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Makes {
    /// The project, if one is made.
    pub project: Option<NewProject>,
    /// The environments.
    pub environments: Vec<NewEnvironment>,
    /// What no resource declares, to be removed: the driver's name of it.
    pub orphan: Option<String>,
    /// The id of the deployment; the server makes one when it is empty.
    pub deployment_id: String,
}

/// Everything that is accepted together.
#[derive(Debug, Clone)]
pub struct NewOperation {
    /// The operation's id.
    pub id: Uuid,
    /// What it carries out.
    pub plan: Plan,
    /// Whether the plan was kept before.
    pub of_kept_plan: bool,
    /// Who asked.
    pub principal: Principal,
    /// The caller's request.
    pub key: Option<(idempotency::Key, Vec<u8>)>,
    /// A digest of what was asked, whether or not it may be repeated.
    pub request_digest: Digest,
    /// What policy was told of the target, kept with the answer.
    pub facts: Vec<u8>,
    /// Whether it may begin at once.
    pub admission: Admission,
    /// How long it may take.
    pub deadline_micros: i64,
    /// How long undoing it may take.
    pub undo_micros: i64,
    /// Whose it is, for as long as its row is kept.
    pub ownership: Ownership,
    /// What is made beside the resources of the plan.
    pub makes: Makes,
    /// The project and the environments that were planned with, by name, as they were seen then.
    pub seen: Seen,
    /// The timer that it is begun for: one that is not due any more begins nothing.
    pub due: Option<Uuid>,
    /// The version of the engine.
    pub engine_version: &'static str,
}

impl NewOperation {
    /// Whether what it works on is its own from now on: because it begins now, or has it from the beginning. What has
    /// nothing to do is over at once.
    pub(crate) fn holds(&self) -> bool {
        let begins = self.admission == Admission::Run && self.plan.steps().next().is_some();
        begins || self.plan.kind.holds_while_asked()
    }
}

/// What came of it.
#[derive(Debug, Clone)]
pub enum Accepted {
    /// A new operation, as it was accepted.
    Fresh(Box<OperationView>),
    /// The same request was answered before, with this operation.
    Replayed(Uuid),
    /// The same request was answered before: there was nothing to do.
    Nothing,
}

/// The answer that is kept where there was nothing to do.
const NOTHING: &[u8] = &[];

impl Db {
    /// What answered a request before.
    pub async fn replayed_unscoped(&self, key: &idempotency::Key, hash: &[u8]) -> Result<Option<Accepted>> {
        idempotency::check(self.store.read(), key, hash).await?.map(|first| before(&first)).transpose()
    }

    /// The answer that a request gets from now on, with what policy was told of the target.
    pub(crate) fn kept(
        &self,
        key: Option<&(idempotency::Key, Vec<u8>)>,
        id: Uuid,
        facts: &[u8],
    ) -> Option<Kept> {
        self.kept_bytes(key, id.as_bytes(), facts)
    }

    fn kept_bytes(
        &self,
        key: Option<&(idempotency::Key, Vec<u8>)>,
        response: &[u8],
        facts: &[u8],
    ) -> Option<Kept> {
        let (key, hash) = key?.clone();
        Some(Kept { key, hash, response: response.to_vec(), facts: facts.to_vec(), time: self.now() })
    }

    /// Keeps the answer that there is nothing to do, unless the request was answered before. Whoever repeats it must not
    /// do what was not done then.
    pub async fn nothing_unscoped(&self, key: &(idempotency::Key, Vec<u8>)) -> Result<Accepted> {
        self.change(key.clone(), |this, tx, key| {
            Box::pin(async move {
                if let Some(first) = idempotency::check(tx, &key.0, &key.1).await? {
                    return Ok(Recorded::unchanged(before(&first)?));
                }
                let kept = this.kept_bytes(Some(key), NOTHING, &[]);
                Ok(Recorded::unchanged(Accepted::Nothing).answering(kept))
            })
        })
        .await
    }

    /// What policy was told of the target when a request was first answered.
    pub async fn remembered_facts_unscoped(&self, key: &idempotency::Key) -> Result<Option<Vec<u8>>> {
        let facts = idempotency::facts(self.store.read(), key, self.now()).await?;
        Ok(facts.filter(|facts| !facts.is_empty()))
    }

    /// Accepts an operation.
    pub async fn accept_unscoped(&self, new: NewOperation) -> Result<Accepted> {
        // Seen here only: the transaction runs in a task of its own.
        let call = pavior_auth::current();
        self.change((new, call), |this, tx, (new, call)| Box::pin(this.accept_in(tx, new, call.as_ref())))
            .await
    }

    async fn accept_in(
        &self,
        tx: &Tx,
        new: &NewOperation,
        call: Option<&Permit>,
    ) -> Result<Recorded<Accepted>> {
        if let Some((key, hash)) = &new.key
            && let Some(first) = idempotency::check(tx, key, hash).await?
        {
            return Ok(Recorded::unchanged(before(&first)?));
        }
        let clock = self.time(tx).await?;
        let op = self.operation_row(new, clock);
        // Its row keeps others waiting who carry the same plan out.
        self.plan_row(tx, &new.plan, None, Some(op.name.clone())).await?;
        let mut numbers = self.hold_target(tx, new, &op.name).await?;
        if let Some(timer) = new.due
            && !self.is_due(tx, timer).await?
        {
            return Err(Error::Stale { name: new.plan.target.clone() });
        }
        if let Some(orphan) = &new.makes.orphan {
            self.adopt(tx, new, orphan).await?;
        }
        let fences = self.resources(tx, new).await?;
        let mut steps = self.step_rows(new, &op, &fences, clock);
        self.runs_and_deployments(tx, new, &op, &mut steps, &mut numbers).await?;
        let mut aggregate = Aggregate::new(op, steps, self.now(), clock);
        if new.admission == Admission::Run {
            aggregate.settle()?;
        }
        let accepted = audit::accepted_event(self, call, &aggregate.op, &new.plan, new.request_digest);
        aggregate.insert(tx).await?;
        let mut events = vec![accepted];
        if let Some(call) = call.filter(|_| new.of_kept_plan) {
            let request_id = &aggregate.op.request_id;
            events.push(audit::plan_event(self, call, request_id, &new.plan, "a plan is carried out"));
        }
        if aggregate.op.state.rests() {
            events.extend(finish::finish(self, tx, &mut aggregate).await?);
            // What its end found out is what every later read says.
            aggregate.save(tx).await?;
        }
        let kept = self.kept(new.key.as_ref(), new.id, &new.facts);
        Ok(Recorded::all(Accepted::Fresh(Box::new(aggregate.view())), events).answering(kept))
    }
}

/// An answer that was kept.
fn before(kept: &[u8]) -> Result<Accepted> {
    if kept == NOTHING {
        return Ok(Accepted::Nothing);
    }
    Uuid::from_slice(kept).map(Accepted::Replayed).map_err(|_| Error::Corrupt("the kept answer".to_owned()))
}
