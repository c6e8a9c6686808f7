//! Logs that are held.
//!
//! A log that does not fit together must not grow, and must not stop its producers either: they count over all logs.
//! So it is held, in the database, for every process; what comes for it is taken and parked beside it, in order, and
//! becomes records when the log is consistent again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pavior_store::Tx;
use sea_orm::sea_query::{OnConflict, SelectStatement};
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, QueryTrait as _,
};

use super::entity::{head, held_log, parked_event};
use super::insert::{insert, signed};
use super::parked_event::{Parked, parked};
use super::{AuditStore, accepted_loss, tile};
use crate::domain::checkpoint::CheckpointSigner;
use crate::domain::log_state::{LogState, TreeHead};
use crate::error::Error;

/// A log that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldLog {
    pub(crate) log: String,
    pub(crate) why: String,
    /// How many events are parked for it.
    pub(crate) records: u64,
    /// How many records it must have to be released.
    pub(crate) required_size: u64,
}

/// What a log must show to be released, beside that it is consistent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ReleaseCondition {
    /// The state that it goes on from. A loss that was accepted since gives it up.
    pub(crate) state: Option<LogState>,
    /// The tile whose records hash to it.
    pub(crate) tile: Option<u64>,
}

/// Why a log is held for which events were found parked although it was not.
pub(crate) const NOT_HELD: &str = "events are parked for it although it was not held";

impl AuditStore {
    /// Holds a log from now on, until it fulfils the condition. Conditions of before stay.
    pub(crate) async fn hold_unscoped(
        &self,
        log: &str,
        why: &str,
        condition: ReleaseCondition,
        signer: &Arc<dyn CheckpointSigner>,
    ) -> Result<(), Error> {
        let arguments = (log.to_owned(), why.to_owned(), condition, signer.clone());
        let held = self.write(arguments, |tx, (log, why, condition, signer)| {
            Box::pin(hold(tx, log, why, condition, signer.as_ref()))
        });
        held.await
    }

    /// The logs that are held.
    pub(crate) async fn held_logs_unscoped(&self) -> Result<Vec<HeldLog>, Error> {
        let select = held_log::Entity::find().order_by_asc(held_log::Column::Log);
        let rows = select.all(self.store.read()).await?;
        let held = rows.into_iter().map(|held| HeldLog {
            log: held.log,
            why: held.why,
            records: held.records.unsigned_abs(),
            required_size: held.signed_size.map_or(0, i64::unsigned_abs),
        });
        Ok(held.collect())
    }

    /// The logs with parked events that are not held.
    pub(crate) async fn not_held_unscoped(&self) -> Result<Vec<String>, Error> {
        let found = parked_event::Entity::find()
            .select_only()
            .column(parked_event::Column::Log)
            .distinct()
            .filter(parked_event::Column::Log.not_in_subquery(held_logs()))
            .order_by_asc(parked_event::Column::Log);
        Ok(found.into_tuple().all(self.store.read()).await?)
    }
}

fn held_logs() -> SelectStatement {
    held_log::Entity::find().select_only().column(held_log::Column::Log).into_query()
}

async fn hold(
    tx: &Tx,
    log: &str,
    why: &str,
    condition: &ReleaseCondition,
    signer: &dyn CheckpointSigner,
) -> Result<(), Error> {
    // Locked, so that who appends to it is done before. Nothing else of the row: it may not be readable.
    let head = head::Entity::find_by_id(log.to_owned()).select_only().column(head::Column::Log);
    head.lock_exclusive().into_tuple::<String>().one(tx).await?;
    let Parked { records, bytes } = parked(tx, log).await?;
    let (log, why) = (log.to_owned(), why.to_owned());
    let row = held_log::Model { log, why, records, bytes, signed_size: None, signed_root: None, tile: None };
    let keep = OnConflict::column(held_log::Column::Log).do_nothing().to_owned();
    insert(tx, vec![row.clone()], Some(keep)).await?;
    let Some(mut held) = lock_one(tx, &row.log).await? else { return Ok(()) };
    let before = held.clone();
    // What was found last is what an operator looks for.
    held.why.clone_from(&row.why);
    if let Some(LogState { head, generation }) = condition.state
        && accepted_loss::generation(tx, &held.log, signer).await? <= generation
        && goes_further(tx, &held, &head).await?
    {
        held.signed_size = Some(signed(head.size)?);
        held.signed_root = Some(head.root.to_vec());
    }
    if let Some(tile) = condition.tile {
        held.tile = Some(signed(tile)?);
    }
    if held == before { Ok(()) } else { update(tx, &held).await }
}

/// Whether a tree head goes on from the one that is required. One of a fork must not take its place.
async fn goes_further(tx: &Tx, held: &held_log::Model, head: &TreeHead) -> Result<bool, Error> {
    let Some(from) = required_head(held)? else { return Ok(true) };
    if from.size >= head.size {
        return Ok(false);
    }
    match tile::rollback(tx, &held.log, &from, head).await {
        Ok(rollback) => Ok(rollback.is_none()),
        Err(error) => error.of_log(&held.log).damage().map(|_| false),
    }
}

fn unreadable(held: &held_log::Model) -> Error {
    Error::inconsistent(&held.log, "its condition for release cannot be read")
}

/// The tree head that a log must go on from to be released.
pub(super) fn required_head(held: &held_log::Model) -> Result<Option<TreeHead>, Error> {
    let (Some(size), Some(root)) = (held.signed_size, &held.signed_root) else { return Ok(None) };
    let size = u64::try_from(size).map_err(|_| unreadable(held))?;
    Ok(Some(TreeHead { size, root: root.as_slice().try_into().map_err(|_| unreadable(held))? }))
}

/// The tile of records that must be as it was for a log to be released.
pub(super) fn required_tile(held: &held_log::Model) -> Result<Option<u64>, Error> {
    held.tile.map(u64::try_from).transpose().map_err(|_| unreadable(held))
}

/// The first of these logs, which are not held, that has parked events all the same.
pub(super) async fn first_not_held(
    tx: &Tx,
    free: impl Iterator<Item = &str>,
) -> Result<Option<String>, Error> {
    let found = parked_event::Entity::find().select_only().column(parked_event::Column::Log);
    let found = found.filter(parked_event::Column::Log.is_in(free)).into_tuple();
    Ok(found.one(tx).await?)
}

/// Locks those of the logs that are held.
pub(super) async fn lock(tx: &Tx, logs: &BTreeSet<&str>) -> Result<BTreeMap<String, held_log::Model>, Error> {
    let held = held_log::Entity::find()
        .filter(held_log::Column::Log.is_in(logs.iter().copied()))
        .order_by_asc(held_log::Column::Log)
        .lock_exclusive()
        .all(tx)
        .await?;
    Ok(held.into_iter().map(|held| (held.log.clone(), held)).collect())
}

/// The same of one log.
pub(super) async fn lock_one(tx: &Tx, log: &str) -> Result<Option<held_log::Model>, Error> {
    Ok(lock(tx, &BTreeSet::from([log])).await?.remove(log))
}

/// Writes the row of a log that is held and locked.
pub(super) async fn update(tx: &Tx, held: &held_log::Model) -> Result<(), Error> {
    use held_log::Column::{Bytes, Log, Records, SignedRoot, SignedSize, Tile, Why};
    let columns = [Why, Records, Bytes, SignedSize, SignedRoot, Tile];
    let update = OnConflict::column(Log).update_columns(columns).to_owned();
    insert(tx, vec![held.clone()], Some(update)).await
}

/// Writes the row of a log that is held and locked, or releases the log when it has no parked events any more.
pub(super) async fn update_or_release(tx: &Tx, held: &held_log::Model, more: bool) -> Result<(), Error> {
    if more {
        return update(tx, held).await;
    }
    held_log::Entity::delete_by_id(held.log.clone()).exec(tx).await?;
    Ok(())
}
