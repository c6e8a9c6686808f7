//! One change: locked, replayed or worked on, undone when it was a dry run, kept with its answer, and recorded.

use pavior_core::Fault;
use std::sync::Arc;

use pavior_auth::Permit;
use pavior_proto::shape;
use pavior_rpc::digest;
use pavior_rpc::facts::still_hold;
use pavior_rpc::problem::Problem;
use pavior_store::idempotency::{self, IdempotencyError};
use pavior_store::{Recorded, Tx, TxFuture};
use prost::Message;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::table::Rows;
use crate::{AuditEntry, Error, Service, Table, audit};
use pavior_core::resource::Stored;

/// Who changes something, by which method, and how.
#[derive(Debug, Clone)]
pub struct ChangeContext {
    /// The proof that the call was let in.
    pub permit: Permit,
    /// `/pavior.identity.v1.IdentityService/CreateGroup`; empty for background work.
    pub method: &'static str,
    /// The action for the audit record, `identity.groups.create`.
    pub action: &'static str,
    /// The caller's UUID; empty when the call is not to be repeatable.
    pub request_id: String,
    /// Over the content of the request; empty for background work.
    pub digest: Vec<u8>,
    /// Whether all of it is to be undone.
    pub validate_only: bool,
    /// Whether it was decided on facts of the target.
    pub facts: bool,
    /// The operation that the change belongs to, by resource name, for its audit record; empty when to none.
    pub operation: String,
}

impl ChangeContext {
    /// Of a request.
    pub fn of<R: shape::Request>(permit: &Permit, request: &R) -> Self {
        Self {
            permit: permit.clone(),
            method: R::PATH,
            action: R::ACTION,
            request_id: request.request_id().to_owned(),
            digest: digest::of(request).to_vec(),
            validate_only: request.validate_only(),
            facts: R::FACTS,
            operation: String::new(),
        }
    }

    /// Of background work.
    pub fn background(permit: &Permit, action: &'static str) -> Self {
        Self {
            permit: permit.clone(),
            method: "",
            action,
            request_id: String::new(),
            digest: Vec::new(),
            validate_only: false,
            facts: false,
            operation: String::new(),
        }
    }

    /// As a part of this operation.
    ///
    /// # Errors
    /// INVALID_ARGUMENT when it is no UUID.
    pub fn within(self, operation: &str) -> Result<Self, Problem> {
        let id = Uuid::try_parse(operation)
            .map_err(|_| Problem::invalid_field("operation_id", Fault::Pattern, "must be a UUID"))?;
        let operation = format!("organizations/{}/operations/{id}", self.permit.organization());
        Ok(Self { operation, ..self })
    }

    /// Under which the answer is kept; nothing where it is not.
    fn key(&self) -> Option<idempotency::Key> {
        let (organization, asker) = (self.permit.organization(), self.permit.principal().asker());
        (!self.request_id.is_empty() && !self.validate_only)
            .then(|| idempotency::Key::new(organization, &asker, self.method, &self.request_id))
    }
}

/// What a change works with, within its transaction.
#[derive(Debug, Clone, Copy)]
pub struct Work<'c, S> {
    /// The transaction.
    pub tx: &'c Tx,
    /// The proof that the call was let in.
    pub permit: &'c Permit,
    /// The time of the change.
    pub now: OffsetDateTime,
    /// The service.
    pub service: &'c S,
}

impl<'c, S: Service> Work<'c, S> {
    /// Queries in the transaction.
    pub fn rows(&self) -> Rows<'c, Tx> {
        Rows::new(self.tx)
    }

    /// A new UUID.
    pub fn uuid(&self) -> Uuid {
        self.service.kernel().ids.uuid()
    }

    /// One resource of the organization. `parent` is the id of the resource above, other than the organization.
    ///
    /// # Errors
    /// The database's.
    pub async fn find<T: Table>(&self, parent: &str, id: &str) -> Result<Option<Stored<T>>, Error> {
        Ok(self.rows().find(self.permit, parent, id).await?)
    }

    /// As [`Work::find`]; that it does not exist is an error.
    ///
    /// # Errors
    /// NOT_FOUND, and the database's.
    pub async fn get<T: Table>(&self, parent: &str, id: &str, name: &str) -> Result<Stored<T>, Error> {
        self.find(parent, id).await?.ok_or_else(|| Error::not_found::<T>(name))
    }

    /// Deletes a resource, and keeps it as what is deleted. Gives it with the times of its end.
    ///
    /// # Errors
    /// A row that has moved on is a lost race; and the database's.
    pub async fn end<T: Table>(&self, before: &Stored<T>) -> Result<Stored<T>, Error> {
        let keeping = self.service.kernel().keeping;
        let ended = self.rows().delete(self.permit, before, self.now, keeping).await?;
        Ok(Stored { ended: Some(ended), ..before.clone() })
    }

    /// Deletes several that nothing else changes meanwhile.
    ///
    /// # Errors
    /// The database's.
    pub async fn end_all<T: Table>(&self, before: &[Stored<T>]) -> Result<(), Error> {
        let keeping = self.service.kernel().keeping;
        Ok(self.rows().delete_all(self.permit, before, self.now, keeping).await?)
    }

    /// Fails when there are so many resources of a type already.
    ///
    /// # Errors
    /// QUOTA_EXCEEDED, and the database's.
    pub async fn room_for<T: Table>(&self, plural: &'static str, limit: u64) -> Result<(), Error> {
        if self.rows().count::<T>(self.permit).await? < limit {
            return Ok(());
        }
        Err(Error::Quota { plural, limit })
    }
}

/// What a change did.
#[derive(Debug, Clone, PartialEq)]
pub struct Done<V> {
    /// The answer.
    pub value: V,
    /// What the audit log is told; nothing when nothing changed.
    pub entries: Vec<AuditEntry>,
}

impl<V> Done<V> {
    /// Nothing changed.
    pub fn unchanged(value: V) -> Self {
        Self { value, entries: Vec::new() }
    }

    /// One thing changed.
    pub fn new(value: V, entry: AuditEntry) -> Self {
        Self { value, entries: vec![entry] }
    }
}

/// Runs a change: keeps other changes of the organization waiting, answers a repeated request with the first answer,
/// writes the audit record into the same transaction, keeps the answer, and undoes it all after a dry run. `work` may
/// run several times.
///
/// # Errors
/// Those of `work`, of the database, and REQUEST_ID_REUSED.
pub async fn run<S, V, M, C, W>(
    service: &S,
    context: &ChangeContext,
    encode: fn(&V) -> M,
    command: C,
    work: W,
) -> Result<M, S::Error>
where
    S: Service,
    V: Send + 'static,
    M: Message + Default + 'static,
    C: Send + Sync + 'static,
    W: for<'c> Fn(&'c Work<'c, S>, &'c C) -> TxFuture<'c, Done<V>, S::Error> + Send + Sync + 'static,
{
    once(service, context, commit(service, context, encode, command, work)).await
}

/// Gives what `work` gives. Where that is a refusal, the same request may have been accepted in the meantime, or long
/// ago under other conditions: then its answer is the answer.
///
/// # Errors
/// Those of `work`, and REQUEST_ID_REUSED.
pub async fn once<S, M>(
    service: &S,
    context: &ChangeContext,
    work: impl Future<Output = Result<M, S::Error>>,
) -> Result<M, S::Error>
where
    S: Service,
    M: Message + Default,
{
    let refused = match work.await {
        Ok(answer) => return Ok(answer),
        Err(refused) => refused,
    };
    let Some(key) = context.key() else { return Err(refused) };
    match idempotency::check(service.kernel().store.read(), &key, &context.digest).await {
        Ok(Some(first)) => Ok(replayed(&first)?),
        Err(IdempotencyError::Reused) => Err(Error::RequestIdReused.into()),
        Ok(None) | Err(IdempotencyError::Store(_)) => Err(refused),
    }
}

/// [`run`] without another look for the first answer.
pub(crate) async fn commit<S, V, M, C, W>(
    service: &S,
    context: &ChangeContext,
    encode: fn(&V) -> M,
    command: C,
    work: W,
) -> Result<M, S::Error>
where
    S: Service,
    V: Send + 'static,
    M: Message + Default + 'static,
    C: Send + Sync + 'static,
    W: for<'c> Fn(&'c Work<'c, S>, &'c C) -> TxFuture<'c, Done<V>, S::Error> + Send + Sync + 'static,
{
    let kernel = service.kernel();
    let shared = Arc::new((service.clone(), context.clone(), command, work));
    kernel
        .store
        .change(&kernel.outbox, move |tx| {
            let shared = shared.clone();
            Box::pin(async move {
                let (service, context, command, work) = &*shared;
                attempt(tx, service, context, encode, command, work).await
            })
        })
        .await
}

async fn attempt<S, V, M, C, W>(
    tx: &Tx,
    service: &S,
    context: &ChangeContext,
    encode: fn(&V) -> M,
    command: &C,
    work: &W,
) -> Result<Recorded<M>, S::Error>
where
    S: Service,
    M: Message + Default,
    W: for<'c> Fn(&'c Work<'c, S>, &'c C) -> TxFuture<'c, Done<V>, S::Error>,
{
    let (kernel, permit) = (service.kernel(), &context.permit);
    S::lock(tx, permit).await?;
    let key = context.key();
    if let Some(key) = &key
        && let Some(first) = idempotency::check(tx, key, &context.digest).await.map_err(Error::from)?
    {
        return Ok(Recorded::unchanged(replayed(&first)?));
    }
    let facts = match key.is_some() || context.facts {
        true => service.facts(tx, permit).await?,
        false => None,
    };
    if let Some(facts) = facts.as_ref().filter(|_| context.facts) {
        still_hold(permit.facts(), facts).map_err(Error::Problem)?;
    }
    let now = kernel.clock.now();
    let started = Work { tx, permit, now, service };
    let Done { value, entries } = work(&started, command).await?;
    let answer = encode(&value);
    if context.validate_only {
        return Ok(Recorded::unchanged(answer));
    }
    let kept = key.map(|key| idempotency::Kept {
        key,
        hash: context.digest.clone(),
        response: answer.encode_to_vec(),
        facts: facts.map(|facts| facts.encode_to_vec()).unwrap_or_default(),
        time: now,
    });
    let events = entries.into_iter().map(|entry| audit::event(context, entry, kernel)).collect();
    Ok(Recorded::all(answer, events).answering(kept))
}

fn replayed<M: Message + Default>(first: &[u8]) -> Result<M, Error> {
    M::decode(first).map_err(|error| Error::Problem(Problem::internal(error)))
}
