//! One change: idempotency, the change itself and its audit event, in one transaction.

use pavior_auth::{Act, Permit};
use pavior_core::audit::{AuditEvent, Change, Object, Phase};
use pavior_rpc::digest;
use pavior_store::idempotency::{self, IdempotencyError, Kept, Key};
use pavior_store::{Recorded, Tx, TxFuture};
use prost::{Message, Name};

use super::App;
use crate::error::Error;

/// The path of this service's methods.
const SERVICE: &str = "/pavior.policy.v1.PolicyService/";

/// A call of a method.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The action that policy decided on.
    pub(crate) action: &'static str,
    /// The full method name; empty for what is not repeated.
    pub(crate) method: String,
    /// The caller's UUID; empty when the call cannot be repeated.
    pub(crate) request_id: String,
    /// The digest of the request.
    pub(crate) hash: [u8; 32],
    /// Whether to check only.
    pub(crate) validate_only: bool,
}

impl Call {
    /// A read.
    pub(crate) fn read(action: &'static str) -> Self {
        let (method, request_id) = (String::new(), String::new());
        Self { action, method, request_id, hash: [0; 32], validate_only: false }
    }

    /// A change. Each method has a request message of its own, named after it.
    pub(crate) fn change<M: Message + Name>(
        action: &'static str,
        request: &M,
        request_id: &str,
        validate_only: bool,
    ) -> Self {
        let method = format!("{SERVICE}{}", M::NAME.strip_suffix("Request").unwrap_or(M::NAME));
        let (hash, request_id) = (digest::of(request), request_id.to_owned());
        Self { action, method, request_id, hash, validate_only }
    }

    /// Under which the answer is kept; nothing where it is not.
    fn key(&self, permit: &Permit) -> Option<Key> {
        let (organization, asker) = (permit.organization(), permit.principal().asker());
        (!self.request_id.is_empty() && !self.validate_only)
            .then(|| Key::new(organization, &asker, &self.method, &self.request_id))
    }
}

/// What a change gives: the answer, and what to record unless nothing changed.
pub(crate) type Changed<M> = (M, Option<AuditEvent>);

/// What happened to what, for the audit trail.
#[derive(Debug, Clone)]
pub(crate) struct Happened {
    /// The action, where the permit does not name one.
    pub(crate) action: &'static str,
    /// The type of the resource.
    pub(crate) kind: &'static str,
    /// Its name.
    pub(crate) name: String,
    /// A participle, for example `created`.
    pub(crate) verb: &'static str,
    /// As it was.
    pub(crate) before: Option<serde_json::Value>,
    /// As it is.
    pub(crate) after: Option<serde_json::Value>,
    /// The plan concerned.
    pub(crate) plan_digest: Option<String>,
}

impl App {
    /// Runs `work` in a transaction and commits it with its audit event and the answer to its request id. The first
    /// answer to a request id is given again; with `validate_only` nothing is kept.
    pub(crate) async fn write<M, F>(&self, permit: &Permit, call: &Call, work: F) -> Result<M, Error>
    where
        M: Message + Default + Send + Sync + 'static,
        F: for<'c> Fn(&'c Tx) -> TxFuture<'c, Changed<M>, Error> + Send + Sync + Clone + 'static,
    {
        let (app, permit, validate_only, call) =
            (self.clone(), permit.clone(), call.validate_only, call.clone());
        let context = pavior_rpc::context::current();
        let answer = self
            .store
            .change(&self.outbox, move |tx| {
                let (app, permit, call, work) = (app.clone(), permit.clone(), call.clone(), work.clone());
                let attempt = async move { app.attempt(tx, &permit, &call, &work).await };
                // The transaction is not in the task of the request, whose context the audit event names.
                match context.clone() {
                    Some(context) => Box::pin(pavior_rpc::context::scope(context, attempt)),
                    None => Box::pin(attempt),
                }
            })
            .await?;
        if !validate_only {
            self.compilations.touch();
        }
        Ok(answer)
    }

    /// Gives what `work` gives. Where that is a refusal, the same request may have been answered in the meantime, or
    /// long ago and `work` did not come to find it: then its answer is the answer.
    pub(crate) async fn once<M>(
        &self,
        permit: &Permit,
        call: &Call,
        work: impl Future<Output = Result<M, Error>>,
    ) -> Result<M, Error>
    where
        M: Message + Default,
    {
        let refused = match work.await {
            Ok(answer) => return Ok(answer),
            Err(refused) => refused,
        };
        let Some(key) = call.key(permit) else { return Err(refused) };
        match idempotency::check(self.store.read(), &key, &call.hash).await {
            Ok(Some(first)) => M::decode(first.as_slice()).map_err(|error| Error::Bug(error.to_string())),
            Err(IdempotencyError::Reused) => Err(Error::RequestIdReused),
            Ok(None) | Err(IdempotencyError::Store(_)) => Err(refused),
        }
    }

    async fn attempt<M, F>(
        &self,
        tx: &Tx,
        permit: &Permit,
        call: &Call,
        work: &F,
    ) -> Result<Recorded<M>, Error>
    where
        M: Message + Default,
        F: for<'c> Fn(&'c Tx) -> TxFuture<'c, Changed<M>, Error>,
    {
        let key = call.key(permit);
        if let Some(key) = &key
            && let Some(first) = idempotency::check(tx, key, &call.hash).await?
        {
            let first = M::decode(first.as_slice()).map_err(|error| Error::Bug(error.to_string()))?;
            return Ok(Recorded::unchanged(first));
        }
        let facts = match &key {
            Some(_) if !permit.resource().is_empty() => {
                self.facts_in(tx, permit.resource()).await?.encode_to_vec()
            }
            _ => Vec::new(),
        };
        let (answer, event) = work(tx).await?;
        if call.validate_only {
            return Ok(Recorded::unchanged(answer));
        }
        let kept = key.map(|key| Kept {
            key,
            hash: call.hash.to_vec(),
            response: answer.encode_to_vec(),
            facts,
            time: self.clock.now(),
        });
        Ok(Recorded::all(answer, event.into_iter().collect()).answering(kept))
    }

    /// The audit event of a change that is being made.
    pub(crate) fn event(&self, permit: &Permit, happened: Happened) -> AuditEvent {
        let Happened { action, kind, name, verb, before, after, plan_digest } = happened;
        let permitted = permit.action();
        let act = Act {
            action: if permitted.is_empty() { action } else { permitted }.to_owned(),
            phase: Phase::Outcome,
            summary: format!("`{}` {verb} `{name}`", permit.actor().reference),
            object: Object { r#type: kind.to_owned(), name, project: None },
            status: "ok",
            code: "OK".to_owned(),
            change: Some(Change { params_digest: None, plan_digest, before, after }),
        };
        permit.event(act, self.ids.as_ref(), self.clock.as_ref())
    }
}
