//! One transaction, from the side of whoever carries it out: what it does is hidden behind a trait, so that the
//! transactions of many callers can stand in one queue.

use crate::StoreError;
use crate::error::plain;
use crate::idempotency::Kept;
use crate::tx::{Tx, TxFuture};
use futures::future::BoxFuture;
use sea_orm::DbErr;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use tokio::sync::oneshot;
use tracing::Instrument as _;

/// How a closure that succeeded wants its transaction to end.
pub(crate) enum Ended<T> {
    /// Committed.
    Keep(T),
    /// Undone, since there is nothing to keep but, perhaps, the answer to a request id.
    Undo(T, Option<Kept>),
}

/// The same without the value.
pub(crate) enum End {
    Keep,
    Undo(Option<Kept>),
    Failed,
}

/// Why the group of a member was undone.
#[derive(Debug, Clone)]
pub(crate) enum Undone {
    /// Another member is at fault.
    Group,
    /// The database failed; nothing was written.
    Database(DbErr),
    /// A statement of the member itself failed in a way that undid all.
    Own(DbErr),
    /// Somebody else holds the file.
    Busy,
    /// The member took too long.
    TookTooLong { limit_ms: u64 },
    /// The database failed, and whether it committed is not known.
    Unknown(DbErr),
}

impl Undone {
    fn error(self) -> StoreError {
        match self {
            Undone::Group => StoreError::GroupUndone,
            Undone::Database(error) | Undone::Own(error) => StoreError::Database(error),
            Undone::Busy => StoreError::Busy,
            Undone::TookTooLong { limit_ms } => StoreError::TookTooLong { limit_ms },
            Undone::Unknown(error) => StoreError::OutcomeUnknown(error),
        }
    }

    /// In words for an operator.
    pub(crate) fn plain(&self) -> String {
        match self {
            Undone::Group => "a transaction failed".to_owned(),
            Undone::TookTooLong { limit_ms } => format!("a transaction took longer than {limit_ms} ms"),
            Undone::Busy => "another program holds the database".to_owned(),
            Undone::Database(error) | Undone::Own(error) | Undone::Unknown(error) => plain(error).to_owned(),
        }
    }
}

/// What a caller hears.
pub(crate) enum Answer<F, T, E> {
    /// The closure, to be run again if need be, and what came of it.
    Ended(F, Result<T, E>),
    /// The closure panicked.
    Panicked(Box<dyn Any + Send>),
}

/// A transaction in the queue.
pub(crate) trait Job: Send {
    /// Whether its caller still waits.
    fn waits(&self) -> bool;
    /// Takes it up, unless its caller has gone.
    fn begin(&self) -> bool;
    /// Runs the closure once.
    fn run<'a>(&'a mut self, tx: &'a Tx) -> BoxFuture<'a, End>;
    /// Fails what had succeeded until then.
    fn fail(&mut self, error: StoreError);
    /// Keeps what the closure panicked with, for its caller.
    fn panicked(&mut self, with: Box<dyn Any + Send>);
    /// Tells the caller.
    fn settle(self: Box<Self>, outcome: Result<(), Undone>);
}

const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const GONE: u8 = 2;

/// Decides between a caller that gives up and a writer that begins, for one of the two.
#[derive(Debug, Clone, Default)]
pub(crate) struct Claim(Arc<AtomicU8>);

impl Claim {
    fn take(&self, what: u8) -> bool {
        self.0.compare_exchange(WAITING, what, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// True when the transaction may be begun: its caller still waits, and can no longer go unheard.
    pub(crate) fn begin(&self) -> bool {
        self.take(BEGUN)
    }

    /// True when the transaction will not be begun.
    pub(crate) fn give_up(&self) -> bool {
        self.take(GONE)
    }
}

/// Gives up when the caller is dropped.
pub(crate) struct GiveUp(pub(crate) Claim);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

/// The one kind of [`Job`].
pub(crate) struct Member<F, T, E> {
    work: F,
    result: Option<Result<T, E>>,
    panic: Option<Box<dyn Any + Send>>,
    claim: Claim,
    answer: oneshot::Sender<Answer<F, T, E>>,
    span: tracing::Span,
}

impl<F, T, E> Member<F, T, E> {
    /// With the way to hear of its end.
    pub(crate) fn new(work: F) -> (Self, Claim, oneshot::Receiver<Answer<F, T, E>>) {
        let (answer, answered) = oneshot::channel();
        let claim = Claim::default();
        let span = tracing::Span::current();
        (Self { work, result: None, panic: None, claim: claim.clone(), answer, span }, claim, answered)
    }
}

impl<F, T, E> Job for Member<F, T, E>
where
    F: for<'c> FnMut(&'c Tx) -> TxFuture<'c, Ended<T>, E> + Send,
    T: Send,
    E: From<StoreError> + Send,
{
    fn waits(&self) -> bool {
        self.claim.0.load(Ordering::SeqCst) == WAITING
    }

    fn begin(&self) -> bool {
        self.claim.begin()
    }

    fn run<'a>(&'a mut self, tx: &'a Tx) -> BoxFuture<'a, End> {
        let span = self.span.clone();
        let run = async move {
            let (result, end) = match (self.work)(tx).await {
                Ok(Ended::Keep(value)) => (Ok(value), End::Keep),
                Ok(Ended::Undo(value, kept)) => (Ok(value), End::Undo(kept)),
                Err(error) => (Err(error), End::Failed),
            };
            self.result = Some(result);
            end
        };
        Box::pin(run.instrument(span))
    }

    fn fail(&mut self, error: StoreError) {
        self.result = Some(Err(error.into()));
    }

    fn panicked(&mut self, with: Box<dyn Any + Send>) {
        self.panic = Some(with);
    }

    fn settle(self: Box<Self>, outcome: Result<(), Undone>) {
        let Self { work, result, panic, answer, .. } = *self;
        let answered = match (panic, outcome, result) {
            (Some(with), _, _) => Answer::Panicked(with),
            (None, Ok(()), Some(result)) => Answer::Ended(work, result),
            // What the closure says of a failure is more than what the database says.
            (None, Err(Undone::Own(_)), Some(Err(error))) => Answer::Ended(work, Err(error)),
            (None, Ok(()), None) => Answer::Ended(work, Err(Undone::Group.error().into())),
            (None, Err(undone), _) => Answer::Ended(work, Err(undone.error().into())),
        };
        // The caller may have gone.
        let _ = answer.send(answered);
    }
}
