//! What a failed apply leaves: of a new thing nothing, of a changed one what was.

use serde_json::Value;

use super::{Check, Made, Subject, absent, found, same, succeeded};
use crate::{
    CallContext, DestroyRequest, Failure, FailureCode, Lookup, MemorySink, Observation, Outcome, Prior,
};

impl Subject {
    /// A new thing that fails is gone, or named as a part that the engine then destroys.
    pub(super) async fn failed_create(&self) -> Check {
        let case = (self.case)("fail-new");
        let Some(failing) = &case.failing else { return Ok(()) };
        let context = self.context(&case, "conformance/fail-new/1", 10);
        let outcome =
            self.driver.apply(&context, self.request(failing, &case, None), &MemorySink::new()).await;
        let failure = failed(outcome)?;
        if let Some(partial) = failure.partial {
            let lookup = match partial.identity {
                Some(identity) => Lookup::Identity(identity),
                None => Lookup::Key(context.idempotency_key.clone()),
            };
            succeeded(self.undo(&context, lookup, partial.state).await)?;
        }
        absent(&self.observe(&context, Lookup::Key(context.idempotency_key.clone())).await)?;
        ensure!(!self.lists_resource(&case.resource).await?, "what failed is listed");
        Ok(())
    }

    /// A change that fails leaves the thing as it was, or says that it has to be put right.
    pub(super) async fn failed_update(&self) -> Check {
        let made = self.make("fail-change").await?;
        let Some(failing) = made.case.failing.clone() else { return self.clean(&made).await };
        let identity = Lookup::Identity(made.success.identity.clone());
        let mut context = made.context.clone();
        "conformance/fail-change/2".clone_into(&mut context.idempotency_key);
        context.fence += 1;
        let request = self.request(&failing, &made.case, Some(prior(&made)));
        let failure = failed(self.driver.apply(&context, request, &MemorySink::new()).await)?;
        if failure.partial.is_some() {
            let mut undo = context.clone();
            undo.idempotency_key.push_str("/undo");
            let request = self.request(&made.case.inputs, &made.case, Some(prior(&made)));
            succeeded(self.driver.apply(&undo, request, &MemorySink::new()).await)?;
        }
        let left = found(self.observe(&context, identity).await)?;
        same(&made.success, &left.into())?;
        // What is there now is not what this key asked for.
        let seen = self.observe(&context, Lookup::Key(context.idempotency_key.clone())).await;
        ensure!(!matches!(seen, Observation::Found(_)), "the change that failed is found: {seen:?}");
        if let Some(changed) = made.case.changed.clone() {
            "conformance/fail-change/3".clone_into(&mut context.idempotency_key);
            context.fence += 1;
            let request = self.request(&changed, &made.case, Some(prior(&made)));
            let changed = succeeded(self.driver.apply(&context, request, &MemorySink::new()).await)?;
            ensure!(changed.identity == made.success.identity, "the change after it has another identity");
        }
        self.clean(&made).await
    }

    /// Destroys as the engine undoes.
    async fn undo(&self, context: &CallContext, lookup: Lookup, state: Value) -> Outcome {
        let mut context = context.clone();
        context.fence += 100;
        let request = DestroyRequest { resource_type: self.resource_type.clone(), lookup, state };
        self.driver.destroy(&context, request, &MemorySink::new()).await
    }

    async fn lists_resource(&self, resource: &str) -> Result<bool, String> {
        match self.find_listed(|listed| listed.resource == resource).await {
            Ok(found) => Ok(found.is_some()),
            Err(failure) if failure.code == FailureCode::Unsupported => Ok(false),
            Err(failure) => Err(failure.to_string()),
        }
    }
}

fn prior(made: &Made) -> Prior {
    Prior {
        identity: made.success.identity.clone(),
        inputs: made.case.inputs.clone(),
        outputs: made.success.outputs.clone(),
        state: made.success.state.clone(),
    }
}

fn failed(outcome: Outcome) -> Result<Failure, String> {
    match outcome {
        Outcome::Failed(failure) => Ok(failure),
        other => Err(format!("did not fail: {other:?}")),
    }
}
