//! Events that are parked for logs that are held. They are in no tree and are never shown as records.

use pavior_store::Tx;
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::sea_query::ExprTrait as _;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
};

use super::entity::{held_log, parked_event};
use super::insert::{insert_active, signed};
use crate::domain::batch::{Entry, Producer, Taken};
use crate::domain::log_finding::Missing;
use crate::domain::{codec, hash};
use crate::error::Error;

/// Most bytes that become records in one transaction.
const MAX_RELEASED_BYTES: i64 = 16 * 1024 * 1024;

/// Most that is parked for one log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

/// How much is parked for a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parked {
    pub(super) records: i64,
    pub(super) bytes: i64,
}

/// Counts what is parked for a log.
pub(super) async fn parked(db: &impl ConnectionTrait, log: &str) -> Result<Parked, Error> {
    // PostgreSQL sums to another type than it adds.
    let bytes = parked_event::Column::BodyBytes.sum().cast_as("BIGINT");
    let found = parked_event::Entity::find()
        .select_only()
        .column_as(parked_event::Column::Arrival.count(), "records")
        .column_as(bytes, "bytes")
        .filter(parked_event::Column::Log.eq(log))
        .into_tuple::<(i64, Option<i64>)>();
    let (records, bytes) = found.one(db).await?.unwrap_or_default();
    Ok(Parked { records, bytes: bytes.unwrap_or_default() })
}

/// Parks events for a log that is held and locked; its row is to be written afterwards.
pub(super) async fn park(
    tx: &Tx,
    held: &mut held_log::Model,
    entries: &[Taken<'_>],
    limits: Limits,
) -> Result<(), Error> {
    let bytes: usize = entries.iter().map(|(_, entry)| entry.body.len()).sum();
    held.records += signed(entries.len() as u64)?;
    held.bytes += signed(bytes as u64)?;
    if held.records.unsigned_abs() > limits.records || held.bytes.unsigned_abs() > limits.bytes {
        return Err(Error::ParkingFull { log: held.log.clone(), why: held.why.clone() });
    }
    let rows = entries.iter().map(|(producer, entry)| {
        Ok(parked_event::ActiveModel {
            arrival: NotSet,
            log: Set(held.log.clone()),
            service: Set(producer.service.clone()),
            epoch: Set(producer.epoch.clone()),
            seq: Set(entry.seq),
            event_id: Set(entry.event.event_id.to_string()),
            leaf_hash: Set(entry.leaf.to_vec()),
            body_bytes: Set(signed(entry.body.len() as u64)?),
            body: Set(entry.body.clone()),
        })
    });
    insert_active(tx, rows.collect::<Result<_, Error>>()?, None).await
}

/// The first of what is parked for a log.
pub(super) struct Next {
    pub(super) rows: Vec<parked_event::Model>,
    pub(super) more: bool,
}

pub(super) async fn next(tx: &Tx, log: &str, max_records: usize) -> Result<Next, Error> {
    let sizes: Vec<(i64, i64)> = parked_event::Entity::find()
        .select_only()
        .columns([parked_event::Column::Arrival, parked_event::Column::BodyBytes])
        .filter(parked_event::Column::Log.eq(log))
        .order_by_asc(parked_event::Column::Arrival)
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
    let rows = parked_event::Entity::find()
        .filter(parked_event::Column::Log.eq(log))
        .filter(parked_event::Column::Arrival.lte(*last))
        .order_by_asc(parked_event::Column::Arrival)
        .all(tx)
        .await?;
    Ok(Next { more: fits.len() < sizes.len(), rows })
}

/// What a parked event becomes. One that was changed meanwhile would be signed: it keeps its log held.
pub(super) fn decode(row: &parked_event::Model) -> Result<(Producer, Entry), Error> {
    let changed = || {
        let why = format!("the parked event {} of `{}` was changed", row.seq, row.service);
        Error::inconsistent(&row.log, why)
    };
    if hash::leaf(&row.body)[..] != row.leaf_hash {
        return Err(changed());
    }
    let (producer, entry) = codec::decode_entry(&row.log, &row.body)?;
    let same = producer.service == row.service
        && producer.epoch == row.epoch
        && entry.seq == row.seq
        && entry.event.event_id.to_string() == row.event_id
        && entry.leaf[..] == row.leaf_hash;
    if same { Ok((producer, entry)) } else { Err(changed()) }
}

/// The events that are no longer parked for a log, if any.
pub(super) fn missing(held: &held_log::Model, there: Parked) -> Result<Option<Missing>, Error> {
    match (held.records - there.records, held.bytes - there.bytes) {
        (0, 0) => Ok(None),
        (records, bytes) if records > 0 => Ok(Some(Missing { records, bytes })),
        _ => Err(Error::inconsistent(&held.log, "what is parked for it is not what was parked")),
    }
}
