//! What a failed apply leaves: of a new thing nothing, of a changed one what was.

use std::task::Poll;

use serde_json::Value;

use super::{Check, Subject, absent, found, same, succeeded};
use crate::{CallContext, DestroyRequest, Failure, FailureCode, Lookup, MemorySink, Observation, Outcome};

impl Subject {
    /// A new thing that fails is gone, or named as a part that the engine then destroys.
    pub(super) async fn failed_create(&self) -> Check {
        let case = (self.case)("fail-new");
        let Some(failing) = &case.failing else { return Ok(()) };
        let context = self.context(&case, "fail-new/1", 10);
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
        context.idempotency_key = self.key("fail-change/2");
        context.fence += 1;
        let request = self.request(&failing, &made.case, Some(made.prior()));
        let failure = failed(self.driver.apply(&context, request, &MemorySink::new()).await)?;
        if failure.partial.is_some() {
            let mut undo = context.clone();
            undo.idempotency_key.push_str("/undo");
            let request = self.request(&made.case.inputs, &made.case, Some(made.prior()));
            succeeded(self.driver.apply(&undo, request, &MemorySink::new()).await)?;
        }
        let left = found(self.observe(&context, identity).await)?;
        same(&made.success, &left.into())?;
        // What is there now is not what this key asked for.
        let seen = self.observe(&context, Lookup::Key(context.idempotency_key.clone())).await;
        ensure!(!matches!(seen, Observation::Found(_)), "the change that failed is found: {seen:?}");
        if let Some(changed) = made.case.changed.clone() {
            context.idempotency_key = self.key("fail-change/3");
            context.fence += 1;
            let request = self.request(&changed, &made.case, Some(made.prior()));
            let changed = succeeded(self.driver.apply(&context, request, &MemorySink::new()).await)?;
            ensure!(changed.identity == made.success.identity, "the change after it has another identity");
        }
        self.clean(&made).await
    }

    /// An update whose call is dropped, earlier or later: until it ended, its key does not find the thing, and the same
    /// call again ends it.
    pub(super) async fn dropped_update(&self) -> Check {
        let made = self.make("drop-change").await?;
        let Some(changed) = made.case.changed.clone() else { return self.clean(&made).await };
        let mut context = made.context.clone();
        context.idempotency_key = self.key("drop-change/2");
        let request = || self.request(&changed, &made.case, Some(made.prior()));
        for polls in [1, 2, 4, 8, 16] {
            context.fence += 1;
            let sink = MemorySink::new();
            let apply = self.driver.apply(&context, request(), &sink);
            if let Some(outcome) = polled(apply, polls).await {
                succeeded(outcome)?;
                break;
            }
            let seen = self.observe(&context, Lookup::Key(context.idempotency_key.clone())).await;
            if let Observation::Found(_) = seen {
                self.is_declared(&made, &changed).await.map_err(|why| format!("it is found, and {why}"))?;
            }
        }
        context.fence += 1;
        succeeded(self.driver.apply(&context, request(), &MemorySink::new()).await)?;
        found(self.observe(&context, Lookup::Key(context.idempotency_key.clone())).await)?;
        self.is_declared(&made, &changed).await?;
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

/// Polls so often, and gives the outcome if there is one by then.
async fn polled(call: impl Future<Output = Outcome>, polls: usize) -> Option<Outcome> {
    let mut call = std::pin::pin!(call);
    let mut left = polls;
    std::future::poll_fn(|context| match call.as_mut().poll(context) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending => {
            left -= 1;
            if left == 0 { Poll::Ready(None) } else { Poll::Pending }
        }
    })
    .await
}

fn failed(outcome: Outcome) -> Result<Failure, String> {
    match outcome {
        Outcome::Failed(failure) => Ok(failure),
        other => Err(format!("did not fail: {other:?}")),
    }
}
