//! The one writer of an SQLite file, with group commit.
//!
//! There is one writer, and a durable commit costs a sync of the disk. So transactions that wait at the same time
//! share one: each runs in a savepoint of one outer transaction, and nobody hears of success before its commit.
//!
//! The writer is a task that owns the connection and issues every BEGIN, SAVEPOINT and COMMIT itself. Callers put
//! their closure in a queue and wait for an answer, so a caller that gives up holds nothing: its transaction is
//! skipped if it was not begun, else it runs to its end. Whenever something other than a closure's own decision ends
//! a member (an error of BEGIN, SAVEPOINT, RELEASE or COMMIT, a full or failing disk, a panic, a transaction that
//! takes too long or was ended from within), the whole group is undone, the connection is thrown away and a new one
//! is opened.

use crate::health;
use crate::idempotency;
use crate::member::{Answer, Ended, GiveUp, Job, Member, Undone};
use crate::pulse::Pulse;
use crate::sqlite::Opener;
use crate::tx::{Committed, Tx, TxFuture};
use crate::{ErrorKind, StoreError, member::End};
use futures::FutureExt as _;
use sea_orm::{DatabaseConnection, DbErr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Most transactions in one commit.
const MAX_MEMBERS: usize = 256;
/// After this time a group takes no further member, so that who is in it hears soon, however many come.
const MAX_GROUP: Duration = Duration::from_millis(30);
/// Most transactions that wait; who comes later waits for a place.
const QUEUE: usize = 1_024;
/// Shortest and longest pause between two attempts to open the file.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How long a connection may take to close.
pub(crate) const CLOSE: Duration = Duration::from_secs(5);

/// The way to the writer.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Box<dyn Job>>,
    acquire_timeout: Duration,
    closing: CancellationToken,
    ended: CancellationToken,
}

/// What the writer keeps to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) acquire_timeout: Duration,
    pub(crate) transaction_timeout: Duration,
}

impl Writer {
    /// Starts the task with the connection that writes. `read` are the readers, which are closed before the writer is.
    pub(crate) async fn start(
        opener: Opener,
        tx: Tx,
        read: DatabaseConnection,
        limits: Limits,
        pulse: Arc<Pulse>,
        commits: watch::Sender<u64>,
    ) -> Result<Self, StoreError> {
        health::prepare(&tx).await?;
        let (sender, queue) = mpsc::channel(QUEUE);
        let (closing, ended) = (CancellationToken::new(), CancellationToken::new());
        let task = Task {
            queue,
            closing: closing.clone(),
            _ended: ended.clone().drop_guard(),
            opener,
            tx: Some(tx),
            pause: PAUSES.0,
            retry: Instant::now(),
            read,
            limit: limits.transaction_timeout,
            pulse,
            commits,
        };
        tokio::spawn(task.run());
        Ok(Self { queue: sender, acquire_timeout: limits.acquire_timeout, closing, ended })
    }

    /// Runs `work` once and returns when its effects are durable, or undone.
    pub(crate) async fn run<T, E, F>(&self, work: F) -> Result<(F, Result<T, E>), StoreError>
    where
        F: for<'c> FnMut(&'c Tx) -> TxFuture<'c, Ended<T>, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let until = Instant::now() + self.acquire_timeout;
        let (member, claim, mut answered) = Member::new(work);
        let _given_up = GiveUp(claim.clone());
        match timeout_at(until, self.queue.reserve()).await {
            Ok(Ok(place)) => place.send(Box::new(member)),
            Ok(Err(_)) => return Err(StoreError::Closed),
            Err(_) => return Err(StoreError::Busy),
        }
        let answer = match timeout_at(until, &mut answered).await {
            Ok(answer) => answer,
            Err(_) if claim.give_up() => return Err(StoreError::Busy),
            Err(_) => answered.await,
        };
        match answer {
            Ok(Answer::Ended(work, result)) => Ok((work, result)),
            Ok(Answer::Panicked(with)) => std::panic::resume_unwind(with),
            // The task is gone with its runtime.
            Err(_) if claim.give_up() => Err(StoreError::Closed),
            Err(_) => Err(StoreError::OutcomeUnknown(DbErr::Custom("the writer has ended".to_owned()))),
        }
    }

    /// Takes no more, commits what waits, and returns when the file is closed.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        self.ended.cancelled().await;
    }
}

struct Task {
    queue: mpsc::Receiver<Box<dyn Job>>,
    closing: CancellationToken,
    _ended: DropGuard,
    opener: Opener,
    /// None after a failure, until the file could be opened again.
    tx: Option<Tx>,
    pause: Duration,
    retry: Instant,
    read: DatabaseConnection,
    limit: Duration,
    pulse: Arc<Pulse>,
    commits: watch::Sender<u64>,
}

/// Why a group ends before its time. The member that it came from keeps its own cause.
enum Fault {
    Undone(Undone),
    Panicked(Box<dyn std::any::Any + Send>),
}

impl From<DbErr> for Fault {
    fn from(error: DbErr) -> Self {
        Fault::Undone(Undone::Own(error))
    }
}

impl Task {
    async fn run(mut self) {
        loop {
            let job = tokio::select! {
                biased;
                job = self.queue.recv() => job,
                () = self.closing.cancelled(), if !self.queue.is_closed() => {
                    self.queue.close();
                    continue;
                }
            };
            let Some(job) = job else { break };
            self.group(job).await;
        }
        self.finish().await;
    }

    /// Runs a transaction, those that come while it runs, and commits them together.
    async fn group(&mut self, first: Box<dyn Job>) {
        if !first.waits() {
            return;
        }
        self.pulse.busy();
        let begun = match self.connection().await {
            Ok(tx) => tx.begin_sqlite().await,
            Err(error) => Err(error),
        };
        match begun {
            Ok(()) => self.members(first).await,
            Err(error) => {
                let busy = StoreError::Database(error.clone()).kind() == ErrorKind::Serialization;
                let undone = if busy { Undone::Busy } else { Undone::Database(error) };
                self.pulse.failed(undone.clone());
                first.settle(Err(undone));
                if self.tx.is_some() {
                    self.replace().await;
                }
            }
        }
        self.pulse.idle();
    }

    /// Runs members until nobody waits or the group is full, and ends the transaction.
    async fn members(&mut self, first: Box<dyn Job>) {
        let end = Instant::now() + MAX_GROUP;
        let mut members: Vec<Box<dyn Job>> = Vec::new();
        let mut next = Some(first);
        while let Some(mut job) = next.take() {
            if job.begin() {
                let Some(tx) = &self.tx else { return };
                let done = member(tx, job.as_mut(), self.limit).await;
                members.push(job);
                if let Err(fault) = done {
                    return self.undo(members, fault).await;
                }
            }
            if members.len() < MAX_MEMBERS && Instant::now() < end {
                next = self.queue.try_recv().ok();
            }
        }
        self.commit(members).await;
    }

    async fn connection(&mut self) -> Result<&Tx, DbErr> {
        if self.tx.is_none() {
            self.open().await?;
        }
        self.tx.as_ref().ok_or_else(|| DbErr::Custom("the database file is not open".to_owned()))
    }

    /// Opens the file again, but not more often than the pause allows.
    async fn open(&mut self) -> Result<(), DbErr> {
        if Instant::now() < self.retry {
            return Err(self.pulse.trouble().unwrap_or_else(|| DbErr::Custom("not open".to_owned())));
        }
        match self.opener.open(false).await {
            Ok(tx) => {
                (self.tx, self.pause) = (Some(tx), PAUSES.0);
                Ok(())
            }
            Err(error) => {
                self.retry = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(PAUSES.1);
                tracing::error!(reason = crate::error::plain(&error), %error, "the database cannot be opened");
                self.pulse.failed(Undone::Database(error.clone()));
                Err(error)
            }
        }
    }

    async fn commit(&mut self, members: Vec<Box<dyn Job>>) {
        let Some(tx) = &self.tx else { return };
        let outcome = match tx.commit_sqlite().await {
            Committed::Yes => Ok(()),
            Committed::No(error) => Err(Undone::Database(error)),
            Committed::Unknown(error) => Err(Undone::Unknown(error)),
        };
        let outcome = match outcome {
            Ok(()) => {
                self.pulse.committed();
                self.commits.send_modify(|n| *n = n.wrapping_add(1));
                Ok(())
            }
            Err(undone) => Err(self.settle_commit(undone, members.len()).await),
        };
        for member in members {
            member.settle(outcome.clone());
        }
    }

    /// Makes sure of a commit that failed.
    ///
    /// What counts in the write-ahead log is what its index, in memory shared by all connections, says; a commit that
    /// failed is not in it. But after an I/O error the log may hold the whole commit, and a recovery, which reads the
    /// log after the last connection of a process that crashed, would find it. So the new connection is opened before
    /// the old one is closed (the index lives on), and writes something. That overwrites the log from where the failed
    /// commit began, and since each checksum continues the one before, nothing of it can be recovered. If not even
    /// that can be written, nobody can say what will be found after a crash.
    async fn settle_commit(&mut self, undone: Undone, members: usize) -> Undone {
        tracing::error!(reason = undone.plain(), members, "group commit failed");
        self.pulse.failed(undone.clone());
        self.replace().await;
        let Undone::Unknown(error) = undone else { return undone };
        match self.overwrite().await {
            true => Undone::Database(error),
            false => Undone::Unknown(error),
        }
    }

    async fn overwrite(&mut self) -> bool {
        let Some(tx) = &self.tx else { return false };
        let written = async {
            tx.begin_sqlite().await?;
            health::write(tx).await?;
            Ok::<_, DbErr>(tx.commit_sqlite().await)
        };
        if matches!(written.await, Ok(Committed::Yes)) {
            return true;
        }
        self.replace().await;
        false
    }

    /// Undoes a group that was not committed. Its members may hear of that at once: without the writer's own COMMIT
    /// nothing can have been kept.
    async fn undo(&mut self, mut members: Vec<Box<dyn Job>>, fault: Fault) {
        let count = members.len();
        if let Some(mut own) = members.pop() {
            match fault {
                Fault::Undone(undone) => {
                    tracing::error!(reason = undone.plain(), members = count, "group undone");
                    self.pulse.failed(undone.clone());
                    own.settle(Err(undone));
                }
                Fault::Panicked(with) => {
                    own.panicked(with);
                    own.settle(Err(Undone::Group));
                }
            }
        }
        for member in members {
            member.settle(Err(Undone::Group));
        }
        self.replace().await;
    }

    /// Throws the connection away and opens another. What runs on the old one is interrupted; closing undoes what it
    /// had begun.
    async fn replace(&mut self) {
        let old = self.tx.take();
        if let Some(old) = &old {
            old.stop();
        }
        // Failing is no matter here: the next transaction tries again.
        let _ = self.open().await;
        if let Some(old) = old
            && timeout(CLOSE, old.close()).await.is_err()
        {
            tracing::error!("a database connection does not close");
        }
    }

    /// Closes the file in order: a checkpoint empties the log, for which no reader may be left.
    async fn finish(mut self) {
        if timeout(CLOSE, self.read.close_by_ref()).await.is_err() {
            tracing::warn!("readers of the database are still at work");
        }
        let Some(tx) = self.tx.take() else { return };
        if let Err(error) = tx.control("PRAGMA wal_checkpoint(TRUNCATE)").await {
            tracing::warn!(%error, "the write-ahead log was not emptied");
        }
        match timeout(CLOSE, tx.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the database did not close"),
            Err(_) => tracing::warn!("the database did not close in time"),
        }
    }
}

async fn member(tx: &Tx, job: &mut dyn Job, limit: Duration) -> Result<(), Fault> {
    tx.control("SAVEPOINT member").await?;
    let end = run(tx, job, limit).await?;
    if let Some(error) = tx.broken() {
        return Err(error.into());
    }
    let kept = match end {
        End::Keep => return Ok(tx.control("RELEASE member").await?),
        End::Undo(kept) => kept,
        End::Failed => None,
    };
    tx.control("ROLLBACK TO member").await?;
    if let Some(kept) = kept
        && let Err(error) = idempotency::keep(tx, &kept).await
    {
        job.fail(error);
        if let Some(error) = tx.broken() {
            return Err(error.into());
        }
        tx.control("ROLLBACK TO member").await?;
    }
    Ok(tx.control("RELEASE member").await?)
}

async fn run(tx: &Tx, job: &mut dyn Job, limit: Duration) -> Result<End, Fault> {
    let work = AssertUnwindSafe(async { job.run(tx).await }).catch_unwind();
    match timeout(limit, work).await {
        Ok(Ok(end)) => Ok(end),
        Ok(Err(with)) => Err(Fault::Panicked(with)),
        Err(_) => {
            let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            Err(Fault::Undone(Undone::TookTooLong { limit_ms }))
        }
    }
}
