//! How a log that was held goes on by itself when it is consistent again.

use std::sync::Arc;

use pavior_store::Tx;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _};

use super::append::LogAppend;
use super::check::{recheck_tile, verified};
use super::entity::parked_event as parked_row;
use super::held_log::{lock_one, required_head, required_tile, update_or_release};
use super::{AuditStore, conflict, parked_event, tile};
use crate::domain::batch::Taken;
use crate::domain::checkpoint::CheckpointSigner;
use crate::domain::log_finding::Missing;
use crate::domain::tree::Edge;
use crate::error::Error;

/// What of a held log became records.
#[derive(Debug, Default)]
pub(crate) struct Released {
    pub(crate) records: usize,
    /// The edges after it.
    pub(crate) edges: Vec<(String, Arc<Edge>)>,
    /// There is more; the log is held until that is done.
    pub(crate) more: bool,
}

impl AuditStore {
    /// Appends the first of what is parked for a log, at most `max_records` of it, and releases the log with the last.
    ///
    /// # Errors
    /// When the log, or what is parked for it, still does not fit together.
    pub(crate) async fn release_unscoped(
        &self,
        log: &str,
        signer: &Arc<dyn CheckpointSigner>,
        max_records: usize,
    ) -> Result<Released, Error> {
        let released = self.write((log.to_owned(), signer.clone(), max_records), |tx, (log, signer, max)| {
            Box::pin(release(tx, log, signer.as_ref(), *max))
        });
        released.await
    }
}

async fn release(
    tx: &Tx,
    log: &str,
    signer: &dyn CheckpointSigner,
    max_records: usize,
) -> Result<Released, Error> {
    let found = verified(tx, log, signer).await?;
    // Another process may have done it.
    let Some(mut held) = lock_one(tx, log).await? else { return Ok(Released::default()) };
    if let Some(head) = required_head(&held)?
        && let Some(rollback) = tile::rollback(tx, log, &head, &found.edge.head()).await?
    {
        return Err(rollback.into());
    }
    if let Some(tile) = required_tile(&held)? {
        recheck_tile(tx, log, tile, found.edge.size()).await?;
    }
    let there = parked_event::parked(tx, log).await?;
    if let Some(Missing { records, bytes }) = parked_event::missing(&held, there)? {
        let why = format!("{records} parked records of {bytes} bytes are missing");
        return Err(Error::inconsistent(log, why));
    }
    let parked_event::Next { rows, more } = parked_event::next(tx, log, max_records).await?;
    let mut edge = Arc::new(found.edge);
    if let Some(last) = rows.last() {
        conflict::refuse(tx, log, last.arrival).await?;
        let entries = rows.iter().map(parked_event::decode).collect::<Result<Vec<_>, _>>()?;
        let taken: Vec<Taken<'_>> = entries.iter().map(|(producer, entry)| (producer, entry)).collect();
        edge = LogAppend::to_one(tx, log, Arc::unwrap_or_clone(edge), &taken, signer).await?;
        parked_row::Entity::delete_many()
            .filter(parked_row::Column::Log.eq(log))
            .filter(parked_row::Column::Arrival.lte(last.arrival))
            .exec(tx)
            .await?;
    }
    held.records -= rows.len() as i64;
    held.bytes -= rows.iter().map(|row| row.body_bytes).sum::<i64>();
    update_or_release(tx, &held, more).await?;
    Ok(Released { records: rows.len(), more, edges: vec![(log.to_owned(), edge)] })
}
