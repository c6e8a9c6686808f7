//! The kit that any driver is held against: `conformance::run(&subject).await.assert()` in its tests.
//!
//! Each check works on resources of its own and removes them again. What a check found stands in the [`Report`].

use std::fmt;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use pavior_core::pointer;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::{
    ApplyRequest, CallContext, DestroyRequest, Driver, FailureCode, Found, Lookup, MemorySink, Observation,
    ObserveRequest, Outcome, PlanAction, PlanRequest, Prior, Success, ValidateRequest,
};

/// The inputs of one resource that the kit may make.
#[derive(Debug, Clone)]
pub struct Case {
    /// Full resource name; distinct for distinct cases.
    pub resource: String,
    /// Valid inputs.
    pub inputs: Value,
    /// Valid inputs that differ and can be applied in place; without them updates are not checked.
    pub changed: Option<Value>,
    /// Valid inputs whose apply fails after it has begun; without them what a failure leaves is not checked.
    pub failing: Option<Value>,
    /// Secrets in the inputs, which must never be echoed.
    pub sensitive: Vec<SecretString>,
}

/// A driver under test.
pub struct Subject {
    /// The driver.
    pub driver: Arc<dyn Driver>,
    /// The type to make.
    pub resource_type: String,
    /// Organization of all cases.
    pub organization: String,
    /// Names the run of the kit in its keys; distinct where a driver that keeps what it has seen is tested again.
    pub run: String,
    /// Makes the inputs of the case with this short name.
    pub case: Box<dyn Fn(&str) -> Case + Send + Sync>,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("resource_type", &self.resource_type).finish_non_exhaustive()
    }
}

/// What the kit found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Name of each check, and why it failed if it did.
    pub checks: Vec<(&'static str, Result<(), String>)>,
}

impl Report {
    /// The checks that failed.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let failed = self.checks.iter().filter_map(|(name, result)| Some((name, result.as_ref().err()?)));
        failed.map(|(name, why)| format!("{name}: {why}")).collect()
    }

    /// Fails the test that called it, naming every check that failed.
    ///
    /// # Panics
    /// When a check failed.
    pub fn assert(&self) {
        let failures = self.failures();
        assert!(failures.is_empty(), "the driver breaks its contract:\n{}", failures.join("\n"));
    }
}

type Check = Result<(), String>;

macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => { if !$condition { return Err(format!($($text)+)); } };
}

mod artifacts;
mod failures;
mod listing;
mod standing;

pub use artifacts::reads_artifact;

/// Runs every check, one after the other.
pub async fn run(subject: &Subject) -> Report {
    let mut report = Report::default();
    let mut add = |name, result| report.checks.push((name, result));
    add("declares_its_type", subject.declares());
    add("validate_accepts_inputs_and_refuses_nonsense", subject.validates().await);
    add("plan_is_pure", subject.plan_is_pure().await);
    add("apply_twice_is_once", subject.apply_twice().await);
    add("concurrent_applies_are_one", subject.concurrent().await);
    add("same_key_other_inputs_is_refused", subject.other_inputs().await);
    add("observe_finds_by_key_and_identity", subject.observes().await);
    add("update_keeps_identity", subject.updates().await);
    add("update_of_what_is_gone_makes_it_anew", subject.makes_anew().await);
    add("lower_fence_is_fenced", subject.fences().await);
    add("destroy_twice_is_once", subject.destroys().await);
    add("cancelled_apply_can_be_resolved", subject.cancels().await);
    add("failed_create_leaves_nothing", subject.failed_create().await);
    add("failed_update_leaves_what_was", subject.failed_update().await);
    add("dropped_update_is_not_found_before_it_ends", subject.dropped_update().await);
    add("list_names_what_is_there", subject.lists().await);
    add("list_pages_end_and_repeat_nothing", subject.pages().await);
    add("unknown_page_token_is_refused", subject.refuses_tokens().await);
    add("unknown_artifact_is_not_found", subject.lacks_artifacts().await);
    add("no_secret_is_echoed", subject.echoes().await);
    add("unknown_action_is_unsupported", subject.actions().await);
    report
}

struct Made {
    case: Case,
    context: CallContext,
    success: Success,
}

impl Made {
    /// What is recorded of it.
    fn prior(&self) -> Prior {
        Prior {
            identity: self.success.identity.clone(),
            inputs: self.case.inputs.clone(),
            outputs: self.success.outputs.clone(),
            state: self.success.state.clone(),
        }
    }
}

impl Subject {
    fn key(&self, key: &str) -> String {
        format!("{}/{key}", self.run)
    }

    fn context(&self, case: &Case, key: &str, fence: i64) -> CallContext {
        let mut context = CallContext::new(&self.organization, &case.resource, &self.key(key), fence);
        "conformance".clone_into(&mut context.operation);
        key.clone_into(&mut context.step);
        context
    }

    fn request(&self, inputs: &Value, case: &Case, prior: Option<Prior>) -> ApplyRequest {
        ApplyRequest {
            resource_type: self.resource_type.clone(),
            prior,
            inputs: inputs.clone(),
            sensitive: case.sensitive.clone(),
            declaration_digest: declaration_digest(inputs),
        }
    }

    async fn apply(&self, context: &CallContext, case: &Case) -> Outcome {
        let request = self.request(&case.inputs, case, None);
        self.driver.apply(context, request, &MemorySink::new()).await
    }

    async fn make(&self, name: &str) -> Result<Made, String> {
        let case = (self.case)(name);
        let context = self.context(&case, &format!("{name}/1"), 10);
        let success = succeeded(self.apply(&context, &case).await)?;
        Ok(Made { case, context, success })
    }

    async fn observe(&self, context: &CallContext, lookup: Lookup) -> Observation {
        let request = ObserveRequest { resource_type: self.resource_type.clone(), lookup };
        self.driver.observe(context, request).await
    }

    async fn remove(&self, context: &CallContext, lookup: Lookup) -> Outcome {
        let mut context = context.clone();
        context.idempotency_key = format!("{}/destroy", context.idempotency_key);
        context.fence += 100;
        context.cancel = tokio_util::sync::CancellationToken::new();
        let request =
            DestroyRequest { resource_type: self.resource_type.clone(), lookup, state: Value::Null };
        self.driver.destroy(&context, request, &MemorySink::new()).await
    }

    async fn clean(&self, made: &Made) -> Check {
        let identity = Lookup::Identity(made.success.identity.clone());
        succeeded(self.remove(&made.context, identity.clone()).await)?;
        absent(&self.observe(&made.context, identity).await)
    }

    fn declares(&self) -> Check {
        let info = self.driver.info();
        ensure!(!info.id.is_empty() && !info.version.is_empty(), "no id or version");
        let schema = info.resource_type(&self.resource_type).ok_or("the type is not declared")?;
        ensure!(schema.inputs.is_object() && schema.outputs.is_object(), "no schemas");
        let odd =
            schema.immutable.iter().chain(&schema.secret_inputs).find(|place| !pointer::is_valid(place));
        ensure!(odd.is_none(), "`{}` is no JSON Pointer", odd.map_or("", |place| place));
        ensure!(self.driver.info() == info, "info changes between calls");
        Ok(())
    }

    async fn validates(&self) -> Check {
        let case = (self.case)("validate");
        let ask = |inputs| ValidateRequest { resource_type: self.resource_type.clone(), inputs };
        let normalised =
            self.driver.validate(ask(case.inputs)).await.map_err(|found| format!("refused: {found:?}"))?;
        let again =
            self.driver.validate(ask(normalised.clone())).await.map_err(|found| format!("{found:?}"))?;
        ensure!(again == normalised, "normalised inputs change when they are normalised again");
        let Err(found) = self.driver.validate(ask(json!("nonsense"))).await else {
            return Err("a text is taken for inputs".to_owned());
        };
        let odd = found.iter().find(|violation| !pointer::is_valid(&violation.path));
        ensure!(odd.is_none(), "`{}` is no JSON Pointer", odd.map_or("", |violation| &violation.path));
        Ok(())
    }

    async fn plan_is_pure(&self) -> Check {
        let case = (self.case)("plan");
        let context = self.context(&case, "plan/1", 1);
        let ask = |prior, desired| PlanRequest { resource_type: self.resource_type.clone(), prior, desired };
        let prior = Prior { identity: "x".to_owned(), inputs: case.inputs.clone(), ..Prior::default() };
        let mut actions = Vec::new();
        for (prior, desired) in [
            (None, Some(case.inputs.clone())),
            (Some(prior.clone()), Some(case.inputs.clone())),
            (Some(prior), None),
        ] {
            let first =
                self.driver.plan(ask(prior.clone(), desired.clone())).await.map_err(|e| e.to_string())?;
            let second = self.driver.plan(ask(prior, desired)).await.map_err(|e| e.to_string())?;
            ensure!(first == second, "two plans of the same differ");
            let odd = first.diff.iter().map(|field| &field.path).chain(&first.forces_replacement);
            let odd = odd.into_iter().find(|place| !pointer::is_valid(place));
            ensure!(odd.is_none(), "`{}` is no JSON Pointer", odd.map_or("", |place| place));
            actions.push(first.action);
        }
        let expected = [PlanAction::Create, PlanAction::Noop, PlanAction::Delete];
        ensure!(actions == expected, "planned {actions:?} instead of {expected:?}");
        absent(&self.observe(&context, Lookup::Key(context.idempotency_key.clone())).await)
    }

    async fn apply_twice(&self) -> Check {
        let made = self.make("twice").await?;
        let mut context = made.context.clone();
        context.attempt = 2;
        context.fence += 1;
        let second = succeeded(self.apply(&context, &made.case).await)?;
        same(&made.success, &second)?;
        self.clean(&made).await
    }

    async fn concurrent(&self) -> Check {
        let case = (self.case)("concurrent");
        let context = self.context(&case, "concurrent/1", 10);
        let (first, second) = tokio::join!(self.apply(&context, &case), self.apply(&context, &case));
        let mut identities = Vec::new();
        for outcome in [first, second] {
            match outcome {
                Outcome::Succeeded(success) => identities.push(success.identity),
                Outcome::Failed(failure) if failure.retryable => {}
                other => return Err(format!("{other:?}")),
            }
        }
        identities.dedup();
        ensure!(identities.len() == 1, "two applies with one key made {identities:?}");
        let identity = Lookup::Identity(identities.remove(0));
        succeeded(self.remove(&context, identity.clone()).await)?;
        absent(&self.observe(&context, identity).await)
    }

    async fn other_inputs(&self) -> Check {
        let made = self.make("other").await?;
        let changed = made.case.changed.clone().unwrap_or_else(|| json!({"something": "else"}));
        let request = self.request(&changed, &made.case, None);
        let outcome = self.driver.apply(&made.context, request, &MemorySink::new()).await;
        let code = outcome.failure().map(|failure| failure.code);
        ensure!(code == Some(FailureCode::InvalidArgument), "answered {outcome:?}");
        self.clean(&made).await
    }

    async fn observes(&self) -> Check {
        let made = self.make("observe").await?;
        for lookup in [
            Lookup::Identity(made.success.identity.clone()),
            Lookup::Key(made.context.idempotency_key.clone()),
        ] {
            let found = found(self.observe(&made.context, lookup).await)?;
            same(&made.success, &found.into())?;
        }
        let nothing = Lookup::Key(self.key("never/1"));
        absent(&self.observe(&made.context, nothing).await)?;
        absent(&self.observe(&made.context, Lookup::Identity("never".to_owned())).await)?;
        self.clean(&made).await
    }

    async fn updates(&self) -> Check {
        let made = self.make("update").await?;
        let Some(changed) = made.case.changed.clone() else { return self.clean(&made).await };
        let mut context = made.context.clone();
        context.idempotency_key = self.key("update/2");
        context.fence += 1;
        let prior = made.prior();
        let mut results = Vec::new();
        for _ in 0..2 {
            let request = self.request(&changed, &made.case, Some(prior.clone()));
            results.push(succeeded(self.driver.apply(&context, request, &MemorySink::new()).await)?);
        }
        ensure!(results[0].identity == made.success.identity, "the update changed the identity");
        same(&results[0], &results[1])?;
        let found = found(self.observe(&context, Lookup::Key(context.idempotency_key.clone())).await)?;
        same(&results[0], &found.into())?;
        self.is_declared(&made, &changed).await?;
        self.clean(&made).await
    }

    async fn fences(&self) -> Check {
        let made = self.make("fence").await?;
        let mut late = made.context.clone();
        late.fence -= 1;
        let fenced = |outcome: &Outcome| outcome.failure().is_some_and(|f| f.code == FailureCode::Fenced);
        let outcome = self.apply(&late, &made.case).await;
        ensure!(fenced(&outcome), "a late apply was answered {outcome:?}");
        let request = DestroyRequest {
            resource_type: self.resource_type.clone(),
            lookup: Lookup::Identity(made.success.identity.clone()),
            state: Value::Null,
        };
        let outcome = self.driver.destroy(&late, request, &MemorySink::new()).await;
        ensure!(fenced(&outcome), "a late destroy was answered {outcome:?}");
        found(self.observe(&made.context, Lookup::Identity(made.success.identity.clone())).await)?;
        self.clean(&made).await?;
        // Also after the destroy: a zombie must not bring it back.
        let outcome = self.apply(&made.context, &made.case).await;
        ensure!(fenced(&outcome), "a late apply after the destroy was answered {outcome:?}");
        Ok(())
    }

    async fn destroys(&self) -> Check {
        let made = self.make("destroy").await?;
        self.clean(&made).await?;
        self.clean(&made).await?;
        absent(&self.observe(&made.context, Lookup::Key(made.context.idempotency_key.clone())).await)?;
        succeeded(self.remove(&made.context, Lookup::Key(self.key("never/1"))).await)?;
        let made = self.make("destroy-by-key").await?;
        succeeded(self.remove(&made.context, Lookup::Key(made.context.idempotency_key.clone())).await)?;
        absent(&self.observe(&made.context, Lookup::Identity(made.success.identity.clone())).await)
    }

    async fn cancels(&self) -> Check {
        let case = (self.case)("cancel");
        let context = self.context(&case, "cancel/1", 10);
        context.cancel.cancel();
        match self.apply(&context, &case).await {
            Outcome::Failed(failure) => {
                ensure!(failure.code == FailureCode::Cancelled, "answered {failure}");
            }
            Outcome::Succeeded(_) | Outcome::Unknown { .. } => {}
        }
        let key = Lookup::Key(context.idempotency_key.clone());
        if let Observation::Indeterminate { message } = self.observe(&context, key.clone()).await {
            return Err(format!("cannot be resolved: {message}"));
        }
        succeeded(self.remove(&context, key.clone()).await)?;
        absent(&self.observe(&context, key).await)
    }

    async fn echoes(&self) -> Check {
        let case = (self.case)("echo");
        let context = self.context(&case, "echo/1", 10);
        let sink = MemorySink::new();
        let outcome = self.driver.apply(&context, self.request(&case.inputs, &case, None), &sink).await;
        let shown = format!("{}{outcome:?}", sink.everything());
        let success = succeeded(outcome)?;
        let text = format!("{shown}{}{}{}", success.outputs, success.state, success.identity);
        let outputs = success.secrets.iter().map(|(_, secret)| secret.clone());
        for secret in case.sensitive.iter().cloned().chain(outputs) {
            ensure!(!text.contains(secret.expose_secret()), "a secret is echoed");
        }
        let made = Made { case, context, success };
        self.clean(&made).await
    }
}

/// Stands for inputs as the engine's digest does.
fn declaration_digest(inputs: &Value) -> String {
    let mut hasher = std::hash::DefaultHasher::new();
    inputs.to_string().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn succeeded(outcome: Outcome) -> Result<Success, String> {
    match outcome {
        Outcome::Succeeded(success) => Ok(success),
        other => Err(format!("did not succeed: {other:?}")),
    }
}

fn found(observation: Observation) -> Result<Found, String> {
    match observation {
        Observation::Found(found) => Ok(found),
        other => Err(format!("not found: {other:?}")),
    }
}

fn absent(observation: &Observation) -> Check {
    match observation {
        Observation::Absent => Ok(()),
        other => Err(format!("is not absent: {other:?}")),
    }
}

fn same(first: &Success, second: &Success) -> Check {
    ensure!(first.identity == second.identity, "identity `{}` became `{}`", first.identity, second.identity);
    ensure!(first.outputs == second.outputs, "outputs {} became {}", first.outputs, second.outputs);
    ensure!(first.secrets.same_as(&second.secrets), "secret outputs differ");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeDriver;

    #[tokio::test]
    async fn the_fake_driver_conforms() {
        let driver = FakeDriver::new("fake", &["thing"]);
        let subject = Subject {
            driver: Arc::new(driver.clone()),
            resource_type: "thing".to_owned(),
            organization: "acme".to_owned(),
            run: "kit".to_owned(),
            case: Box::new(|name| Case {
                resource: format!("organizations/acme/projects/p/resources/{name}"),
                inputs: json!({"name": name, "secret": true}),
                changed: Some(json!({"name": name, "secret": true, "size": 2})),
                failing: None,
                sensitive: Vec::new(),
            }),
        };
        run(&subject).await.assert();
        assert!(driver.live().is_empty());
    }
}
