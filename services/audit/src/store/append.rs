//! The one transaction that writes to logs: records, tiles, heads, signed checkpoints and producers, all or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use pavior_store::{StoreError, Tx};
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ColumnTrait as _, Condition, EntityTrait, IntoActiveModel, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
};

use super::entity::{checkpoint, head, producer, record, tile};
use super::{AuditStore, Edges, tiles};
use crate::domain::batch::{Ack, Batch, Entry, Identity, Producer, Refusal, Stored, Taken};
use crate::domain::hash::{self, Hash};
use crate::domain::record::Signed;
use crate::domain::tree::{Edge, Tile};
use crate::error::Error;

/// Rows in one statement. Few different sizes, so that prepared statements are used again; a statement of the largest
/// stays below the 32,766 values that SQLite takes.
const CHUNKS: [usize; 8] = [128, 64, 32, 16, 8, 4, 2, 1];

/// Signs states of logs. Called inside the transaction.
pub(crate) trait Sign: Send + Sync {
    /// The name of a log.
    fn origin(&self, log: &str) -> String;
    /// The signed note of a log's state. `time` is that of the last record (microseconds since 1970): the note does
    /// not hold a time, so the one beside it must be found in the log to be believed.
    fn sign(&self, log: &str, size: u64, root: &Hash, time: i64) -> Signed;
}

/// Tells from a log's name and a record's bytes what the event says.
pub(crate) type ContentOf = fn(&str, &[u8]) -> Result<Hash, Error>;

/// What a committed transaction did.
#[derive(Debug)]
pub(crate) struct Appended {
    /// One for each submission.
    pub(crate) answers: Vec<Result<Ack, Refusal>>,
    /// The edges after it.
    pub(crate) edges: Vec<(String, Arc<Edge>)>,
    /// How many records were written.
    pub(crate) records: usize,
}

impl AuditStore {
    /// Appends what of the batch follows its producers' last numbers. The caller has checked that each producer may
    /// write to each log: events of one producer go to many organizations, so there is no one permit.
    pub(crate) async fn append_unscoped(
        &self,
        batch: &Arc<Batch>,
        edges: &Arc<Edges>,
        signer: &Arc<dyn Sign>,
        content: ContentOf,
    ) -> Result<Appended, Error> {
        let (batch, edges, signer) = (batch.clone(), edges.clone(), signer.clone());
        self.store
            .upkeep("the log itself: records, tiles, heads", move |tx| {
                let (batch, edges, signer) = (batch.clone(), edges.clone(), signer.clone());
                Box::pin(async move { append(tx, &batch, &edges, signer.as_ref(), content).await })
            })
            .await
    }
}

async fn append(
    tx: &Tx,
    batch: &Batch,
    edges: &Edges,
    signer: &dyn Sign,
    content: ContentOf,
) -> Result<Appended, Error> {
    // Always heads before producers and each in order, so that replicas do not lock each other out.
    let heads = lock_heads(tx, batch, signer).await?;
    let mut last = lock_producers(tx, batch).await?;
    let before = last.clone();
    let stored = stored(tx, batch, &last, content).await?;
    let identity =
        |entry: &Entry| identity(&entry.log, entry.index_fields.event_id.clone(), &entry.body, content);
    let (taken, answers) = batch.take(&mut last, &stored, identity)?;
    let mut grown = Vec::new();
    let mut rows = Vec::new();
    let mut changed_tiles = Vec::new();
    for (log, entries) in &taken {
        let head = heads.get(*log).ok_or_else(|| inconsistent(log, "its head is gone"))?;
        let mut edge = current_edge(tx, head, edges).await?;
        for (place, entry) in entries.iter().enumerate() {
            rows.push(row(edge.size() + place as u64, entry)?);
        }
        for tile in edge.append(entries.iter().map(|(_, entry)| entry.leaf)) {
            changed_tiles.push(tile_row(log, &tile)?);
        }
        let time = entries.last().map_or(0, |(_, entry)| entry.index_fields.receive_time);
        grown.push(((*log).to_owned(), Arc::new(edge), time));
    }
    let records = rows.len();
    insert(tx, rows, None).await?;
    insert(tx, changed_tiles, Some(replace_tile())).await?;
    // A log that was just made is signed even when nothing was taken for it: no head is without a checkpoint.
    let mut written = grown;
    for (log, head) in
        heads.iter().filter(|(log, head)| head.tree_size == 0 && !taken.contains_key(log.as_str()))
    {
        debug_assert!(head.root_hash == hash::empty());
        written.push((log.clone(), Arc::new(Edge::default()), 0));
    }
    write_heads(tx, &written, signer).await?;
    let advanced: Vec<_> = last.into_iter().filter(|(p, seq)| before.get(p) != Some(seq)).collect();
    write_producers(tx, &advanced).await?;
    let edges = written.into_iter().map(|(log, edge, _)| (log, edge)).collect();
    Ok(Appended { answers, edges, records })
}

fn inconsistent(log: &str, why: impl Into<String>) -> Error {
    Error::Inconsistent { log: log.to_owned(), why: why.into() }
}

/// Locks the heads of the batch's logs, making those that do not exist.
async fn lock_heads(
    tx: &Tx,
    batch: &Batch,
    signer: &dyn Sign,
) -> Result<BTreeMap<String, head::Model>, Error> {
    let logs = batch.logs();
    let mut found = select_heads(tx, logs.iter().copied()).await?;
    let missing: Vec<&str> = logs.into_iter().filter(|log| !found.contains_key(*log)).collect();
    if missing.is_empty() {
        return Ok(found);
    }
    let rows = missing.iter().map(|log| head::Model {
        log: (*log).to_owned(),
        origin: signer.origin(log),
        tree_size: 0,
        root_hash: hash::empty().to_vec(),
    });
    let keep = OnConflict::column(head::Column::Log).do_nothing().to_owned();
    insert(tx, rows.collect(), Some(keep)).await?;
    found.extend(select_heads(tx, missing.into_iter()).await?);
    Ok(found)
}

async fn select_heads(
    tx: &Tx,
    logs: impl Iterator<Item = &str>,
) -> Result<BTreeMap<String, head::Model>, Error> {
    let select = head::Entity::find().filter(head::Column::Log.is_in(logs)).order_by_asc(head::Column::Log);
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

/// What the log has under the numbers that are offered again.
async fn stored<'a>(
    tx: &Tx,
    batch: &'a Batch,
    last: &BTreeMap<&Producer, i64>,
    content: ContentOf,
) -> Result<Stored<'a>, Error> {
    let mut stored = Stored::new();
    for (producer, seqs) in batch.repeats(last) {
        let seqs: Vec<i64> = seqs.into_iter().collect();
        for part in seqs.chunks(CHUNKS[0]) {
            let rows: Vec<(i64, String, String, Vec<u8>)> = record::Entity::find()
                .select_only()
                .columns([
                    record::Column::Seq,
                    record::Column::Log,
                    record::Column::EventId,
                    record::Column::Body,
                ])
                .filter(record::Column::Service.eq(producer.service.as_str()))
                .filter(record::Column::Epoch.eq(producer.epoch.as_str()))
                .filter(record::Column::Seq.is_in(part.iter().copied()))
                .into_tuple()
                .all(tx)
                .await?;
            for (seq, log, event_id, body) in rows {
                stored.insert((producer, seq), identity(&log, event_id, &body, content)?);
            }
        }
    }
    Ok(stored)
}

fn identity(log: &str, event_id: String, body: &[u8], content: ContentOf) -> Result<Identity, Error> {
    Ok(Identity { event_id, content: content(log, body)? })
}

/// The edge of a locked log: the remembered one when nobody has appended since, otherwise from its tiles.
async fn current_edge(tx: &Tx, head: &head::Model, edges: &Edges) -> Result<Edge, Error> {
    let size = u64::try_from(head.tree_size).map_err(|_| inconsistent(&head.log, "its size is negative"))?;
    if let Some(edge) = edges.get(&head.log)
        && edge.size() == size
        && edge.root()[..] == head.root_hash
    {
        return Ok(Edge::clone(edge));
    }
    let edge = tiles::edge(tx, &head.log, size).await?;
    match edge.root()[..] == head.root_hash {
        true => Ok(edge),
        false => Err(inconsistent(&head.log, "its tiles do not hash to its head")),
    }
}

fn row(index: u64, (producer, entry): &Taken<'_>) -> Result<record::Model, Error> {
    let fields = &entry.index_fields;
    Ok(record::Model {
        log: entry.log.clone(),
        idx: signed(index)?,
        leaf_hash: entry.leaf.to_vec(),
        body: entry.body.clone(),
        body_bytes: signed(entry.body.len() as u64)?,
        event_id: fields.event_id.clone(),
        receive_time: fields.receive_time,
        event_time: fields.event_time,
        class: fields.class.clone(),
        action: fields.action.clone(),
        actor: fields.actor.clone(),
        object: fields.object.clone(),
        object_type: fields.object_type.clone(),
        project: fields.project.clone(),
        effect: fields.effect.clone(),
        status: fields.status.clone(),
        request_id: fields.request_id.clone(),
        operation: fields.operation.clone(),
        service: producer.service.clone(),
        epoch: producer.epoch.clone(),
        seq: entry.seq,
    })
}

fn signed(number: u64) -> Result<i64, Error> {
    i64::try_from(number)
        .map_err(|_| StoreError::Corrupt(format!("{number} is beyond the range of a log")).into())
}

fn tile_row(log: &str, tile: &Tile) -> Result<tile::Model, Error> {
    Ok(tile::Model {
        log: log.to_owned(),
        level: tile.level as i32,
        idx: signed(tile.index)?,
        width: tile.hashes.len() as i32,
        hashes: tile.bytes(),
    })
}

fn replace_tile() -> OnConflict {
    OnConflict::columns([tile::Column::Log, tile::Column::Level, tile::Column::Idx])
        .update_columns([tile::Column::Width, tile::Column::Hashes])
        .to_owned()
}

fn producer_row(producer: &Producer, last_seq: i64) -> producer::Model {
    producer::Model { service: producer.service.clone(), epoch: producer.epoch.clone(), last_seq }
}

async fn write_heads(tx: &Tx, grown: &[(String, Arc<Edge>, i64)], signer: &dyn Sign) -> Result<(), Error> {
    let (mut heads, mut checkpoints) = (Vec::new(), Vec::new());
    for (log, edge, time) in grown {
        let (size, root) = (signed(edge.size())?, edge.root());
        let note = signer.sign(log, edge.size(), &root, *time);
        heads.push(head::Model {
            log: log.clone(),
            origin: signer.origin(log),
            tree_size: size,
            root_hash: root.to_vec(),
        });
        checkpoints.push(checkpoint::Model {
            log: log.clone(),
            tree_size: size,
            root_hash: root.to_vec(),
            note: note.note,
            verifier_key: note.verifier_key,
            sign_time: note.sign_time,
        });
    }
    let head_columns = [head::Column::TreeSize, head::Column::RootHash];
    let update = OnConflict::column(head::Column::Log).update_columns(head_columns).to_owned();
    insert(tx, heads, Some(update)).await?;
    use checkpoint::Column;
    let columns = [Column::TreeSize, Column::RootHash, Column::Note, Column::VerifierKey, Column::SignTime];
    let update = OnConflict::column(Column::Log).update_columns(columns).to_owned();
    insert(tx, checkpoints, Some(update)).await
}

async fn write_producers(tx: &Tx, advanced: &[(&Producer, i64)]) -> Result<(), Error> {
    let rows = advanced.iter().map(|(producer, last)| producer_row(producer, *last)).collect();
    let update = OnConflict::columns([producer::Column::Service, producer::Column::Epoch])
        .update_columns([producer::Column::LastSeq])
        .to_owned();
    insert(tx, rows, Some(update)).await
}

async fn insert<E, M>(tx: &Tx, rows: Vec<M>, on_conflict: Option<OnConflict>) -> Result<(), Error>
where
    E: EntityTrait<Model = M>,
    M: IntoActiveModel<E::ActiveModel> + sea_orm::ModelTrait<Entity = E>,
    E::ActiveModel: sea_orm::ActiveModelTrait<Entity = E> + Send,
{
    let mut rows = rows.into_iter().map(|row| sea_orm::ActiveModelTrait::reset_all(row.into_active_model()));
    let mut left = rows.len();
    while left > 0 {
        let size = CHUNKS.into_iter().find(|size| *size <= left).unwrap_or(1);
        let mut insert = E::insert_many(rows.by_ref().take(size));
        if let Some(on_conflict) = &on_conflict {
            insert = insert.on_conflict(on_conflict.clone());
        }
        insert.exec_without_returning(tx).await?;
        left -= size;
    }
    Ok(())
}
