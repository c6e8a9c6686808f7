//! A claimed step from its call to its completion.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use pavior_core::pointer;
use pavior_driver::{
    ApplyRequest, CallContext, DestroyRequest, FailureCode as DriverCode, InvokeRequest, Lookup, Outcome,
    Prior, Success, ValidateRequest,
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::call::Called;
use super::inputs::{Inputs, Prepared};
use super::outcome::{Retry, mistake};
use super::sink::EngineSink;
use super::stop::Stop;
use super::work::{Ended, Work};
use super::worker::{Slots, Taken};
use super::{Engine, FaultPoint};
use crate::domain::failure::FailureCode;
use crate::domain::names;
use crate::domain::plan::Action;
use crate::error::{Error, Result};
use crate::store::{Applied, Claim, Completion, Purpose, RunResult, StepError};

/// How often a completion is written before it is left to recovery.
const COMMIT_ATTEMPTS: u32 = 5;

impl Engine {
    /// Carries a claim out and gives it back. The claim is held beside all of it.
    pub(crate) async fn execute(&self, claim: Claim, taken: Taken) {
        let reference = claim.reference();
        let name = claim.step.name.clone();
        if self.dies(FaultPoint::AfterIntent, &name) {
            return;
        }
        let Taken { slot, since } = taken;
        let stop = self.register(claim.step.operation, claim.purpose, since);
        if claim.op.cancel_requested {
            stop.not_wanted();
        }
        let held = self.hold(reference, since, &stop).fuse();
        tokio::pin!(held);
        let ended = {
            let work = self.carry_out(&claim, &stop);
            tokio::pin!(work);
            tokio::select! {
                biased;
                ended = &mut work => ended,
                () = &mut held => {
                    stop.claim_lost();
                    work.await
                }
            }
        };
        self.unregister(claim.step.operation, &stop);
        let completion = match ended {
            Ok(Some(completion)) => completion,
            Ok(None) => {
                self.zombies.add(1, &[]);
                tracing::warn!(step = name, operation = %claim.step.operation, "the claim was lost; its result is dropped");
                return;
            }
            Err(error) => self.broken(&claim, &error),
        };
        if self.dies(FaultPoint::AfterEffect, &name) {
            return;
        }
        let given = self.give_back(&claim, completion, slot);
        tokio::pin!(given);
        tokio::select! {
            biased;
            () = &mut given => {}
            // Whether it is lost is the fence's to say.
            () = &mut held => given.await,
        }
    }

    async fn carry_out(&self, claim: &Claim, stop: &Stop) -> Result<Ended> {
        let action = claim.step.action;
        // A run leaves nothing to look at or to undo; it is asked for again under the same key.
        match (action, claim.purpose) {
            (Action::Run, Purpose::Observe) => return Ok(Some(Completion::NoEffect)),
            (Action::Run, Purpose::Undo) => return Ok(Some(Completion::Removed)),
            _ => {}
        }
        let Some(driver) = self.drivers.get(&claim.step.driver) else {
            let message = format!("driver `{}` is not there", claim.step.driver);
            let error = StepError::new(FailureCode::Unavailable, message);
            return Ok(Some(self.failure(claim, error, Retry::Free(None), None)));
        };
        let prepared = self.prepare(claim).await?;
        if let Some(why) = self.breakers.why(&claim.step.driver) {
            // Found out while this one was on its way.
            let error = StepError::new(FailureCode::Unavailable, prepared.redactor().text(&why));
            return Ok(Some(self.failure(claim, error, Retry::Free(None), None)));
        }
        let reference = claim.reference();
        let sink =
            EngineSink::new(self, reference, &claim.step.name, claim.step.attempt, prepared.redactor());
        let work =
            Work { claim, action, driver, prepared: &prepared, sink: &sink, stop, limit: self.limit(claim) };
        match claim.purpose {
            Purpose::Do => match action {
                Action::Delete => self.destroy(&work).await,
                Action::Run => self.run_action(&work).await,
                _ => self.apply(&work, action).await,
            },
            Purpose::Observe => self.observe(&work, action).await,
            Purpose::Undo => self.undo(&work).await,
        }
    }

    /// How long a call may take: an undo not longer than undoing may take in all.
    fn limit(&self, claim: &Claim) -> Duration {
        let limit = Duration::from_millis(self.config.step_timeout_ms);
        match (claim.purpose, claim.left_micros) {
            (Purpose::Undo, Some(left)) => limit.min(Duration::from_micros(u64::try_from(left).unwrap_or(0))),
            _ => limit,
        }
    }

    /// The context of one call, to be made right before it: a claim that an earlier call of the step outlasted has been
    /// renewed since. What is put back has a key of its own.
    pub(crate) fn context(&self, work: &Work<'_>, restores: bool) -> CallContext {
        let (claim, step) = (work.claim, &work.claim.step);
        let subject = match work.action {
            Action::Run => &step.subject,
            _ => names::made_for(&step.resource),
        };
        let mut context = CallContext::new(&step.organization, subject, &step.idempotency_key, step.fence);
        if restores {
            context.idempotency_key.push_str("/undo");
        }
        if let (Action::Run, Some(parked)) = (work.action, claim.op.parked) {
            // What it runs on may be another commit by now: that is another run.
            context.idempotency_key.push_str(&format!("/{parked}"));
        }
        context.operation = step.operation.to_string();
        context.claimant = claimant(work);
        context.step.clone_from(&step.name);
        let attempt = if claim.purpose == Purpose::Undo { step.undo_attempt } else { step.attempt };
        context.attempt = u32::try_from(attempt).unwrap_or(1);
        // By the clock of this process, against which drivers measure it; the lease itself runs by the database's.
        context.lease_expire_time = Some(self.db.now() + work.stop.left());
        context.cancel = work.stop.token().clone();
        context
    }

    /// Creates, updates or replaces.
    async fn apply(&self, work: &Work<'_>, action: Action) -> Result<Ended> {
        let inputs = match work.inputs() {
            Ok(inputs) => inputs,
            Err(error) => {
                let error = StepError { message: work.sink.redactor().text(&error.message), ..error };
                return Ok(Some(self.failure(work.claim, error, Retry::Never, None)));
            }
        };
        if action == Action::Replace
            && let Some(ended) = self.remove_former(work).await?
        {
            return Ok(ended);
        }
        let prior = (action == Action::Update).then(|| work.prior());
        let called = self.call_apply(work, false, prior, inputs.resolved.clone()).await;
        self.outcome(work, action, called, Some(&inputs)).await
    }

    /// Normalises inputs and applies them.
    pub(crate) async fn call_apply(
        &self,
        work: &Work<'_>,
        restores: bool,
        prior: Option<Prior>,
        inputs: Value,
    ) -> Called<Outcome> {
        let resource_type = work.prepared.spec.type_id.clone();
        let declaration_digest = self.key.declaration(&work.prepared.row.name, &inputs);
        let apply = async {
            let request = ValidateRequest { resource_type: resource_type.clone(), inputs };
            let inputs = match work.driver.validate(request).await {
                Ok(inputs) => inputs,
                Err(violations) => {
                    let text: Vec<String> = violations
                        .iter()
                        .map(|v| format!("`{}`: {}", pointer::dotted(&v.path), v.message))
                        .collect();
                    return Outcome::failed(DriverCode::InvalidArgument, text.join(", "));
                }
            };
            let sensitive = work.prepared.sensitive();
            let resource_type = resource_type.clone();
            let request = ApplyRequest { resource_type, prior, inputs, sensitive, declaration_digest };
            work.driver.apply(&self.context(work, restores), request, work.sink).await
        };
        self.call(work.sink, work.stop, work.limit, apply).await
    }

    pub(crate) async fn call_destroy(&self, work: &Work<'_>, request: DestroyRequest) -> Called<Outcome> {
        let context = self.context(work, false);
        let destroy = work.driver.destroy(&context, request, work.sink);
        self.call(work.sink, work.stop, work.limit, destroy).await
    }

    async fn destroy(&self, work: &Work<'_>) -> Result<Ended> {
        let row = &work.prepared.row;
        if row.identity.is_empty() {
            // Nothing was ever made.
            return Ok(Some(Completion::Destroyed));
        }
        let request = DestroyRequest {
            resource_type: row.type_id.clone(),
            lookup: Lookup::Identity(row.identity.clone()),
            state: row.driver_state.clone(),
        };
        match self.call_destroy(work, request).await {
            Called::Answer(Outcome::Succeeded(_)) => Ok(Some(Completion::Destroyed)),
            other => self.outcome(work, Action::Delete, other, None).await,
        }
    }

    async fn run_action(&self, work: &Work<'_>) -> Result<Ended> {
        let row = &work.prepared.row;
        let arguments = match work.prepared.arguments() {
            Ok(arguments) => arguments,
            Err(error) => return Ok(Some(self.failure(work.claim, error, Retry::Never, None))),
        };
        let request = InvokeRequest {
            resource_type: row.type_id.clone(),
            identity: row.identity.clone(),
            action: "run".to_owned(),
            arguments,
            sensitive: work.prepared.sensitive(),
            state: row.driver_state.clone(),
        };
        let context = self.context(work, false);
        let invoke = work.driver.invoke(&context, request, work.sink);
        let called = self.call(work.sink, work.stop, work.limit, invoke).await;
        match called {
            Called::Answer(Outcome::Succeeded(success)) => {
                Ok(Some(match mistake(&work.claim.step.driver, &success.outputs) {
                    None => Completion::Ran(run_result(&work.sink.redactor().value(&success.outputs))),
                    Some(error) => self.failure(work.claim, error, Retry::Never, None),
                }))
            }
            other => self.outcome(work, Action::Run, other, None).await,
        }
    }

    /// What a driver made, with its secrets sealed and everything else free of them.
    pub(crate) fn made(&self, prepared: &Prepared, inputs: &Inputs, success: Success) -> Result<Applied> {
        let Success { identity, outputs, secrets, state } = success;
        let row = &prepared.row;
        let mut plain = match outputs {
            Value::Object(map) => map,
            Value::Null => Map::new(),
            other => Map::from_iter([("value".to_owned(), other)]),
        };
        let mut secret: Vec<(String, SecretString)> =
            secrets.iter().map(|(name, value)| (name.to_owned(), value.clone())).collect();
        for name in &prepared.spec.secret_outputs {
            // A driver that shows what its type calls secret is not believed.
            if let Some(value) = plain.remove(name).filter(|_| secrets.get(name).is_none()) {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                secret.push((name.clone(), SecretString::from(text)));
            }
        }
        let mut known = prepared.sensitive();
        known.extend(secret.iter().map(|(_, value)| value.clone()));
        let redactor = pavior_driver::Redactor::new(&known);
        let mut outputs = match redactor.value(&Value::Object(plain)) {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        let mut sealed = Vec::new();
        for (name, value) in secret {
            let before = row.outputs.get(&name).and_then(pavior_expr::secret_reference);
            let same = before.filter(|reference| {
                prepared
                    .secrets
                    .get(*reference)
                    .is_some_and(|old| old.expose_secret() == value.expose_secret())
            });
            let reference = match same {
                Some(reference) => reference.to_owned(),
                None => {
                    let reference = format!("{}/{}/{name}", row.uid, row.generation + 1);
                    sealed.push(self.seal(&reference, &value)?);
                    reference
                }
            };
            outputs.insert(name, pavior_expr::secret(&reference));
        }
        let mut sealed_inputs = String::new();
        if pavior_expr::contains_marker(&inputs.recorded) {
            sealed_inputs = format!("{}/{}/$inputs", row.uid, row.generation + 1);
            let text = SecretString::from(inputs.resolved.to_string());
            sealed.push(self.seal(&sealed_inputs, &text)?);
        }
        Ok(Applied {
            identity,
            inputs: inputs.recorded.clone(),
            outputs: Value::Object(outputs),
            state,
            secrets: sealed,
            sealed_inputs,
            artifact: inputs.artifact.clone(),
        })
    }

    async fn give_back(&self, claim: &Claim, completion: Completion, mut slots: Slots) {
        let reference = claim.reference();
        let completion = Arc::new(completion);
        // What follows may take the place of this one, and those that are free. Where none is, others wait for this one,
        // and whose turn it is is for the next look to say. Whoever stops begins nothing.
        let free = self.reserve();
        let follow = free.len() > 0 && !self.is_stopping();
        slots.join(free);
        let next = follow.then(|| self.claim_params(slots.len()));
        let name = &claim.step.name;
        for attempt in 1..=COMMIT_ATTEMPTS {
            let since = Instant::now();
            match self.db.complete_unscoped(reference, &completion, next.as_ref()).await {
                Ok(completed) => {
                    if self.dies(FaultPoint::AfterCommit, name) {
                        return;
                    }
                    self.changed(reference.operation);
                    self.begin(completed.claims, slots, since);
                    // Whoever waits for the place, or for what was done, is looked for at once.
                    self.wake();
                    return;
                }
                Err(Error::Fenced { .. }) => {
                    self.zombies.add(1, &[]);
                    tracing::warn!(step = name, operation = %reference.operation, "the claim was lost; its result is refused");
                    return;
                }
                Err(Error::Died(_)) => {
                    self.dead.cancel();
                    return;
                }
                Err(error) => {
                    tracing::warn!(step = name, %error, attempt, "a result could not be recorded");
                    let pause = crate::domain::machine::backoff(50, 1_000, attempt, 0.5);
                    tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
                }
            }
        }
        tracing::error!(step = name, operation = %reference.operation, "a result is left to recovery");
    }
}

fn run_result(outputs: &Value) -> RunResult {
    let part = |key: &str| outputs.get(key).cloned().unwrap_or_default();
    let artifacts = part("artifacts");
    RunResult {
        commit: part("commit").as_str().unwrap_or_default().to_owned(),
        steps: json!({ "steps": part("steps"), "elapsed_ms": part("elapsed_ms") }),
        artifacts: if artifacts.is_array() { artifacts } else { json!([]) },
    }
}

/// As whom it claims. One that was under way when the database was set back may be late for its drivers: of what it makes or
/// changes, it is a later one from then on. What it takes down may be another's by now: it says that it is the one it was,
/// and is fenced off by whatever has begun after it.
fn claimant(work: &Work<'_>) -> String {
    let makes = matches!(work.action, Action::Create | Action::Update | Action::Run | Action::Noop);
    let forward = makes && work.claim.purpose != Purpose::Undo;
    match work.claim.op.parked {
        Some(parked) if forward => parked.to_string(),
        Some(_) => work.claim.step.operation.to_string(),
        None => String::new(),
    }
}
