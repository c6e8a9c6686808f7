//! Group commit for SQLite.
//!
//! There is one writer, and a durable commit costs a sync of the disk. So transactions that wait for the writer at
//! the same time share one: each runs in a savepoint of one outer transaction, whoever sees nobody waiting behind it
//! commits for all, and nobody hears of success before that commit. Every caller runs its own closure, so closures
//! need not be `'static` and no writer task exists.

use crate::store::TxFuture;
use crate::{ErrorKind, StoreError};
use sea_orm::{
    DatabaseConnection, DatabaseTransaction, DbErr, SqliteTransactionMode, TransactionOptions,
    TransactionTrait as _,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, watch};

/// Most transactions in one commit.
const MAX_MEMBERS: usize = 256;

type Done = Option<Result<(), DbErr>>;

struct Batch {
    tx: DatabaseTransaction,
    members: usize,
    done: watch::Sender<Done>,
}

/// The queue before the one writer.
pub(crate) struct Group {
    connection: DatabaseConnection,
    acquire_timeout: Duration,
    open: Mutex<Option<Batch>>,
    waiting: AtomicUsize,
}

impl Group {
    pub(crate) fn new(connection: DatabaseConnection, acquire_timeout: Duration) -> Arc<Self> {
        Arc::new(Self { connection, acquire_timeout, open: Mutex::new(None), waiting: AtomicUsize::new(0) })
    }

    /// Runs `work` once and returns when its effects are durable, or undone.
    pub(crate) async fn run<T, E, F>(self: &Arc<Self>, work: &mut F) -> Result<T, E>
    where
        F: for<'c> FnMut(&'c DatabaseTransaction) -> TxFuture<'c, T, E> + Send,
        T: Send,
        E: From<StoreError> + Send,
    {
        let mut turn = Turn::enter(self);
        let Ok(mut open) = tokio::time::timeout(self.acquire_timeout, self.open.lock()).await else {
            return Err(StoreError::Busy.into());
        };
        turn.begin();
        let batch = match open.take() {
            Some(batch) => batch,
            None => self.begin().await?,
        };
        // Back into its place before the closure runs: if this future is dropped midway, only the savepoint goes.
        let batch = open.insert(batch);
        batch.members += 1;
        let mut done = batch.done.subscribe();
        let result = match member(batch, work).await {
            Ok(result) => result,
            Err(error) => {
                // The savepoint is in an unknown state, so the whole group is: undo it.
                if let Some(batch) = open.take() {
                    batch.done.send_replace(Some(Err(DbErr::Custom(UNDONE.to_owned()))));
                    let _ = batch.tx.rollback().await;
                }
                return Err(error.into());
            }
        };
        if self.waiting.load(Ordering::SeqCst) == 0 || open.as_ref().is_some_and(|b| b.members >= MAX_MEMBERS)
        {
            commit(&mut open).await;
        }
        drop(open);
        turn.end();
        // An error, too, waits: it may rest on what an earlier member of the group wrote.
        match done.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Ok(()))) => result,
            Ok(Some(Err(DbErr::Custom(text)))) if text == UNDONE => Err(StoreError::GroupUndone.into()),
            Ok(Some(Err(error))) => Err(StoreError::Database(error.clone()).into()),
            Ok(None) | Err(_) => Err(StoreError::GroupUndone.into()),
        }
    }

    async fn begin(&self) -> Result<Batch, StoreError> {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..Default::default()
        };
        let tx = self.connection.begin_with_options(options).await?;
        Ok(Batch { tx, members: 0, done: watch::Sender::new(None) })
    }

    /// Commits what is open unless somebody will come who does.
    async fn flush(&self) {
        let mut open = self.open.lock().await;
        if self.waiting.load(Ordering::SeqCst) == 0 {
            commit(&mut open).await;
        }
    }
}

const UNDONE: &str = "group undone";

/// The inner result is the caller's; the outer error says that the savepoint itself failed.
async fn member<T, E, F>(batch: &Batch, work: &mut F) -> Result<Result<T, E>, StoreError>
where
    F: for<'c> FnMut(&'c DatabaseTransaction) -> TxFuture<'c, T, E> + Send,
    T: Send,
    E: From<StoreError> + Send,
{
    let savepoint = batch.tx.begin().await?;
    let result = work(&savepoint).await;
    match &result {
        Ok(_) => savepoint.commit().await?,
        Err(_) => savepoint.rollback().await?,
    }
    Ok(result)
}

async fn commit(open: &mut Option<Batch>) {
    let Some(batch) = open.take() else { return };
    let result = batch.tx.commit().await;
    if let Err(error) = &result {
        let error = StoreError::Database(error.clone());
        tracing::warn!(
            members = batch.members,
            unavailable = error.kind() == ErrorKind::Unavailable,
            "group commit failed"
        );
    }
    batch.done.send_replace(Some(result));
}

/// Counts who waits, and makes sure that a group is committed even if the one who should do it is dropped.
struct Turn<'a> {
    group: &'a Arc<Group>,
    state: TurnState,
}

#[derive(PartialEq)]
enum TurnState {
    Waiting,
    Running,
    Ended,
}

impl<'a> Turn<'a> {
    fn enter(group: &'a Arc<Group>) -> Self {
        group.waiting.fetch_add(1, Ordering::SeqCst);
        Self { group, state: TurnState::Waiting }
    }

    fn begin(&mut self) {
        self.group.waiting.fetch_sub(1, Ordering::SeqCst);
        self.state = TurnState::Running;
    }

    fn end(mut self) {
        self.state = TurnState::Ended;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.state == TurnState::Waiting {
            self.group.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        if self.state != TurnState::Ended
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let group = Arc::clone(self.group);
            runtime.spawn(async move { group.flush().await });
        }
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}
