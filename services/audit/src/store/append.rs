//! The one transaction that writes what producers hand over, all or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use pavior_store::{Tx, TxFuture};
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, Condition, ConnectionTrait, EntityTrait, IntoActiveModel as _,
    QueryFilter as _, QueryOrder as _, QuerySelect as _, QueryTrait as _,
};

use super::check::{Objection, Unchecked, wrong};
use super::entity::{checkpoint, head, held, parked, producer, record, tile};
use super::growth::{CHUNKS, Growth, insert};
use super::{AuditStore, parking, tiles};
use crate::domain::batch::{Ack, Batch, Entry, Identity, Producer, Refusal, Stored};
use crate::domain::hash::{self, Hash};
use crate::domain::known::KnownLogs;
use crate::domain::record::Signed;
use crate::domain::tree::Edge;
use crate::error::{Error, SetBack};

/// Signs states of logs. Called inside the transaction.
pub(crate) trait Sign: Send + Sync {
    /// The name of a log.
    fn origin(&self, log: &str) -> String;
    /// The signed note of a log's state. `time` is that of the last record (microseconds since 1970): the note does
    /// not hold a time, so the one beside it must be found in the log to be believed.
    fn sign(&self, log: &str, size: u64, root: &Hash, time: i64) -> Signed;
    /// Whether a key of this installation signed the note, which says exactly this.
    fn has_signed(&self, log: &str, size: u64, root: &Hash, note: &str) -> bool;
    /// What is wrong with the name or the last checkpoint of a log, if anything is.
    fn objection(&self, found: &Unchecked) -> Option<Objection>;
}

/// Tells from a log's name and a record's bytes what the event says.
pub(crate) type ContentOf = fn(&str, &[u8]) -> Result<Hash, Error>;

/// What is wrong with a log that has records and no head.
pub(super) const HEAD_IS_GONE: &str = "its head is gone";

/// What a committed transaction did.
#[derive(Debug)]
pub(crate) struct Appended {
    /// One for each submission.
    pub(crate) answers: Vec<Result<Ack, Refusal>>,
    /// The edges after it.
    pub(crate) edges: Vec<(String, Arc<Edge>)>,
    /// How many records were written.
    pub(crate) records: usize,
    /// How many events were parked.
    pub(crate) parked: usize,
}

impl AuditStore {
    /// The one way in which logs, and what is parked for them, change.
    pub(super) async fn write<T, F>(&self, work: F) -> Result<T, Error>
    where
        F: for<'c> FnMut(&'c Tx) -> TxFuture<'c, T, Error> + Send + 'static,
        T: Send + 'static,
    {
        self.store.upkeep("the log itself: records, tiles, heads", work).await
    }

    /// Appends what of the batch follows its producers' last numbers; parks it where the log is held. The caller has
    /// checked that each producer may write to each log: events of one producer go to many organizations, so there is
    /// no one permit.
    pub(crate) async fn append_unscoped(
        &self,
        batch: &Arc<Batch>,
        known: &Arc<KnownLogs>,
        signer: &Arc<dyn Sign>,
        content: ContentOf,
        limits: parking::Limits,
    ) -> Result<Appended, Error> {
        let (batch, known, signer) = (batch.clone(), known.clone(), signer.clone());
        self.write(move |tx| {
            let (batch, known, signer) = (batch.clone(), known.clone(), signer.clone());
            Box::pin(async move { append(tx, &batch, &known, signer.as_ref(), content, limits).await })
        })
        .await
    }
}

async fn append(
    tx: &Tx,
    batch: &Batch,
    known: &KnownLogs,
    signer: &dyn Sign,
    content: ContentOf,
    limits: parking::Limits,
) -> Result<Appended, Error> {
    // Always heads before what is held, that before producers, and each in order, so that replicas do not lock each
    // other out. Who holds a log locks its head first: none that was not held here is held before the end.
    let Locked { heads, mut held } = lock_logs(tx, batch, known, signer).await?;
    let mut last = lock_producers(tx, batch).await?;
    let before = last.clone();
    let stored = stored(tx, batch, &last, content).await?;
    let identity = |entry: &Entry| {
        let content = Some(content(&entry.log, &entry.body)?);
        Ok::<_, Error>(Identity { event_id: entry.index_fields.event_id.clone(), content })
    };
    let (taken, answers) = batch.take(&mut last, &stored, identity)?;
    let mut growth = Growth::default();
    let mut parked = 0;
    for (log, entries) in &taken {
        if let Some(held) = held.get_mut(*log) {
            parking::park(tx, held, entries, limits).await?;
            parked += entries.len();
            continue;
        }
        let head = heads.get(*log).ok_or_else(|| wrong(log, HEAD_IS_GONE))?;
        growth.add(log, current_edge(tx, head, known).await?, entries)?;
    }
    // A log that was just made is signed even when nothing was taken for it: no head is without a checkpoint.
    let untouched = |log: &&String| !taken.contains_key(log.as_str()) && !held.contains_key(*log);
    for log in heads.values().filter(|head| head.tree_size == 0).map(|head| &head.log).filter(untouched) {
        growth.begin(log);
    }
    let grown = growth.write(tx, signer).await?;
    let advanced: Vec<_> = last.into_iter().filter(|(p, seq)| before.get(p) != Some(seq)).collect();
    write_producers(tx, &advanced).await?;
    Ok(Appended { answers, edges: grown.edges, records: grown.records, parked })
}

/// The logs of a batch, locked.
struct Locked {
    heads: BTreeMap<String, head::Model>,
    held: BTreeMap<String, held::Model>,
}

/// Locks the logs of the batch, making those that do not exist.
async fn lock_logs(tx: &Tx, batch: &Batch, known: &KnownLogs, signer: &dyn Sign) -> Result<Locked, Error> {
    let logs = batch.logs();
    let mut heads = select_heads(tx, logs.iter().copied()).await?;
    let held = parking::lock(tx, &logs).await?;
    let missing = |heads: &BTreeMap<String, head::Model>| -> Vec<&str> {
        let is_missing = |log: &&str| !heads.contains_key(*log) && !held.contains_key(*log);
        logs.iter().copied().filter(is_missing).collect()
    };
    let absent = missing(&heads);
    if !absent.is_empty() {
        // Those that were let go between the two.
        heads.extend(select_heads(tx, absent.into_iter()).await?);
        let absent = missing(&heads);
        for log in &absent {
            begin(tx, log, known, signer).await?;
        }
        heads.extend(select_heads(tx, absent.into_iter()).await?);
    }
    let free = logs.iter().copied().filter(|log| !held.contains_key(*log));
    match parking::left_over(tx, free).await? {
        Some(log) => Err(wrong(&log, parking::NOT_HELD)),
        None => Ok(Locked { heads, held }),
    }
}

/// Makes the head of a log that there never was. One that was removed is not made anew.
async fn begin(tx: &Tx, log: &str, known: &KnownLogs, signer: &dyn Sign) -> Result<(), Error> {
    // First: a replica that begins the same log at this moment is waited for, and then it is there with all that it has.
    if !write_empty_head(tx, log, signer).await? {
        return Ok(());
    }
    if has_remains(tx, log).await? {
        return Err(wrong(log, HEAD_IS_GONE));
    }
    if let Some(mark) = known.mark(log).filter(|mark| mark.size > 0) {
        let signed = mark.size;
        return Err(Error::SetBack(vec![SetBack { log: log.to_owned(), has: 0, signed, forked: false }]));
    }
    Ok(())
}

/// The head of a log without records; false when another made it.
pub(super) async fn write_empty_head(tx: &Tx, log: &str, signer: &dyn Sign) -> Result<bool, Error> {
    let root_hash = hash::empty().to_vec();
    let row = head::Model { log: log.to_owned(), origin: signer.origin(log), tree_size: 0, root_hash };
    let keep = OnConflict::column(head::Column::Log).do_nothing().to_owned();
    let insert = head::Entity::insert(row.into_active_model().reset_all()).on_conflict(keep);
    Ok(insert.exec_without_returning(tx).await? > 0)
}

/// Whether there is anything of a log beside its head.
pub(super) async fn has_remains(db: &impl ConnectionTrait, log: &str) -> Result<bool, Error> {
    let records =
        record::Entity::find().select_only().column(record::Column::Log).filter(record::Column::Log.eq(log));
    let tiles =
        tile::Entity::find().select_only().column(tile::Column::Log).filter(tile::Column::Log.eq(log));
    let checkpoint =
        checkpoint::Entity::find_by_id(log.to_owned()).select_only().column(checkpoint::Column::Log);
    Ok(records.into_tuple::<String>().one(db).await?.is_some()
        || tiles.into_tuple::<String>().one(db).await?.is_some()
        || checkpoint.into_tuple::<String>().one(db).await?.is_some())
}

/// Locks the heads of logs that are not held: those of damaged ones may not even be readable.
async fn select_heads(
    tx: &Tx,
    logs: impl Iterator<Item = &str>,
) -> Result<BTreeMap<String, head::Model>, Error> {
    let held = held::Entity::find().select_only().column(held::Column::Log).into_query();
    let select = head::Entity::find()
        .filter(head::Column::Log.is_in(logs))
        .filter(head::Column::Log.not_in_subquery(held))
        .order_by_asc(head::Column::Log);
    Ok(select.lock_exclusive().all(tx).await?.into_iter().map(|head| (head.log.clone(), head)).collect())
}

/// Locks the producers of the batch, making those that do not exist; returns their last numbers.
async fn lock_producers<'a>(tx: &Tx, batch: &'a Batch) -> Result<BTreeMap<&'a Producer, i64>, Error> {
    let producers = batch.producers();
    let mut found = select_producers(tx, producers.iter().copied()).await?;
    let missing: Vec<&Producer> = producers.into_iter().filter(|p| !found.contains_key(p)).collect();
    if missing.is_empty() {
        return Ok(found);
    }
    let rows = missing.iter().map(|p| producer_row(p, 0));
    let keep =
        OnConflict::columns([producer::Column::Service, producer::Column::Epoch]).do_nothing().to_owned();
    insert(tx, rows.collect(), Some(keep)).await?;
    found.extend(select_producers(tx, missing.into_iter()).await?);
    Ok(found)
}

async fn select_producers<'a>(
    tx: &Tx,
    producers: impl Iterator<Item = &'a Producer>,
) -> Result<BTreeMap<&'a Producer, i64>, Error> {
    let wanted: Vec<&Producer> = producers.collect();
    let mut found = BTreeMap::new();
    // In parts: SQLite takes expressions no deeper than 1,000.
    for part in wanted.chunks(200) {
        let any = part.iter().fold(Condition::any(), |any, producer| {
            any.add(
                Condition::all()
                    .add(producer::Column::Service.eq(producer.service.as_str()))
                    .add(producer::Column::Epoch.eq(producer.epoch.as_str())),
            )
        });
        let select = producer::Entity::find()
            .filter(any)
            .order_by_asc(producer::Column::Service)
            .order_by_asc(producer::Column::Epoch);
        for row in select.lock_exclusive().all(tx).await? {
            let is_row = |p: &&&Producer| p.service == row.service && p.epoch == row.epoch;
            found.extend(part.iter().find(is_row).map(|producer| (*producer, row.last_seq)));
        }
    }
    Ok(found)
}

/// What there is under the numbers that are offered again, as a record or parked.
async fn stored<'a>(
    tx: &Tx,
    batch: &'a Batch,
    last: &BTreeMap<&Producer, i64>,
    content: ContentOf,
) -> Result<Stored<'a>, Error> {
    type Row = (i64, String, String, Vec<u8>, Vec<u8>);
    let mut stored = Stored::new();
    for (producer, seqs) in batch.repeats(last) {
        let seqs: Vec<i64> = seqs.into_iter().collect();
        for part in seqs.chunks(CHUNKS[0]) {
            use record::Column::{Body, Epoch, EventId, LeafHash, Log, Seq, Service};
            let records = record::Entity::find()
                .select_only()
                .columns([Seq, Log, EventId, LeafHash, Body])
                .filter(Service.eq(producer.service.as_str()))
                .filter(Epoch.eq(producer.epoch.as_str()))
                .filter(Seq.is_in(part.iter().copied()));
            let mut rows: Vec<Row> = records.into_tuple().all(tx).await?;
            // Last, so that what was acknowledged of a number counts, and not what came there from elsewhere.
            {
                use parked::Column::{Body, Epoch, EventId, LeafHash, Log, Seq, Service};
                let waiting = parked::Entity::find()
                    .select_only()
                    .columns([Seq, Log, EventId, LeafHash, Body])
                    .filter(Service.eq(producer.service.as_str()))
                    .filter(Epoch.eq(producer.epoch.as_str()))
                    .filter(Seq.is_in(part.iter().copied()));
                rows.extend(waiting.into_tuple::<Row>().all(tx).await?);
            }
            for (seq, log, event_id, leaf, body) in rows {
                // Bytes that were damaged tell nothing of the event: its id is left to compare.
                let whole = hash::leaf(&body)[..] == leaf;
                let content = if whole { content(&log, &body).ok() } else { None };
                stored.insert((producer, seq), Identity { event_id, content });
            }
        }
    }
    Ok(stored)
}

/// The edge of a locked log: the remembered one when nobody has appended since, otherwise from its tiles, which must go on
/// from the state that is remembered.
async fn current_edge(tx: &Tx, head: &head::Model, known: &KnownLogs) -> Result<Edge, Error> {
    if let Some(edge) = known.edge(&head.log)
        && u64::try_from(head.tree_size) == Ok(edge.size())
        && edge.root()[..] == head.root_hash
    {
        return Ok(edge.clone());
    }
    let edge = tiles::edge_of(tx, head).await?;
    let beyond = record::Entity::find()
        .select_only()
        .column(record::Column::Idx)
        .filter(record::Column::Log.eq(head.log.as_str()))
        .filter(record::Column::Idx.gte(head.tree_size))
        .into_tuple::<i64>()
        .one(tx)
        .await?;
    if beyond.is_some() {
        return Err(wrong(&head.log, "its records do not end where its head says"));
    }
    if let Some(mark) = known.mark(&head.log)
        && let Some(set_back) = tiles::set_back(tx, &head.log, mark, &edge.mark()).await?
    {
        return Err(Error::SetBack(vec![set_back]));
    }
    Ok(edge)
}

fn producer_row(producer: &Producer, last_seq: i64) -> producer::Model {
    producer::Model { service: producer.service.clone(), epoch: producer.epoch.clone(), last_seq }
}

pub(super) async fn write_producers(tx: &Tx, advanced: &[(&Producer, i64)]) -> Result<(), Error> {
    let rows = advanced.iter().map(|(producer, last)| producer_row(producer, *last)).collect();
    let update = OnConflict::columns([producer::Column::Service, producer::Column::Epoch])
        .update_columns([producer::Column::LastSeq])
        .to_owned();
    insert(tx, rows, Some(update)).await
}
