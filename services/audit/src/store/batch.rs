//! The one transaction that writes what producers hand over, all or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use pavior_store::Tx;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{ColumnTrait as _, EntityTrait, QueryFilter as _, QuerySelect as _};

use super::append::LogAppend;
use super::entity::{head, held_log as held, parked_event, record};
use super::head::{HEAD_IS_GONE, has_remains, lock_heads, write_empty_head};
use super::held_log::{self, NOT_HELD};
use super::insert::CHUNKS;
use super::parked_event::{Limits, park};
use super::producer::{lock_producers, of_producer, write_producers};
use super::{AuditStore, tile};
use crate::domain::batch::{Ack, Batch, Entry, Identity, Producer, SequenceConflict, Stored};
use crate::domain::checkpoint::CheckpointSigner;
use crate::domain::observed_logs::ObservedLogs;
use crate::domain::tree::Edge;
use crate::domain::{codec, hash};
use crate::error::{Error, Rollback};

/// What a committed transaction did.
#[derive(Debug)]
pub(crate) struct AppendedBatch {
    /// One for each submission.
    pub(crate) answers: Vec<Result<Ack, SequenceConflict>>,
    /// The edges after it.
    pub(crate) edges: Vec<(String, Arc<Edge>)>,
    /// How many records were written.
    pub(crate) records: usize,
    /// How many events were parked.
    pub(crate) parked: usize,
}

impl AuditStore {
    /// Appends what of the batch follows its producers' last numbers; parks it where the log is held. The caller has
    /// checked that each producer may write to each log: events of one producer go to many organizations, so there is
    /// no one permit.
    pub(crate) async fn append_batch_unscoped(
        &self,
        batch: &Arc<Batch>,
        observed: &Arc<ObservedLogs>,
        signer: &Arc<dyn CheckpointSigner>,
        limits: Limits,
    ) -> Result<AppendedBatch, Error> {
        let arguments = (batch.clone(), observed.clone(), signer.clone(), limits);
        let appended = self.write(arguments, |tx, (batch, observed, signer, limits)| {
            Box::pin(append(tx, batch, observed, signer.as_ref(), *limits))
        });
        appended.await
    }
}

async fn append(
    tx: &Tx,
    batch: &Batch,
    observed: &ObservedLogs,
    signer: &dyn CheckpointSigner,
    limits: Limits,
) -> Result<AppendedBatch, Error> {
    // Always heads before what is held, that before producers, and each in order, so that replicas do not lock each
    // other out. Who holds a log locks its head first: none that was not held here is held before the end.
    let Locked { heads, mut held } = lock_logs(tx, batch, observed, signer).await?;
    let mut last = lock_producers(tx, batch).await?;
    let before = last.clone();
    let stored = stored(tx, batch, &last).await?;
    let identity = |entry: &Entry| {
        let content = Some(codec::content_digest(&entry.log, &entry.body)?);
        Ok::<_, Error>(Identity { event_id: entry.event.event_id.to_string(), content })
    };
    let (taken, answers) = batch.take(&mut last, &stored, identity)?;
    let mut append = LogAppend::default();
    let mut parked = 0;
    for (log, entries) in &taken {
        if let Some(held) = held.get_mut(*log) {
            park(tx, held, entries, limits).await?;
            held_log::update(tx, held).await?;
            parked += entries.len();
            continue;
        }
        let head = heads.get(*log).ok_or_else(|| Error::inconsistent(log, HEAD_IS_GONE))?;
        append.add(log, current_edge(tx, head, observed).await?, entries)?;
    }
    // A log that was just made is signed even when nothing was taken for it: no head is without a checkpoint.
    let untouched = |log: &&String| !taken.contains_key(log.as_str()) && !held.contains_key(*log);
    for log in heads.values().filter(|head| head.tree_size == 0).map(|head| &head.log).filter(untouched) {
        append.begin(log);
    }
    let appended = append.write(tx, signer).await?;
    let advanced: Vec<_> = last.into_iter().filter(|(p, seq)| before.get(p) != Some(seq)).collect();
    write_producers(tx, &advanced).await?;
    Ok(AppendedBatch { answers, edges: appended.edges, records: appended.records, parked })
}

/// The logs of a batch, locked.
struct Locked {
    heads: BTreeMap<String, head::Model>,
    held: BTreeMap<String, held::Model>,
}

/// Locks the logs of the batch, making those that do not exist.
async fn lock_logs(
    tx: &Tx,
    batch: &Batch,
    observed: &ObservedLogs,
    signer: &dyn CheckpointSigner,
) -> Result<Locked, Error> {
    let logs = batch.logs();
    let mut heads = lock_heads(tx, logs.iter().copied()).await?;
    let held = held_log::lock(tx, &logs).await?;
    let missing = |heads: &BTreeMap<String, head::Model>| -> Vec<&str> {
        let is_missing = |log: &&str| !heads.contains_key(*log) && !held.contains_key(*log);
        logs.iter().copied().filter(is_missing).collect()
    };
    let absent = missing(&heads);
    if !absent.is_empty() {
        // Those that were released between the two.
        heads.extend(lock_heads(tx, absent.into_iter()).await?);
        let absent = missing(&heads);
        for log in &absent {
            begin(tx, log, observed, signer).await?;
        }
        heads.extend(lock_heads(tx, absent.into_iter()).await?);
    }
    let free = logs.iter().copied().filter(|log| !held.contains_key(*log));
    match held_log::first_not_held(tx, free).await? {
        Some(log) => Err(Error::inconsistent(&log, NOT_HELD)),
        None => Ok(Locked { heads, held }),
    }
}

/// Makes the head of a log that there never was. One that was removed is not made anew.
async fn begin(
    tx: &Tx,
    log: &str,
    observed: &ObservedLogs,
    signer: &dyn CheckpointSigner,
) -> Result<(), Error> {
    // First: a replica that begins the same log at this moment is waited for, and then it is there with all that it has.
    if !write_empty_head(tx, log, signer).await? {
        return Ok(());
    }
    if has_remains(tx, log).await? {
        return Err(Error::inconsistent(log, HEAD_IS_GONE));
    }
    if let Some(head) = observed.head(log).filter(|head| head.size > 0) {
        return Err(Rollback { log: log.to_owned(), has: 0, signed: head.size, forked: false }.into());
    }
    Ok(())
}

/// What there is under the numbers that are offered again, as a record or parked.
async fn stored<'a>(tx: &Tx, batch: &'a Batch, last: &BTreeMap<&Producer, i64>) -> Result<Stored<'a>, Error> {
    let mut stored = Stored::new();
    for (producer, seqs) in batch.repeats(last) {
        let seqs: Vec<i64> = seqs.into_iter().collect();
        for part in seqs.chunks(CHUNKS[0]) {
            let mut rows = numbered::<record::Entity>(tx, producer, part).await?;
            // Last, so that what was acknowledged of a number counts, and not what came there from elsewhere.
            rows.extend(numbered::<parked_event::Entity>(tx, producer, part).await?);
            for (seq, log, event_id, leaf, body) in rows {
                // Bytes that were damaged tell nothing of the event: its id is left to compare.
                let whole = hash::leaf(&body)[..] == leaf;
                let content = if whole { codec::content_digest(&log, &body).ok() } else { None };
                stored.insert((producer, seq), Identity { event_id, content });
            }
        }
    }
    Ok(stored)
}

/// Number, log, event id, leaf hash and bytes.
type Numbered = (i64, String, String, Vec<u8>, Vec<u8>);

/// What there is under numbers of a producer.
async fn numbered<E: EntityTrait>(
    tx: &Tx,
    producer: &Producer,
    seqs: &[i64],
) -> Result<Vec<Numbered>, Error> {
    let select = ["seq", "log", "event_id", "leaf_hash", "body"]
        .into_iter()
        .fold(of_producer::<E>(producer), |select, column| select.expr(Expr::col(column)));
    Ok(select.filter(Expr::col("seq").is_in(seqs.iter().copied())).into_tuple().all(tx).await?)
}

/// The edge of a locked log: the remembered one when nobody has appended since, otherwise from its tiles, which must go on
/// from the state that is remembered.
async fn current_edge(tx: &Tx, head: &head::Model, observed: &ObservedLogs) -> Result<Edge, Error> {
    if let Some(edge) = observed.edge(&head.log)
        && u64::try_from(head.tree_size) == Ok(edge.size())
        && edge.root()[..] == head.root_hash
    {
        return Ok(edge.clone());
    }
    let edge = tile::edge_of(tx, head).await?;
    let beyond = record::Entity::find()
        .select_only()
        .column(record::Column::Idx)
        .filter(record::Column::Log.eq(head.log.as_str()))
        .filter(record::Column::Idx.gte(head.tree_size))
        .into_tuple::<i64>()
        .one(tx)
        .await?;
    if beyond.is_some() {
        return Err(Error::inconsistent(&head.log, "its records do not end where its head says"));
    }
    if let Some(from) = observed.head(&head.log)
        && let Some(rollback) = tile::rollback(tx, &head.log, from, &edge.head()).await?
    {
        return Err(rollback.into());
    }
    Ok(edge)
}
