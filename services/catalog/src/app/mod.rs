//! What can be done with the catalog: one file for each resource, and here what every change has in common.

mod crud;
mod definitions;
mod directory;
mod entities;
mod facts;
mod groups;
mod import;
mod import_members;
mod kinds;
mod organizations;
mod publish;
mod registration;
mod resource_types;
mod templates;

use std::sync::Arc;

use futures::future::BoxFuture;
use pavior_auth::{Act, Permit};
use pavior_core::audit::{AuditEvent, Change, Object, Phase};
use pavior_core::clock::Clock;
use pavior_core::filter::{Filter, order_by};
use pavior_core::id::IdGen;
use pavior_rpc::problem::Problem;
use pavior_store::Recorded;
use pavior_store::idempotency::{self, IdempotencyError};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::Stored;
use crate::error::Error;
use crate::json::Json;
use crate::store::{CatalogStore, ListQuery, Tx};

pub(crate) use crud::{Create, Delete, Rules, Update, View};
pub(crate) use definitions::Match;
pub(crate) use directory::Directory;
pub(crate) use facts::Facts;
pub(crate) use import::{ImportDocument, Imported, OwnerChange};
pub(crate) use publish::Publish;
pub(crate) use registration::{Register, Unregister};
// For the wire side, which must not know the store.
pub(crate) use crate::store::{DirectoryRows, Table};

/// The catalog's use cases. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct App {
    store: CatalogStore,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdGen>,
}

/// What is known of a call that changes something.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) permit: Permit,
    /// `/pavior.catalog.v1.CatalogService/CreateGroup`.
    pub(crate) method: &'static str,
    /// The action for the audit record, `catalog.groups.create`.
    pub(crate) action: &'static str,
    /// The caller's UUID; empty when the call is not to be repeatable.
    pub(crate) request_id: String,
    /// A digest of the request.
    pub(crate) request_hash: Vec<u8>,
    pub(crate) validate_only: bool,
    /// The operation that the change belongs to, for its audit record.
    pub(crate) operation: Option<Uuid>,
    /// How the facts of the target are kept with the answer.
    pub(crate) encode_facts: Encode<Facts>,
}

impl Call {
    /// As a part of this operation.
    pub(crate) fn within(self, operation: &str) -> Result<Self, Problem> {
        let operation =
            Uuid::try_parse(operation).map_err(|_| Problem::invalid_field("operation", "must be a UUID"))?;
        Ok(Self { operation: Some(operation), ..self })
    }

    /// Under which the answer is kept; nothing where it is not.
    fn key(&self) -> Option<idempotency::Key> {
        let (organization, asker) = (self.permit.organization(), self.permit.principal().asker());
        (!self.request_id.is_empty() && !self.validate_only)
            .then(|| idempotency::Key::new(organization, &asker, self.method, &self.request_id))
    }
}

/// The answer to a change.
#[derive(Debug)]
pub(crate) enum Answer<T> {
    New(T),
    /// The bytes of the first answer to the same request.
    Again(Vec<u8>),
}

/// How an answer is written down, to be given again.
pub(crate) type Encode<T> = fn(&T) -> Vec<u8>;

/// What a change works with.
pub(crate) struct Work<'c> {
    pub(crate) tx: Tx<'c>,
    pub(crate) permit: Permit,
    pub(crate) now: OffsetDateTime,
    pub(crate) ids: Arc<dyn IdGen>,
}

/// What a change did.
pub(crate) struct Done<T> {
    pub(crate) value: T,
    pub(crate) events: Vec<Event>,
}

/// What the audit log is told.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) object_type: &'static str,
    pub(crate) name: String,
    pub(crate) before: Option<Json>,
    pub(crate) after: Option<Json>,
    pub(crate) summary: String,
}

impl App {
    pub(crate) fn new(store: CatalogStore, clock: Arc<dyn Clock>, ids: Arc<dyn IdGen>) -> Self {
        Self { store, clock, ids }
    }

    /// Runs a change: answers a repeated request from memory, keeps other changes of the organization waiting, writes
    /// the audit record into the same transaction, keeps the answer, and undoes it all when only validation was asked.
    async fn change<T, C, W>(
        &self,
        call: Call,
        encode: Encode<T>,
        command: C,
        work: W,
    ) -> Result<Answer<T>, Error>
    where
        T: Send + 'static,
        C: Send + Sync + 'static,
        W: for<'c> Fn(Work<'c>, Arc<C>) -> WorkFuture<'c, T> + Send + Sync + 'static,
    {
        let (call, command) = (Arc::new(call), Arc::new(command));
        let asked = call.clone();
        let (clock, ids) = (self.clock.clone(), self.ids.clone());
        let work = Arc::new(work);
        let result = self
            .store
            .change(move |tx| {
                let (call, command, work) = (call.clone(), command.clone(), work.clone());
                let (clock, ids) = (clock.clone(), ids.clone());
                Box::pin(async move { attempt(tx, &call, encode, clock, ids, command, &*work).await })
            })
            .await;
        match result {
            Ok(answer) => Ok(answer),
            Err(error) => self.answered_meanwhile(&asked, error).await,
        }
    }

    /// What is refused may have been done by the same request in the meantime: then its answer is the answer.
    async fn answered_meanwhile<T>(&self, call: &Call, refused: Error) -> Result<Answer<T>, Error> {
        let Some(key) = call.key() else { return Err(refused) };
        match self.store.read().first_answer(&key, &call.request_hash).await {
            Ok(Some(first)) => Ok(Answer::Again(first)),
            Err(IdempotencyError::Reused) => Err(Error::RequestIdReused),
            Ok(None) | Err(IdempotencyError::Store(_)) => Err(refused),
        }
    }
}

type WorkFuture<'c, T> = BoxFuture<'c, Result<(Work<'c>, Done<T>), Error>>;

async fn attempt<'c, T, C, W>(
    tx: Tx<'c>,
    call: &Call,
    encode: Encode<T>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdGen>,
    command: Arc<C>,
    work: &W,
) -> Result<Recorded<Answer<T>>, Error>
where
    W: for<'w> Fn(Work<'w>, Arc<C>) -> WorkFuture<'w, T>,
{
    let permit = call.permit.clone();
    // The platform itself is no organization, and what it changes conflicts by name only.
    if permit.organization() != "-" && !tx.lock_organization(&permit).await? {
        let name = format!("organizations/{}", permit.organization());
        return Err(Error::NotFound { kind: "organization", name });
    }
    let key = call.key();
    if let Some(key) = &key
        && let Some(first) = tx.first_answer(key, &call.request_hash).await?
    {
        return Ok(Recorded::unchanged(Answer::Again(first)));
    }
    let facts = match key {
        Some(_) => facts::facts_of_target(&tx, &permit).await?,
        None => None,
    };
    let started = Work { tx, permit, now: clock.now(), ids };
    let (Work { permit, now, ids, .. }, Done { value, events }) = work(started, command).await?;
    if call.validate_only {
        return Ok(Recorded::unchanged(Answer::New(value)));
    }
    let kept = key.map(|key| idempotency::Kept {
        key,
        hash: call.request_hash.clone(),
        response: encode(&value),
        facts: facts.as_ref().map(call.encode_facts).unwrap_or_default(),
        time: now,
    });
    let events = events.into_iter();
    let events = events.map(|event| audit_event(call, &permit, event, ids.as_ref(), clock.as_ref()));
    Ok(Recorded::all(Answer::New(value), events.collect()).answering(kept))
}

fn audit_event(call: &Call, permit: &Permit, event: Event, ids: &dyn IdGen, clock: &dyn Clock) -> AuditEvent {
    let Event { object_type, name, before, after, summary } = event;
    let params_digest = Some(hex::encode(&call.request_hash));
    let act = Act {
        action: call.action.to_owned(),
        phase: Phase::Outcome,
        object: Object { r#type: object_type.to_owned(), name, project: None },
        status: "ok",
        code: "OK".to_owned(),
        change: Some(Change { params_digest, plan_digest: None, before, after }),
        summary,
    };
    let mut event = permit.event(act, ids, clock);
    event.cause.parent_event = call.operation;
    event
}

/// A list that was asked for.
#[derive(Debug, Clone)]
pub(crate) struct ListAsked<'a> {
    /// The resource above, other than the organization; `None` for all.
    pub(crate) parent: Option<&'a str>,
    pub(crate) filter: &'a str,
    pub(crate) order_by: &'a str,
    pub(crate) limit: u64,
    pub(crate) after: Option<Json>,
}

impl ListAsked<'_> {
    fn query(self) -> Result<ListQuery, Error> {
        let filter = Filter::parse(self.filter)
            .map_err(|error| Error::Filter { field: "filter", message: error.to_string() })?;
        let order = order_by(self.order_by)
            .map_err(|error| Error::Filter { field: "order_by", message: error.to_string() })?;
        let parent = self.parent.map(str::to_owned);
        Ok(ListQuery { parent, filter, order, limit: self.limit, after: self.after })
    }
}

/// `[name, name, …]` of what stands in the way, at most `limit`, and whether there is more.
fn dependents_of<F: crate::domain::Resource>(
    stored: &Stored<F>,
    mut dependents: Vec<String>,
    limit: usize,
) -> Result<(), Error> {
    if dependents.is_empty() {
        return Ok(());
    }
    let more = dependents.len() > limit;
    dependents.truncate(limit);
    Err(Error::HasDependents { name: stored.name(), dependents, more })
}
