//! Appending to logs: records, tiles, heads and signed checkpoints.

use std::sync::Arc;

use pavior_core::audit::{Affected, AuditEvent};
use pavior_store::{Tx, micros};
use sea_orm::sea_query::OnConflict;

use super::entity::{checkpoint, head, record, tile};
use super::insert::{insert, signed};
use crate::domain::batch::Taken;
use crate::domain::checkpoint::CheckpointSigner;
use crate::domain::tree::{Edge, Tile};
use crate::error::Error;

/// What a transaction appends to logs, whose heads are locked.
#[derive(Debug, Default)]
pub(super) struct LogAppend {
    records: Vec<record::Model>,
    tiles: Vec<tile::Model>,
    /// The log, its edge afterwards and the time of its last record.
    logs: Vec<(String, Arc<Edge>, i64)>,
}

/// What was appended.
#[derive(Debug)]
pub(super) struct Appended {
    pub(super) edges: Vec<(String, Arc<Edge>)>,
    pub(super) records: usize,
}

impl LogAppend {
    /// Puts records at the end of a log whose edge is given.
    pub(super) fn add(&mut self, log: &str, mut edge: Edge, entries: &[Taken<'_>]) -> Result<(), Error> {
        for (place, entry) in (edge.size()..).zip(entries) {
            self.records.push(row(place, entry)?);
        }
        for tile in edge.append(entries.iter().map(|(_, entry)| entry.leaf)) {
            self.tiles.push(tile_row(log, &tile)?);
        }
        let time = entries.last().map_or(0, |(_, entry)| micros(entry.receive_time));
        self.logs.push((log.to_owned(), Arc::new(edge), time));
        Ok(())
    }

    /// Appends records to one log; returns its edge afterwards.
    pub(super) async fn to_one(
        tx: &Tx,
        log: &str,
        edge: Edge,
        entries: &[Taken<'_>],
        signer: &dyn CheckpointSigner,
    ) -> Result<Arc<Edge>, Error> {
        let mut append = Self::default();
        append.add(log, edge, entries)?;
        let appended = append.write(tx, signer).await?.edges.pop();
        appended.map(|(_, edge)| edge).ok_or_else(|| Error::inconsistent(log, "it does not grow"))
    }

    /// Signs a log that has no record yet.
    pub(super) fn begin(&mut self, log: &str) {
        self.logs.push((log.to_owned(), Arc::default(), 0));
    }

    pub(super) async fn write(self, tx: &Tx, signer: &dyn CheckpointSigner) -> Result<Appended, Error> {
        let Self { records: rows, tiles, logs } = self;
        let records = rows.len();
        insert(tx, rows, None).await?;
        insert(tx, tiles, Some(replace_tile())).await?;
        write_heads(tx, &logs, signer).await?;
        Ok(Appended { edges: logs.into_iter().map(|(log, edge, _)| (log, edge)).collect(), records })
    }
}

/// What is looked for by column is what the bytes say.
fn row(index: u64, (producer, entry): &Taken<'_>) -> Result<record::Model, Error> {
    let AuditEvent { event_id, event_time, audit_class, action, .. } = &entry.event;
    let AuditEvent { principal, target, decision, outcome, cause, .. } = &entry.event;
    let Affected { r#type: target_type, name: target, project } = target.clone().unwrap_or_default();
    Ok(record::Model {
        log: entry.log.clone(),
        idx: signed(index)?,
        leaf_hash: entry.leaf.to_vec(),
        body: entry.body.clone(),
        body_bytes: signed(entry.body.len() as u64)?,
        event_id: event_id.to_string(),
        receive_time: micros(entry.receive_time),
        event_time: micros(*event_time),
        audit_class: (*audit_class).into(),
        action: action.clone(),
        principal: principal.name.clone(),
        on_behalf_of: principal.on_behalf_of.clone(),
        target,
        target_type,
        project,
        effect: decision.as_ref().map(|decision| decision.effect).into(),
        status: outcome.status.into(),
        call_id: cause.call_id.clone(),
        request_id: cause.request_id.clone(),
        operation: cause.operation.clone(),
        service: producer.service.clone(),
        epoch: producer.epoch.clone(),
        seq: entry.seq,
    })
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

async fn write_heads(
    tx: &Tx,
    grown: &[(String, Arc<Edge>, i64)],
    signer: &dyn CheckpointSigner,
) -> Result<(), Error> {
    let (mut heads, mut checkpoints) = (Vec::new(), Vec::new());
    for (log, edge, time) in grown {
        let tree_head = edge.head();
        let (size, root) = (signed(tree_head.size)?, tree_head.root);
        let note = signer.sign(log, &tree_head, *time);
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
