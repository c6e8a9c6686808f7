//! How a log that was held goes on: by itself when it is whole again, or with what was lost accepted by an operator.

use std::collections::BTreeSet;
use std::sync::Arc;

use pavior_store::{StoreError, Tx};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    Statement,
};

use super::append::{Sign, has_remains, write_empty_head, write_producers};
use super::check::{Unchecked, check, check_tile, wrong};
use super::entity::{head, held, parked};
use super::growth::Growth;
use super::parking::{self, Counted, Demand};
use super::{AuditStore, accepted, clash, tiles};
use crate::domain::batch::{Entry, Producer, Taken};
use crate::domain::hash;
use crate::domain::tree::{Edge, tile_width};
use crate::error::{Error, SetBack};

/// Most bytes that become records in one transaction.
const MAX_RELEASED_BYTES: i64 = 16 * 1024 * 1024;

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

/// What is gone of a log that is held, and whether that is all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Losses {
    /// What does not fit together, and is no loss that can be accepted.
    pub(crate) damage: Option<String>,
    /// It does not go on from a state that it had.
    pub(crate) set_back: Option<SetBack>,
    /// Parked events that are gone, and their bytes.
    pub(crate) missing: Option<(i64, i64)>,
    /// Parked events whose numbers stand for others in the records.
    pub(crate) clashing: u64,
}

/// Numbers of a producer that were acknowledged and stand in no log, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Absent {
    pub(crate) service: String,
    pub(crate) epoch: String,
    pub(crate) first: i64,
    pub(crate) last: i64,
}

impl AuditStore {
    /// The numbers that were acknowledged and are neither recorded nor parked, over all logs. It reads every record's
    /// number: for an operator, not for a service.
    pub(crate) async fn absent_unscoped(&self) -> Result<Vec<Absent>, Error> {
        let there = "SELECT service, epoch, seq FROM audit_record UNION ALL SELECT service, epoch, seq FROM audit_parked";
        let between = format!(
            "SELECT service, epoch, before + 1 AS first, seq - 1 AS last FROM (SELECT service, epoch, seq, \
             LAG(seq, 1, CAST(0 AS bigint)) OVER (PARTITION BY service, epoch ORDER BY seq) AS before \
             FROM ({there}) AS there) AS pairs WHERE seq > before + 1 ORDER BY service, epoch, seq"
        );
        let after = format!(
            "SELECT p.service, p.epoch, COALESCE(t.seq, 0) + 1 AS first, p.last_seq AS last FROM audit_producer p \
             LEFT JOIN (SELECT service, epoch, MAX(seq) AS seq FROM ({there}) AS there GROUP BY service, epoch) t \
             ON t.service = p.service AND t.epoch = p.epoch \
             WHERE p.last_seq > COALESCE(t.seq, 0) ORDER BY p.service, p.epoch"
        );
        let db = self.store.read();
        let mut absent = Vec::new();
        for sql in [between, after] {
            let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await;
            for row in rows.map_err(StoreError::from)? {
                let text = |column| row.try_get::<String>("", column).map_err(StoreError::from);
                let number = |column| row.try_get::<i64>("", column).map_err(StoreError::from);
                let (service, epoch) = (text("service")?, text("epoch")?);
                absent.push(Absent { service, epoch, first: number("first")?, last: number("last")? });
            }
        }
        Ok(absent)
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

    /// What is gone of a log.
    pub(crate) async fn losses_unscoped(&self, log: &str, signer: &Arc<dyn Sign>) -> Result<Losses, Error> {
        let (looked_at, signer) = (log.to_owned(), signer.clone());
        let found = self.write(move |tx| {
            let (log, signer) = (looked_at.clone(), signer.clone());
            Box::pin(async move { losses(tx, &log, signer.as_ref()).await })
        });
        match found.await.map_err(|error| error.of_log(log)).map_err(Error::damage) {
            Ok(losses) => Ok(losses),
            Err(Ok((_, why))) => Ok(Losses { damage: Some(why), ..Losses::default() }),
            Err(Err(error)) => Err(error),
        }
    }

    /// Goes on from a log as it is, if it fits together: writes the record that says what was lost, which is the next of
    /// its producer, and demands no more what is gone, nor does any process that knows of it. What is still parked stays
    /// so, to become records after it. `absent` is how many numbers of producers are in no log, and `least_generation` above
    /// what is known of acceptances outside of the database. Returns the log's edge.
    pub(crate) async fn accept_unscoped(
        &self,
        producer: &Producer,
        entry: &Entry,
        absent: i64,
        least_generation: u64,
        signer: &Arc<dyn Sign>,
    ) -> Result<Arc<Edge>, Error> {
        let (producer, entry, signer) = (producer.clone(), entry.clone(), signer.clone());
        self.write(move |tx| {
            let (producer, entry, signer) = (producer.clone(), entry.clone(), signer.clone());
            Box::pin(
                async move { accept(tx, &producer, &entry, absent, least_generation, signer.as_ref()).await },
            )
        })
        .await
    }
}

async fn release(
    tx: &Tx,
    log: &str,
    signer: &dyn Sign,
    entry_of: EntryOf,
    max_records: usize,
) -> Result<Released, Error> {
    let found = whole(tx, log, signer).await?;
    // Another process may have done it.
    let Some(mut held) = parking::lock(tx, &BTreeSet::from([log])).await?.remove(log) else {
        return Ok(Released::default());
    };
    let Demand { mark, tile, generation: _ } = Demand::of(&held)?;
    if let Some(mark) = mark
        && let Some(set_back) = tiles::set_back(tx, log, &mark, &found.edge.mark()).await?
    {
        return Err(Error::SetBack(vec![set_back]));
    }
    if let Some(tile) = tile {
        tile_is_whole(tx, log, tile, found.edge.size()).await?;
    }
    if let Some((records, bytes)) = missing(&held, parking::counted(tx, log).await?)? {
        return Err(wrong(log, format!("{records} parked records of {bytes} bytes are missing")));
    }
    let Next { rows, more } = next(tx, log, max_records).await?;
    if let Some(last) = rows.last() {
        clash::refuse(tx, log, last.arrival).await?;
    }
    let mut entries = Vec::with_capacity(rows.len());
    for row in &rows {
        entries.push(entry(row, entry_of)?);
        held.records -= 1;
        held.bytes -= row.body_bytes;
    }
    let mut edge = Arc::new(found.edge);
    if let Some(last) = rows.last() {
        let taken: Vec<Taken<'_>> = entries.iter().map(|(producer, entry)| (producer, entry)).collect();
        let mut growth = Growth::default();
        growth.add(log, Edge::clone(&edge), &taken)?;
        if let Some((_, grown)) = growth.write(tx, signer).await?.edges.pop() {
            edge = grown;
        }
        parked::Entity::delete_many()
            .filter(parked::Column::Log.eq(log))
            .filter(parked::Column::Arrival.lte(last.arrival))
            .exec(tx)
            .await?;
    }
    match more {
        true => parking::update(tx, &held).await?,
        false => {
            held::Entity::delete_by_id(log.to_owned()).exec(tx).await?;
        }
    }
    Ok(Released { records: rows.len(), more, edges: vec![(log.to_owned(), edge)] })
}

/// A log that fits together. Leaves its head locked.
pub(super) async fn whole(tx: &Tx, log: &str, signer: &dyn Sign) -> Result<Unchecked, Error> {
    let found = check(tx, log).await?;
    match signer.objection(&found) {
        Some(objection) => Err(wrong(log, objection.why)),
        None => Ok(found),
    }
}

async fn tile_is_whole(db: &impl ConnectionTrait, log: &str, tile: u64, size: u64) -> Result<(), Error> {
    // None of a log that ends before it.
    if tile_width(size, 0, tile) > 0 {
        check_tile(db, log, tile, size).await?;
    }
    Ok(())
}

/// How many events of how many bytes are no longer parked, if any.
fn missing(held: &held::Model, there: Counted) -> Result<Option<(i64, i64)>, Error> {
    match (held.records - there.records, held.bytes - there.bytes) {
        (0, 0) => Ok(None),
        (records, bytes) if records > 0 => Ok(Some((records, bytes))),
        _ => Err(wrong(&held.log, "what is parked for it is not what was parked")),
    }
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
pub(super) fn entry(row: &parked::Model, entry_of: EntryOf) -> Result<(Producer, Entry), Error> {
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

async fn losses(tx: &Tx, log: &str, signer: &dyn Sign) -> Result<Losses, Error> {
    let edge = match is_gone(tx, log).await? {
        true => Edge::default(),
        false => whole(tx, log, signer).await?.edge,
    };
    let mut losses = Losses::default();
    let Some(held) = held::Entity::find_by_id(log.to_owned()).one(tx).await? else { return Ok(losses) };
    let Demand { mark, tile, generation: _ } = Demand::of(&held)?;
    if let Some(tile) = tile {
        tile_is_whole(tx, log, tile, edge.size()).await?;
    }
    if let Some(mark) = mark {
        losses.set_back = tiles::set_back(tx, log, &mark, &edge.mark()).await?;
    }
    losses.missing = missing(&held, parking::counted(tx, log).await?)?;
    losses.clashing = clash::count(tx, log).await?;
    Ok(losses)
}

/// Whether nothing is left of a log.
async fn is_gone(db: &impl ConnectionTrait, log: &str) -> Result<bool, Error> {
    let head = head::Entity::find_by_id(log.to_owned()).select_only().column(head::Column::Log);
    Ok(head.into_tuple::<String>().one(db).await?.is_none() && !has_remains(db, log).await?)
}

async fn accept(
    tx: &Tx,
    producer: &Producer,
    entry: &Entry,
    absent: i64,
    least_generation: u64,
    signer: &dyn Sign,
) -> Result<Arc<Edge>, Error> {
    let log = entry.log.as_str();
    let edge = match is_gone(tx, log).await? {
        true => {
            write_empty_head(tx, log, signer).await?;
            Edge::default()
        }
        false => whole(tx, log, signer).await?.edge,
    };
    let held = parking::lock(tx, &BTreeSet::from([log])).await?.remove(log);
    if let Some(tile) = held.as_ref().map(Demand::of).transpose()?.and_then(|demand| demand.tile) {
        tile_is_whole(tx, log, tile, edge.size()).await?;
    }
    let mut growth = Growth::default();
    growth.add(log, edge, &[(producer, entry)])?;
    let grown = growth.write(tx, signer).await?.edges.pop();
    let (_, edge) = grown.ok_or_else(|| wrong(log, "it does not grow"))?;
    write_producers(tx, &[(producer, entry.seq)]).await?;
    accepted::write(tx, log, edge.mark(), absent, least_generation, signer).await?;
    let Some(mut held) = held else { return Ok(edge) };
    let there = parking::counted(tx, log).await?;
    missing(&held, there)?;
    let Counted { records, bytes } = there;
    if records == 0 {
        held::Entity::delete_by_id(log.to_owned()).exec(tx).await?;
        return Ok(edge);
    }
    (held.records, held.bytes) = (records, bytes);
    (held.signed_size, held.signed_root, held.tile) = (None, None, None);
    parking::update(tx, &held).await?;
    Ok(edge)
}
