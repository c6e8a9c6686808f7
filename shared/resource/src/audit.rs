//! The audit record of a change: filled here and nowhere else.

use pavior_auth::{Act, Permit};
use pavior_core::audit::{Affected, AuditEvent, Change, Code, Outcome, Phase, Status};
use pavior_core::digest::SHA256_PREFIX;
use pavior_core::resource::{Fields, Stored};
use pavior_store::{Recorded, StoreError, TxFuture};
use serde_json::Value as Json;

use crate::{ChangeContext, Kernel};

/// What the audit log is told of one resource.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    /// The resource.
    pub target: Affected,
    /// What else changed with it.
    pub affected: Vec<Affected>,
    /// Its fields before; nothing when it was created.
    pub before: Option<Json>,
    /// Its fields after; nothing when it was deleted.
    pub after: Option<Json>,
    /// The plan concerned.
    pub plan_digest: Option<String>,
    /// Why it was refused; nothing when it was done.
    pub refused: Option<&'static str>,
    /// One sentence for people.
    pub summary: String,
}

impl AuditEntry {
    /// A resource was created, updated or deleted.
    pub fn of<T: Fields>(before: Option<&Stored<T>>, after: Option<&Stored<T>>) -> Self {
        let verb = match (before, after) {
            (None, _) => "created",
            (Some(_), Some(_)) => "updated",
            (Some(_), None) => "deleted",
        };
        Self::change(verb, before, after)
    }

    /// Something else happened to a resource; `verb` is a participle such as `approved`.
    pub fn change<T: Fields>(verb: &str, before: Option<&Stored<T>>, after: Option<&Stored<T>>) -> Self {
        let name = after.or(before).map(Stored::name).unwrap_or_default();
        Self {
            target: Affected::new(T::TYPE, &name),
            affected: Vec::new(),
            before: before.map(|stored| stored.fields.snapshot()),
            after: after.map(|stored| stored.fields.snapshot()),
            plan_digest: None,
            refused: None,
            summary: format!("{verb} {} `{name}`", T::SINGULAR),
        }
    }

    /// Something was refused for `reason`, with FAILED_PRECONDITION, and that somebody tried is to be known.
    pub fn refused(target: Affected, reason: &'static str, summary: String) -> Self {
        Self {
            target,
            affected: Vec::new(),
            before: None,
            after: None,
            plan_digest: None,
            refused: Some(reason),
            summary,
        }
    }
}

pub(crate) fn event(context: &ChangeContext, entry: AuditEntry, kernel: &Kernel) -> AuditEvent {
    let AuditEntry { target, affected, before, after, plan_digest, refused, summary } = entry;
    let request_digest = format!("{SHA256_PREFIX}{}", hex::encode(&context.digest));
    let plan_digest = plan_digest.unwrap_or_default();
    let act = Act {
        action: context.action.to_owned(),
        phase: Phase::Outcome,
        target,
        affected,
        outcome: match refused {
            Some(reason) => Outcome::error(Status::Denied, Code::FailedPrecondition, reason),
            None => Outcome::ok(Status::Succeeded),
        },
        request_id: context.request_id.clone(),
        change: refused.is_none().then_some(Change { request_digest, plan_digest, before, after }),
        summary,
    };
    let permit: &Permit = &context.permit;
    let mut event = permit.event(act, kernel.ids.as_ref(), kernel.clock.as_ref());
    event.cause.operation.clone_from(&context.operation);
    event
}

/// Writes a record of something that changed nothing.
///
/// # Errors
/// The database's.
pub async fn record(kernel: &Kernel, context: &ChangeContext, entry: AuditEntry) -> Result<(), StoreError> {
    let event = event(context, entry, kernel);
    let recorded = kernel.store.change(&kernel.outbox, move |_| {
        let event = event.clone();
        Box::pin(async move { Ok(Recorded::new((), event)) }) as TxFuture<'_, _, StoreError>
    });
    recorded.await
}
