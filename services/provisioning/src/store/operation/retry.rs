//! Taking up an operation that is stuck.

use pavior_store::idempotency;
use uuid::Uuid;

use crate::domain::environment::EnvironmentEvent;
use crate::domain::failure::{Failure, FailureReason};
use crate::domain::operation::{OperationEvent, OperationState, StepEvent, StepState};
use crate::domain::plan::Action;
use crate::store::audit::{Caller, verb_event};
use crate::store::operation::aggregate::Aggregate;
use crate::store::operation::{finish, hold};
use crate::store::prelude::*;
use crate::store::run::reopen_run;

/// How a stuck operation is taken up.
#[derive(Debug, Clone, PartialEq)]
pub enum TakeUp {
    /// What is left of it: its undo, or of a deletion what does not stand yet.
    Rest,
    /// All of it, as at first: it had not begun.
    Anew(Checked),
}

/// What policy and people say to an operation that had not begun.
#[derive(Debug, Clone, PartialEq)]
pub enum Checked {
    /// It may run, with these approvals.
    Runs(Vec<String>),
    /// People have not answered yet; they are asked, where the request is named in this, there.
    Waits(Option<String>),
    /// It may not, and why.
    Refused(Failure),
}

impl Db {
    /// Takes up a stuck operation as policy allowed it; the same request again changes nothing. One that got stuck since
    /// it was looked at, or is not as it was seen any more, is not taken up.
    pub async fn retry_unscoped(
        &self,
        id: Uuid,
        caller: &Caller,
        how: Option<TakeUp>,
        deadline_micros: i64,
        key: Option<(idempotency::Key, Vec<u8>)>,
    ) -> Result<()> {
        self.change((caller.clone(), how, key), move |this, tx, (caller, how, key)| {
            Box::pin(async move {
                // Locked before the request id is looked up, so that of two equal calls the later finds the answer.
                let mut aggregate = Aggregate::get(this, tx, id).await?;
                if let Some((key, hash)) = key
                    && idempotency::check(tx, key, hash).await?.is_some()
                {
                    return Ok(Recorded::unchanged(()));
                }
                let before = aggregate.op.clone();
                let how = &begun_before(&aggregate).filter(|_| asks(how)).or_else(|| how.clone());
                let anew = matches!(how, Some(TakeUp::Anew(_)));
                let unexpected = how.is_none() || anew != aggregate.view().untouched();
                if aggregate.op.state == OperationState::Stuck && unexpected {
                    return Err(Error::Busy { name: before.target, operation: before.name });
                }
                let rests = matches!(how, Some(TakeUp::Anew(Checked::Waits(_) | Checked::Refused(_))));
                if aggregate.op.state == OperationState::Stuck && !rests {
                    hold::take(this, tx, &mut aggregate).await?;
                }
                match how {
                    Some(TakeUp::Anew(checked)) => begin_anew(&mut aggregate, checked, deadline_micros)?,
                    Some(TakeUp::Rest) | None => {
                        for run in take_up(&mut aggregate, deadline_micros)? {
                            reopen_run(tx, &run).await?;
                        }
                    }
                }
                if OperationState::ASKING.contains(&aggregate.op.state) {
                    let (of_project, _) = finish::works_on(aggregate.op.kind);
                    finish::mark(tx, &aggregate, of_project, EnvironmentEvent::AskPeople).await?;
                } else {
                    finish::mark_working(tx, &aggregate).await?;
                }
                aggregate.settle()?;
                let event = verb_event(this, caller, &before, &aggregate.op, "taken up again");
                let (_, events) = this.write(tx, &mut aggregate, vec![event]).await?;
                Ok(Recorded::all((), events).answering(this.kept(key.as_ref(), id, &[])))
            })
        })
        .await
    }
}

fn asks(how: &Option<TakeUp>) -> bool {
    matches!(how, Some(TakeUp::Anew(Checked::Waits(_))))
}

/// What becomes of one that was let begin, as when the database was set back before its first step, where people are to be
/// asked again: what keeps nobody from anything while people are asked cannot wait with what it took when it began.
fn begun_before(aggregate: &Aggregate) -> Option<TakeUp> {
    let took = aggregate.holds() && !aggregate.op.kind.holds_while_asked();
    let why = "people have to agree once more since it was let begin: ask anew";
    took.then(|| TakeUp::Anew(Checked::Refused(Failure::refusal(FailureReason::PlanStale, why))))
}

/// As if it was accepted now.
fn begin_anew(aggregate: &mut Aggregate, checked: &Checked, deadline_micros: i64) -> Result<()> {
    aggregate.op.error = None;
    aggregate.op.cancel_requested = false;
    aggregate.op.canceller = String::new();
    // What it was let begin with counts for that time only: people who are asked again are told when it ends.
    aggregate.op.approvals = Typed(Vec::new());
    aggregate.operation(OperationEvent::Anew)?;
    match checked {
        Checked::Runs(approvals) => {
            aggregate.op.approvals = Typed(approvals.clone());
            aggregate.op.deadline = aggregate.clock.saturating_add(deadline_micros);
            aggregate.operation(OperationEvent::Admit)
        }
        Checked::Waits(asked) => {
            aggregate.op.approval = asked.clone().unwrap_or_default();
            if asked.is_some() { aggregate.operation(OperationEvent::RequireApproval) } else { Ok(()) }
        }
        Checked::Refused(why) => {
            aggregate.blame(why.clone());
            aggregate.operation(OperationEvent::Deny)
        }
    }
}

/// Undo that was given up is done again; a deletion goes on, and so does what was parked. Returns the runs that are to be run
/// again.
fn take_up(aggregate: &mut Aggregate, deadline_micros: i64) -> Result<Vec<String>> {
    let forward = aggregate.goes_forward();
    let (event, from) = if forward {
        // What was not wanted any more when it was parked is wanted again.
        (OperationEvent::RetryDo, &[StepState::Failed, StepState::Skipped][..])
    } else {
        (OperationEvent::RetryUndo, &[StepState::UndoStuck][..])
    };
    aggregate.operation(event)?;
    if forward {
        aggregate.op.deadline = aggregate.clock.saturating_add(deadline_micros);
        aggregate.op.error = None;
        aggregate.op.cancel_requested = false;
        aggregate.op.canceller = String::new();
    } else if let Some(Typed(failure)) = &mut aggregate.op.error {
        failure.go_on();
    }
    let (now, mut runs) = (aggregate.clock, Vec::new());
    for index in 0..aggregate.steps.len() {
        let step = aggregate.at(index)?;
        if from.contains(&step.state) {
            (step.attempt, step.undo_attempt, step.waits, step.not_before) = (0, 0, 0, now);
            runs.extend((forward && step.action == Action::Run).then(|| step.subject.clone()));
            aggregate.step(index, StepEvent::Resume)?;
        }
    }
    Ok(runs)
}
