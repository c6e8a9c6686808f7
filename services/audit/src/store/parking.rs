//! Logs that are held, and the events that are parked for them.
//!
//! A log that does not fit together must not grow, and must not stop its producers either: they count over all logs.
//! So it is held, in the database, for every process; what comes for it is taken and parked beside it, in order, and
//! becomes records when the log is whole again. What is parked is in no tree and is never shown as a record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pavior_store::Tx;
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::sea_query::{ExprTrait as _, OnConflict, SelectStatement};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    QueryTrait as _,
};

use super::append::Sign;
use super::check::wrong;
use super::entity::{head, held, parked};
use super::growth::{insert, insert_active, signed};
use super::{AuditStore, accepted, tiles};
use crate::domain::batch::Taken;
use crate::domain::known::Mark;
use crate::error::Error;

/// Most that is parked for one log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

/// A log that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldLog {
    pub(crate) log: String,
    pub(crate) why: String,
    /// How many events are parked for it.
    pub(crate) records: u64,
    /// How many records it must have to be let go.
    pub(crate) demanded: u64,
}

/// What a log must show to be let go, beside that it fits together.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Demand {
    /// The state that it goes on from.
    pub(crate) mark: Option<Mark>,
    /// How often a loss of the log had been accepted when that was known; one that was accepted since gives it up.
    pub(crate) generation: u64,
    /// The tile of records that is whole.
    pub(crate) tile: Option<u64>,
}

/// Why a log is held for which events were found that nobody looks after.
pub(crate) const NOT_HELD: &str = "events are parked for it although it was not held";

impl AuditStore {
    /// Holds a log from now on, until it shows what is demanded. What was demanded before stays so.
    pub(crate) async fn hold_unscoped(
        &self,
        log: &str,
        why: &str,
        demand: Demand,
        signer: &Arc<dyn Sign>,
    ) -> Result<(), Error> {
        let (log, why, signer) = (log.to_owned(), why.to_owned(), signer.clone());
        self.write(move |tx| {
            let (log, why, signer) = (log.clone(), why.clone(), signer.clone());
            Box::pin(async move { hold(tx, &log, &why, demand, signer.as_ref()).await })
        })
        .await
    }

    /// The logs with parked events that are not held.
    pub(crate) async fn left_over_unscoped(&self) -> Result<Vec<String>, Error> {
        let found = parked::Entity::find()
            .select_only()
            .column(parked::Column::Log)
            .distinct()
            .filter(parked::Column::Log.not_in_subquery(held_logs()))
            .order_by_asc(parked::Column::Log);
        Ok(found.into_tuple().all(self.store.read()).await?)
    }

    /// The logs that are held.
    pub(crate) async fn held_unscoped(&self) -> Result<Vec<HeldLog>, Error> {
        let rows = held::Entity::find().order_by_asc(held::Column::Log).all(self.store.read()).await?;
        let held = rows.into_iter().map(|held| HeldLog {
            log: held.log,
            why: held.why,
            records: held.records.unsigned_abs(),
            demanded: held.signed_size.map_or(0, i64::unsigned_abs),
        });
        Ok(held.collect())
    }
}

fn held_logs() -> SelectStatement {
    held::Entity::find().select_only().column(held::Column::Log).into_query()
}

async fn hold(tx: &Tx, log: &str, why: &str, demand: Demand, signer: &dyn Sign) -> Result<(), Error> {
    // Locked, so that who appends to it is done before. Nothing else of the row: it may not be readable.
    let head = head::Entity::find_by_id(log.to_owned()).select_only().column(head::Column::Log);
    head.lock_exclusive().into_tuple::<String>().one(tx).await?;
    let Counted { records, bytes } = counted(tx, log).await?;
    let (log, why) = (log.to_owned(), why.to_owned());
    let row = held::Model { log, why, records, bytes, signed_size: None, signed_root: None, tile: None };
    let keep = OnConflict::column(held::Column::Log).do_nothing().to_owned();
    insert(tx, vec![row.clone()], Some(keep)).await?;
    let Some(mut held) = lock(tx, &BTreeSet::from([row.log.as_str()])).await?.remove(&row.log) else {
        return Ok(());
    };
    let before = held.clone();
    // What was found last is what an operator looks for.
    held.why.clone_from(&row.why);
    if let Some(mark) = demand.mark
        && accepted::generation(tx, &held.log, signer).await? <= demand.generation
        && goes_further(tx, &held, &mark).await?
    {
        held.signed_size = Some(signed(mark.size)?);
        held.signed_root = Some(mark.root.to_vec());
    }
    if let Some(tile) = demand.tile {
        held.tile = Some(signed(tile)?);
    }
    if held == before { Ok(()) } else { update(tx, &held).await }
}

/// Whether a state goes on from the one that is demanded. One of another line must not take its place.
async fn goes_further(tx: &Tx, held: &held::Model, mark: &Mark) -> Result<bool, Error> {
    let Some(from) = Demand::of(held)?.mark else { return Ok(true) };
    if from.size >= mark.size {
        return Ok(false);
    }
    match tiles::set_back(tx, &held.log, &from, mark).await {
        Ok(set_back) => Ok(set_back.is_none()),
        Err(error) => error.of_log(&held.log).damage().map(|_| false),
    }
}

impl Demand {
    /// What is demanded of a log that is held.
    pub(super) fn of(held: &held::Model) -> Result<Self, Error> {
        let unreadable = || wrong(&held.log, "what it must show to be let go cannot be read");
        let mark = match (held.signed_size, &held.signed_root) {
            (Some(size), Some(root)) => {
                let size = u64::try_from(size).map_err(|_| unreadable())?;
                Some(Mark { size, root: root.as_slice().try_into().map_err(|_| unreadable())? })
            }
            _ => None,
        };
        let tile = held.tile.map(u64::try_from).transpose().map_err(|_| unreadable())?;
        Ok(Self { mark, tile, generation: 0 })
    }
}

/// What is parked for a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) records: i64,
    pub(super) bytes: i64,
}

pub(super) async fn counted(db: &impl ConnectionTrait, log: &str) -> Result<Counted, Error> {
    // PostgreSQL sums to another type than it adds.
    let bytes = parked::Column::BodyBytes.sum().cast_as("BIGINT");
    let found = parked::Entity::find()
        .select_only()
        .column_as(parked::Column::Arrival.count(), "records")
        .column_as(bytes, "bytes")
        .filter(parked::Column::Log.eq(log))
        .into_tuple::<(i64, Option<i64>)>();
    let (records, bytes) = found.one(db).await?.unwrap_or_default();
    Ok(Counted { records, bytes: bytes.unwrap_or_default() })
}

/// The first of these logs, which are not held, that has parked events all the same.
pub(super) async fn left_over(tx: &Tx, free: impl Iterator<Item = &str>) -> Result<Option<String>, Error> {
    let found = parked::Entity::find().select_only().column(parked::Column::Log);
    let found = found.filter(parked::Column::Log.is_in(free)).into_tuple();
    Ok(found.one(tx).await?)
}

/// Locks those of the logs that are held.
pub(super) async fn lock(tx: &Tx, logs: &BTreeSet<&str>) -> Result<BTreeMap<String, held::Model>, Error> {
    let held = held::Entity::find()
        .filter(held::Column::Log.is_in(logs.iter().copied()))
        .order_by_asc(held::Column::Log)
        .lock_exclusive()
        .all(tx)
        .await?;
    Ok(held.into_iter().map(|held| (held.log.clone(), held)).collect())
}

/// Parks events for a log that is held and locked.
pub(super) async fn park(
    tx: &Tx,
    held: &mut held::Model,
    entries: &[Taken<'_>],
    limits: Limits,
) -> Result<(), Error> {
    let bytes: usize = entries.iter().map(|(_, entry)| entry.body.len()).sum();
    held.records += signed(entries.len() as u64)?;
    held.bytes += signed(bytes as u64)?;
    if held.records.unsigned_abs() > limits.records || held.bytes.unsigned_abs() > limits.bytes {
        return Err(Error::Full { log: held.log.clone(), why: held.why.clone() });
    }
    let rows = entries.iter().map(|(producer, entry)| {
        Ok(parked::ActiveModel {
            arrival: NotSet,
            log: Set(held.log.clone()),
            service: Set(producer.service.clone()),
            epoch: Set(producer.epoch.clone()),
            seq: Set(entry.seq),
            event_id: Set(entry.index_fields.event_id.clone()),
            leaf_hash: Set(entry.leaf.to_vec()),
            body_bytes: Set(signed(entry.body.len() as u64)?),
            body: Set(entry.body.clone()),
        })
    });
    insert_active(tx, rows.collect::<Result<_, Error>>()?, None).await?;
    update(tx, held).await
}

/// Writes the row of a log that is held and locked.
pub(super) async fn update(tx: &Tx, held: &held::Model) -> Result<(), Error> {
    use held::Column::{Bytes, Log, Records, SignedRoot, SignedSize, Tile, Why};
    let columns = [Why, Records, Bytes, SignedSize, SignedRoot, Tile];
    let update = OnConflict::column(Log).update_columns(columns).to_owned();
    insert(tx, vec![held.clone()], Some(update)).await
}
