//! How a thing stands: what a plan sees of it, and what it does about what it finds gone.

use serde_json::{Value, json};

use super::{Check, Made, Subject, declaration_digest, found, succeeded};
use crate::{FailureCode, InvokeRequest, Lookup, MemorySink};

impl Subject {
    /// What a plan finds gone is applied over what is recorded of it.
    pub(super) async fn makes_anew(&self) -> Check {
        let made = self.make("anew").await?;
        self.clean(&made).await?;
        let mut context = made.context.clone();
        context.idempotency_key = self.key("anew/2");
        context.fence += 200;
        let request = self.request(&made.case.inputs, &made.case, Some(made.prior()));
        let success = succeeded(self.driver.apply(&context, request, &MemorySink::new()).await)?;
        found(self.observe(&context, Lookup::Identity(success.identity.clone())).await)?;
        self.clean(&Made { context, success, ..made }).await
    }

    /// A driver that keeps what was declared says that it is this, whichever way it is asked.
    pub(super) async fn is_declared(&self, made: &Made, inputs: &Value) -> Check {
        let identity = &made.success.identity;
        let listed = self.listed(identity).await;
        let listed = listed.ok().flatten().map(|listed| listed.declaration_digest).unwrap_or_default();
        let looked = self.observe(&made.context, Lookup::Identity(identity.clone())).await;
        let looked = found(looked).map(|found| found.declaration_digest).unwrap_or_default();
        for kept in [listed, looked] {
            ensure!(kept.is_empty() || kept == declaration_digest(inputs), "it says another declaration");
        }
        Ok(())
    }

    pub(super) async fn actions(&self) -> Check {
        let made = self.make("action").await?;
        let request = InvokeRequest {
            resource_type: self.resource_type.clone(),
            identity: made.success.identity.clone(),
            action: "no-such-action".to_owned(),
            arguments: json!({}),
            sensitive: Vec::new(),
            state: made.success.state.clone(),
        };
        let mut context = made.context.clone();
        context.idempotency_key.push_str("/action");
        let outcome = self.driver.invoke(&context, request, &MemorySink::new()).await;
        let code = outcome.failure().map(|failure| failure.code);
        ensure!(code == Some(FailureCode::Unsupported), "answered {outcome:?}");
        self.clean(&made).await
    }
}
