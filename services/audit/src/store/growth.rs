//! What is written when logs grow: records, tiles, heads and signed checkpoints.

use std::sync::Arc;

use pavior_store::{StoreError, Tx};
use sea_orm::sea_query::OnConflict;
use sea_orm::{ActiveModelTrait, EntityTrait, IntoActiveModel};

use super::append::Sign;
use super::entity::{checkpoint, head, record, tile};
use crate::domain::batch::Taken;
use crate::domain::tree::{Edge, Tile};
use crate::error::Error;

/// Rows in one statement. Few different sizes, so that prepared statements are used again; a statement of the largest
/// stays below the 32,766 values that SQLite takes.
pub(super) const CHUNKS: [usize; 8] = [128, 64, 32, 16, 8, 4, 2, 1];

/// The rows of a transaction in which logs grow. Their heads are locked.
#[derive(Debug, Default)]
pub(super) struct Growth {
    records: Vec<record::Model>,
    tiles: Vec<tile::Model>,
    /// The log, its edge afterwards and the time of its last record.
    logs: Vec<(String, Arc<Edge>, i64)>,
}

/// What was written.
#[derive(Debug)]
pub(super) struct Grown {
    pub(super) edges: Vec<(String, Arc<Edge>)>,
    pub(super) records: usize,
}

impl Growth {
    /// Puts records at the end of a log whose edge is given.
    pub(super) fn add(&mut self, log: &str, mut edge: Edge, entries: &[Taken<'_>]) -> Result<(), Error> {
        for (place, entry) in (edge.size()..).zip(entries) {
            self.records.push(row(place, entry)?);
        }
        for tile in edge.append(entries.iter().map(|(_, entry)| entry.leaf)) {
            self.tiles.push(tile_row(log, &tile)?);
        }
        let time = entries.last().map_or(0, |(_, entry)| entry.index_fields.receive_time);
        self.logs.push((log.to_owned(), Arc::new(edge), time));
        Ok(())
    }

    /// Signs a log that has no record yet.
    pub(super) fn begin(&mut self, log: &str) {
        self.logs.push((log.to_owned(), Arc::default(), 0));
    }

    pub(super) async fn write(self, tx: &Tx, signer: &dyn Sign) -> Result<Grown, Error> {
        let Self { records: rows, tiles, logs } = self;
        let records = rows.len();
        insert(tx, rows, None).await?;
        insert(tx, tiles, Some(replace_tile())).await?;
        write_heads(tx, &logs, signer).await?;
        Ok(Grown { edges: logs.into_iter().map(|(log, edge, _)| (log, edge)).collect(), records })
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
        audit_class: fields.audit_class.clone(),
        action: fields.action.clone(),
        principal: fields.principal.clone(),
        on_behalf_of: fields.on_behalf_of.clone(),
        target: fields.target.clone(),
        target_type: fields.target_type.clone(),
        project: fields.project.clone(),
        effect: fields.effect.clone(),
        status: fields.status.clone(),
        call_id: fields.call_id.clone(),
        request_id: fields.request_id.clone(),
        operation: fields.operation.clone(),
        service: producer.service.clone(),
        epoch: producer.epoch.clone(),
        seq: entry.seq,
    })
}

pub(super) fn signed(number: u64) -> Result<i64, Error> {
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

pub(super) async fn insert<E, M>(tx: &Tx, rows: Vec<M>, on_conflict: Option<OnConflict>) -> Result<(), Error>
where
    E: EntityTrait<Model = M>,
    M: IntoActiveModel<E::ActiveModel> + sea_orm::ModelTrait<Entity = E>,
    E::ActiveModel: ActiveModelTrait<Entity = E> + Send,
{
    let rows = rows.into_iter().map(|row| row.into_active_model().reset_all()).collect();
    insert_active(tx, rows, on_conflict).await
}

/// The same for rows of which the database gives a value.
pub(super) async fn insert_active<A>(
    tx: &Tx,
    rows: Vec<A>,
    on_conflict: Option<OnConflict>,
) -> Result<(), Error>
where
    A: ActiveModelTrait + Send,
{
    let mut left = rows.len();
    let mut rows = rows.into_iter();
    while left > 0 {
        let size = CHUNKS.into_iter().find(|size| *size <= left).unwrap_or(1);
        let mut insert = A::Entity::insert_many(rows.by_ref().take(size));
        if let Some(on_conflict) = &on_conflict {
            insert = insert.on_conflict(on_conflict.clone());
        }
        insert.exec_without_returning(tx).await?;
        left -= size;
    }
    Ok(())
}
