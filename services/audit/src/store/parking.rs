//! Logs that are held, and the events that are parked for them.
//!
//! A log that does not fit together must not grow, and must not stop its producers either: they count over all logs.
//! So it is held, in the database, for every process; what comes for it is taken and parked beside it, in order, and
//! becomes records when the log is whole again. What is parked is in no tree and is never shown as a record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pavior_store::Tx;
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::sea_query::OnConflict;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _};

use super::AuditStore;
use super::append::Sign;
use super::check::{check, wrong};
use super::entity::{head, held, parked};
use super::growth::{Growth, insert, insert_active, signed};
use crate::domain::batch::{Entry, Producer, Taken};
use crate::domain::hash;
use crate::domain::tree::Edge;
use crate::error::Error;

/// Most bytes that become records in one transaction.
const MAX_RELEASED_BYTES: i64 = 16 * 1024 * 1024;

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
}

/// What of a held log became records.
#[derive(Debug, Default)]
pub(crate) struct Released {
    pub(crate) records: usize,
    /// The edges after it.
    pub(crate) edges: Vec<(String, Arc<Edge>)>,
    /// There is more; the log is held until that is done.
    pub(crate) more: bool,
}

/// Reads the bytes of a record of a log into what is stored of it.
pub(crate) type EntryOf = fn(&str, &[u8]) -> Result<(Producer, Entry), Error>;

impl AuditStore {
    /// Holds a log from now on.
    pub(crate) async fn hold_unscoped(&self, log: &str, why: &str) -> Result<(), Error> {
        let row = held::Model { log: log.to_owned(), why: why.to_owned(), records: 0, bytes: 0 };
        self.write(move |tx| {
            let row = row.clone();
            Box::pin(async move {
                // Locked, so that who appends to it is done before.
                head::Entity::find_by_id(row.log.clone()).lock_exclusive().one(tx).await?;
                let keep = OnConflict::column(held::Column::Log).do_nothing().to_owned();
                insert(tx, vec![row], Some(keep)).await
            })
        })
        .await
    }

    /// The logs that are held.
    pub(crate) async fn held_unscoped(&self) -> Result<Vec<HeldLog>, Error> {
        let rows = held::Entity::find().order_by_asc(held::Column::Log).all(self.store.read()).await?;
        let held = rows.into_iter().map(|held::Model { log, why, records, bytes: _ }| HeldLog {
            log,
            why,
            records: records.unsigned_abs(),
        });
        Ok(held.collect())
    }

    /// Appends the first of what is parked for a log, at most `max_records` of it, and lets the log go with the last.
    ///
    /// # Errors
    /// When the log, or what is parked for it, still does not fit together.
    pub(crate) async fn release_unscoped(
        &self,
        log: &str,
        signer: &Arc<dyn Sign>,
        entry_of: EntryOf,
        max_records: usize,
    ) -> Result<Released, Error> {
        let (log, signer) = (log.to_owned(), signer.clone());
        self.write(move |tx| {
            let (log, signer) = (log.clone(), signer.clone());
            Box::pin(async move { release(tx, &log, signer.as_ref(), entry_of, max_records).await })
        })
        .await
    }
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
    count(tx, held).await
}

async fn count(tx: &Tx, held: &held::Model) -> Result<(), Error> {
    let counts = [held::Column::Records, held::Column::Bytes];
    let update = OnConflict::column(held::Column::Log).update_columns(counts).to_owned();
    insert(tx, vec![held.clone()], Some(update)).await
}

async fn release(
    tx: &Tx,
    log: &str,
    signer: &dyn Sign,
    entry_of: EntryOf,
    max_records: usize,
) -> Result<Released, Error> {
    let found = check(tx, log).await?;
    if let Some(objection) = signer.objection(&found) {
        return Err(wrong(log, objection.why));
    }
    // Another process may have done it.
    let Some(mut held) = lock(tx, &BTreeSet::from([log])).await?.remove(log) else {
        return Ok(Released::default());
    };
    let Next { rows, more } = next(tx, log, max_records).await?;
    let mut entries = Vec::with_capacity(rows.len());
    for row in &rows {
        entries.push(entry(row, entry_of)?);
        held.records -= 1;
        held.bytes -= row.body_bytes;
    }
    let mut released = Released { records: rows.len(), more, edges: Vec::new() };
    if let Some(last) = rows.last() {
        let taken: Vec<Taken<'_>> = entries.iter().map(|(producer, entry)| (producer, entry)).collect();
        let mut growth = Growth::default();
        growth.add(log, found.edge, &taken)?;
        released.edges = growth.write(tx, signer).await?.edges;
        parked::Entity::delete_many()
            .filter(parked::Column::Log.eq(log))
            .filter(parked::Column::Arrival.lte(last.arrival))
            .exec(tx)
            .await?;
    }
    if !more && (held.records, held.bytes) != (0, 0) {
        return Err(wrong(
            log,
            format!("{} parked records of {} bytes are missing", held.records, held.bytes),
        ));
    }
    match more {
        true => count(tx, &held).await?,
        false => {
            held::Entity::delete_by_id(log.to_owned()).exec(tx).await?;
        }
    }
    Ok(released)
}

/// The first of what is parked for a log.
struct Next {
    rows: Vec<parked::Model>,
    more: bool,
}

async fn next(tx: &Tx, log: &str, max_records: usize) -> Result<Next, Error> {
    let sizes: Vec<(i64, i64)> = parked::Entity::find()
        .select_only()
        .columns([parked::Column::Arrival, parked::Column::BodyBytes])
        .filter(parked::Column::Log.eq(log))
        .order_by_asc(parked::Column::Arrival)
        .limit(max_records as u64 + 1)
        .into_tuple()
        .all(tx)
        .await?;
    let mut bytes = 0;
    let fits = sizes.iter().take(max_records).take_while(|(_, size)| {
        let is_first = bytes == 0;
        bytes += size;
        is_first || bytes <= MAX_RELEASED_BYTES
    });
    let fits: Vec<i64> = fits.map(|(arrival, _)| *arrival).collect();
    let Some(last) = fits.last() else { return Ok(Next { rows: Vec::new(), more: false }) };
    let rows = parked::Entity::find()
        .filter(parked::Column::Log.eq(log))
        .filter(parked::Column::Arrival.lte(*last))
        .order_by_asc(parked::Column::Arrival)
        .all(tx)
        .await?;
    Ok(Next { more: fits.len() < sizes.len(), rows })
}

/// What a parked event becomes. One that was changed meanwhile would be signed: it keeps its log held.
fn entry(row: &parked::Model, entry_of: EntryOf) -> Result<(Producer, Entry), Error> {
    let changed =
        || wrong(&row.log, format!("the parked event {} of `{}` was changed", row.seq, row.service));
    if hash::leaf(&row.body)[..] != row.leaf_hash {
        return Err(changed());
    }
    let (producer, entry) = entry_of(&row.log, &row.body)?;
    let same = producer.service == row.service
        && producer.epoch == row.epoch
        && entry.seq == row.seq
        && entry.index_fields.event_id == row.event_id
        && entry.leaf[..] == row.leaf_hash;
    if same { Ok((producer, entry)) } else { Err(changed()) }
}
