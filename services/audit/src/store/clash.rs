//! Parked events whose numbers stand for other events in the records: those of a log that was exchanged for one that
//! went on elsewhere. They can never become records under their own numbers.

use std::collections::BTreeSet;
use std::sync::Arc;

use pavior_store::Tx;
use sea_orm::sea_query::{Expr, ExprTrait as _, Query};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, PaginatorTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, Select,
};

use super::append::{ContentOf, Sign, write_producers};
use super::check::wrong;
use super::entity::{held, parked, record};
use super::growth::{Growth, signed};
use super::release::{EntryOf, whole};
use super::{AuditStore, parking, release};
use crate::domain::batch::{Entry, Producer, Taken};
use crate::domain::tree::Edge;
use crate::error::Error;

/// Most events that are recorded anew in one transaction.
const AT_ONCE: u64 = 256;

/// A parked event whose number stands for another.
#[derive(Debug, Clone)]
pub(crate) struct Clash {
    arrival: i64,
    /// Who told it, under which number.
    pub(crate) producer: Producer,
    pub(crate) seq: i64,
    pub(crate) body: Vec<u8>,
    /// It is the very event that is recorded: nothing is to be recorded anew.
    pub(crate) is_recorded: bool,
}

impl AuditStore {
    /// The first parked events of a log whose numbers stand for others.
    pub(crate) async fn clashes_unscoped(
        &self,
        log: &str,
        entry_of: EntryOf,
        content: ContentOf,
    ) -> Result<Vec<Clash>, Error> {
        let db = self.store.read();
        let rows = clashing(log).order_by_asc(parked::Column::Arrival).limit(AT_ONCE).all(db).await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            let (producer, entry) = release::entry(&row, entry_of)?;
            let there = record::Entity::find()
                .filter(record::Column::Service.eq(row.service))
                .filter(record::Column::Epoch.eq(row.epoch))
                .filter(record::Column::Seq.eq(row.seq))
                .one(db)
                .await?;
            let is_recorded = match there {
                Some(there) => {
                    there.log == row.log
                        && there.event_id == row.event_id
                        && content(log, &there.body).ok() == Some(content(log, &entry.body)?)
                }
                None => false,
            };
            let (arrival, seq, body) = (row.arrival, row.seq, entry.body);
            found.push(Clash { arrival, producer, seq, body, is_recorded });
        }
        Ok(found)
    }

    /// Appends what such events became under numbers of `producer`, in place of what was parked. Returns the log's edge.
    pub(crate) async fn record_anew_unscoped(
        &self,
        log: &str,
        producer: &Producer,
        clashes: &[Clash],
        entries: Vec<Entry>,
        signer: &Arc<dyn Sign>,
    ) -> Result<Option<Arc<Edge>>, Error> {
        let gone = clashes.iter().map(|clash| (clash.arrival, clash.body.len() as u64)).collect();
        let shared = Arc::new((log.to_owned(), producer.clone(), entries, Gone(gone)));
        let signer = signer.clone();
        self.write(move |tx| {
            let (shared, signer) = (shared.clone(), signer.clone());
            Box::pin(async move {
                let (log, producer, entries, gone) = &*shared;
                record_anew(tx, log, producer, entries, gone, signer.as_ref()).await
            })
        })
        .await
    }
}

fn clashing(log: &str) -> Select<parked::Entity> {
    let same =
        |of_parked, of_record| Expr::col((record::Entity, of_record)).equals((parked::Entity, of_parked));
    use parked::Column::{Epoch, Log, Seq, Service};
    let recorded = Query::select()
        .expr(Expr::val(1))
        .from(record::Entity)
        .and_where(same(Service, record::Column::Service))
        .and_where(same(Epoch, record::Column::Epoch))
        .and_where(same(Seq, record::Column::Seq))
        .take();
    parked::Entity::find().filter(Log.eq(log)).filter(Expr::exists(recorded))
}

/// How many parked events of a log have numbers that stand for others.
pub(super) async fn count(db: &impl ConnectionTrait, log: &str) -> Result<u64, Error> {
    Ok(clashing(log).count(db).await?)
}

/// Refuses the first of the parked events up to one whose number stands for another.
pub(super) async fn refuse(tx: &Tx, log: &str, last_arrival: i64) -> Result<(), Error> {
    let first = clashing(log).filter(parked::Column::Arrival.lte(last_arrival)).limit(1).one(tx).await?;
    let Some(parked::Model { service, seq, .. }) = first else { return Ok(()) };
    Err(wrong(log, format!("the number {seq} of `{service}`, which waits for it, stands for another event")))
}

/// Parked events that go: their places and bytes.
struct Gone(Vec<(i64, u64)>);

async fn record_anew(
    tx: &Tx,
    log: &str,
    producer: &Producer,
    entries: &[Entry],
    Gone(gone): &Gone,
    signer: &dyn Sign,
) -> Result<Option<Arc<Edge>>, Error> {
    let edge = whole(tx, log, signer).await?.edge;
    let held = parking::lock(tx, &BTreeSet::from([log])).await?.remove(log);
    let Some(mut held) = held else { return Err(wrong(log, parking::NOT_HELD)) };
    let removed = parked::Entity::delete_many()
        .filter(parked::Column::Log.eq(log))
        .filter(parked::Column::Arrival.is_in(gone.iter().map(|(arrival, _)| *arrival)));
    if removed.exec(tx).await?.rows_affected != gone.len() as u64 {
        return Err(wrong(log, "what is parked for it is not what was parked"));
    }
    // Others that are gone are still missed.
    held.records -= signed(gone.len() as u64)?;
    held.bytes -= signed(gone.iter().map(|(_, bytes)| bytes).sum())?;
    let mut grown = None;
    if let Some(last) = entries.last() {
        let taken: Vec<Taken<'_>> = entries.iter().map(|entry| (producer, entry)).collect();
        let mut growth = Growth::default();
        growth.add(log, edge, &taken)?;
        grown = growth.write(tx, signer).await?.edges.pop();
        write_producers(tx, &[(producer, last.seq)]).await?;
    }
    if held.records == 0 {
        held::Entity::delete_by_id(log.to_owned()).exec(tx).await?;
    } else {
        parking::update(tx, &held).await?;
    }
    Ok(grown.map(|(_, edge)| edge))
}
