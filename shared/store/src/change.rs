//! The two ways to write.

use crate::idempotency::Kept;
use crate::member::Ended;
use crate::outbox::{self, OutboxContext, Room};
use crate::tx::{Tx, TxFuture};
use crate::{Retryable, Store, StoreError};
use pavior_core::audit::AuditEvent;

/// What a change of tenant data gives: a value, and what the audit log is told of it.
///
/// There is none without an event, the promise that nothing changed (which [`Store::change`] enforces), or the reason
/// why what changed is upkeep.
#[derive(Debug)]
pub struct Recorded<T> {
    value: T,
    events: Vec<AuditEvent>,
    answer: Option<Kept>,
    upkeep: bool,
    room: Room,
}

impl<T> Recorded<T> {
    /// A change with its event.
    pub fn new(value: T, event: AuditEvent) -> Self {
        Self::all(value, vec![event])
    }

    /// A change with as many events as it takes; without any, nothing changed.
    pub fn all(value: T, events: Vec<AuditEvent>) -> Self {
        Self { value, events, answer: None, upkeep: false, room: Room::Needed }
    }

    /// Nothing changed. Whatever the closure wrote is undone.
    pub fn unchanged(value: T) -> Self {
        Self::all(value, Vec::new())
    }

    /// What was written turned out to be upkeep, see [`Store::upkeep`], of which `what` says what it is.
    pub fn upkeep(value: T, what: &'static str) -> Self {
        tracing::trace!(what, "upkeep");
        Self { upkeep: true, ..Self::all(value, Vec::new()) }
    }

    /// Its events tell of what has happened already, outside of the database: to refuse them would only lose it. Whoever
    /// brings about such things asks [`outbox::has_room`] before.
    #[must_use]
    pub fn happened(self) -> Self {
        Self { room: Room::Given, ..self }
    }

    /// One more event.
    #[must_use]
    pub fn and(mut self, event: AuditEvent) -> Self {
        self.events.push(event);
        self
    }

    /// Keeps the answer to a request id, also when nothing changed.
    #[must_use]
    pub fn answering(mut self, answer: Option<Kept>) -> Self {
        self.answer = answer;
        self
    }
}

impl Store {
    /// Changes tenant data: runs `work` in a transaction, and commits it together with the audit events of what it
    /// did. Without an event the transaction is undone.
    ///
    /// Isolation is READ COMMITTED on PostgreSQL (lock or check what you rely on) and serial on SQLite. `work` runs
    /// again, after a pause with jitter, when the transaction lost a race; so it must have no effect outside of `tx`
    /// and clone what it moves into the future. It runs to its end, or not at all, even if the caller is dropped:
    ///
    /// ```ignore
    /// store.change(&outbox, move |tx| {
    ///     let name = name.clone();
    ///     Box::pin(async move { Ok(Recorded::new(insert(tx, &name).await?, event(&name))) })
    /// })
    /// .await
    /// ```
    pub async fn change<T, E, F>(&self, outbox: &OutboxContext, mut work: F) -> Result<T, E>
    where
        F: for<'c> FnMut(&'c Tx) -> TxFuture<'c, Recorded<T>, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Retryable + Send + 'static,
    {
        let outbox = outbox.clone();
        self.transaction(move |tx| {
            let (work, outbox) = (work(tx), outbox.clone());
            Box::pin(async move {
                let Recorded { value, events, answer, upkeep, room } = work.await?;
                if events.is_empty() && !upkeep {
                    return Ok(Ended::Undo(value, answer));
                }
                if let Some(answer) = &answer {
                    crate::idempotency::keep(tx, answer).await?;
                }
                // Last, because on PostgreSQL other transactions wait from here on.
                for event in &events {
                    outbox::append(tx, event, &outbox, room).await?;
                }
                Ok(Ended::Keep(value))
            })
        })
        .await
    }

    /// Writes what no caller sees as a change of data: the service's own bookkeeping, such as leases, log lines,
    /// sweeps of what is old. `what` says what it is, in a few words. Everything else about it is as in
    /// [`Store::change`].
    pub async fn upkeep<T, E, F>(&self, what: &'static str, mut work: F) -> Result<T, E>
    where
        F: for<'c> FnMut(&'c Tx) -> TxFuture<'c, T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Retryable + Send + 'static,
    {
        let result = self.transaction(move |tx| {
            let work = work(tx);
            Box::pin(async move { work.await.map(Ended::Keep) })
        });
        let result = result.await;
        if result.is_err() {
            tracing::debug!(what, store = self.name(), "upkeep failed");
        }
        result
    }
}
