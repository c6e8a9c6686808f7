//! The audit record of a change: filled here and nowhere else.

use pavior_auth::{Act, Permit};
use pavior_core::audit::{AuditEvent, Change, Object, Phase};
use pavior_core::resource::{Fields, Stored};
use pavior_store::{Recorded, StoreError, TxFuture};
use serde_json::Value as Json;

use crate::{ChangeContext, Kernel};

/// What the audit log is told of one resource.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    /// The type of the resource.
    pub object_type: &'static str,
    /// Its name.
    pub name: String,
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
            object_type: T::TYPE,
            before: before.map(|stored| stored.fields.snapshot()),
            after: after.map(|stored| stored.fields.snapshot()),
            plan_digest: None,
            refused: None,
            summary: format!("{verb} {} `{name}`", T::SINGULAR),
            name,
        }
    }

    /// Something was refused for `reason`, and that somebody tried is to be known.
    pub fn refused(object_type: &'static str, name: &str, reason: &'static str, summary: String) -> Self {
        Self {
            object_type,
            name: name.to_owned(),
            before: None,
            after: None,
            plan_digest: None,
            refused: Some(reason),
            summary,
        }
    }
}

pub(crate) fn event(context: &ChangeContext, entry: AuditEntry, kernel: &Kernel) -> AuditEvent {
    let AuditEntry { object_type, name, before, after, plan_digest, refused, summary } = entry;
    let params_digest = (!context.digest.is_empty()).then(|| hex::encode(&context.digest));
    let act = Act {
        action: context.action.to_owned(),
        phase: Phase::Outcome,
        object: Object { r#type: object_type.to_owned(), name, project: None },
        status: if refused.is_some() { "denied" } else { "ok" },
        code: refused.unwrap_or("OK").to_owned(),
        change: refused.is_none().then_some(Change { params_digest, plan_digest, before, after }),
        summary,
    };
    let permit: &Permit = &context.permit;
    let mut event = permit.event(act, kernel.ids.as_ref(), kernel.clock.as_ref());
    event.cause.parent_event = context.operation;
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
